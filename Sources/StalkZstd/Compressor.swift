internal import CZstd
package import StalkCore

/// Puts bodies into envelopes; for one thread, which keeps it, since its tables cost more than a small body.
package final class Compressor {
    /// Bodies below this are stored as they are: a frame's own header and tables would eat the gain.
    package static var compressedBytesMin: Int { 64 }

    /// A scratch buffer larger than this is given back after use.
    private static var scratchBytesMax: Int { 1 << 20 }

    private let context: OpaquePointer
    private var scratch: [UInt8] = []

    /// - Parameter level: zstd's level for bodies without a dictionary; a dictionary brings its own.
    /// - Throws: ``StalkError`` with ``StalkError/Code/unavailable`` when there is no memory.
    package init(level: Int = CompressionDictionary.levelDefault) throws(StalkError) {
        guard let context = ZSTD_createCCtx() else {
            throw StalkError(.unavailable, "There is no memory for a compressor; free some and try again.")
        }
        self.context = context
        // None of these can fail for values in range; zstd itself brings a level into it.
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, CInt(clamping: level))
        ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 1)
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 0)
        ZSTD_CCtx_setParameter(context, ZSTD_c_dictIDFlag, 0)
    }

    deinit {
        ZSTD_freeCCtx(self.context)
    }

    /// Hands the envelope of a body to a closure; its bytes must not be kept after that returns.
    ///
    /// The body is stored as it is when it is small, when it does not shrink by a sixteenth, and when zstd fails.
    ///
    /// - Parameter isTried: Whether to try to compress it at all.
    /// - Throws: ``StalkError`` with ``StalkError/Code/bodyTooLarge`` for 4 GiB and more; what the closure throws.
    package func withEnvelope<R>(
        for body: UnsafeRawBufferPointer,
        dictionary: CompressionDictionary? = nil,
        isTried: Bool = true,
        _ use: (UnsafeRawBufferPointer) throws(StalkError) -> R
    ) throws(StalkError) -> R {
        guard let bodyBytes = UInt32(exactly: body.count) else {
            throw StalkError(.bodyTooLarge, "A body of \(body.count) bytes can't be stored: the most is 4 GiB.")
        }
        let needed = Envelope.headerBytesMax + body.count
        if self.scratch.count < needed { self.scratch = [UInt8](repeating: 0, count: max(needed, 4096)) }
        defer { if self.scratch.count > Self.scratchBytesMax { self.scratch = [] } }
        return try self.scratch.withUnsafeMutableBufferPointer { scratch throws(StalkError) in
            let target = UnsafeMutableRawBufferPointer(scratch)
            let count =
                (isTried ? self.writeFrame(of: body, bodyBytes, dictionary, to: target) : nil)
                ?? Self.writeRaw(body, bodyBytes, to: target)
            return try use(UnsafeRawBufferPointer(rebasing: target[..<count]))
        }
    }

    /// Hands the envelope of a body to a closure, and tries to compress it only if the bodies before it were worth it.
    ///
    /// - Parameter compressibility: What is known of the bodies before it.
    /// - Throws: As the variant without it.
    package func withEnvelope<R>(
        for body: [UInt8],
        dictionary: CompressionDictionary?,
        as compressibility: inout Compressibility,
        _ use: (UnsafeRawBufferPointer) throws(StalkError) -> R
    ) throws(StalkError) -> R {
        guard body.count >= Self.compressedBytesMin else {
            return try self.withEnvelope(for: body, dictionary: nil, isTried: false, use)
        }
        let isTried = compressibility.wantsTrial()
        var isCompressed = false
        defer { if isTried { compressibility.note(isCompressed: isCompressed) } }
        return try self.withEnvelope(for: body, dictionary: dictionary, isTried: isTried) {
            envelope throws(StalkError) in
            isCompressed = envelope.first != Envelope.Kind.raw.rawValue
            return try use(envelope)
        }
    }

    private func withEnvelope<R>(
        for body: [UInt8],
        dictionary: CompressionDictionary?,
        isTried: Bool,
        _ use: (UnsafeRawBufferPointer) throws(StalkError) -> R
    ) throws(StalkError) -> R {
        try body.withUnsafeBufferPointer { body throws(StalkError) in
            try self.withEnvelope(
                for: UnsafeRawBufferPointer(body),
                dictionary: dictionary,
                isTried: isTried,
                use
            )
        }
    }

    /// Copies the envelope of a body.
    ///
    /// - Throws: As the variant with a closure.
    package func envelope(
        for body: [UInt8],
        dictionary: CompressionDictionary? = nil
    ) throws(StalkError) -> [UInt8] {
        try body.withUnsafeBufferPointer { body throws(StalkError) in
            try self.withEnvelope(for: UnsafeRawBufferPointer(body), dictionary: dictionary) { envelope in
                [UInt8](envelope)
            }
        }
    }

    /// Writes an envelope with a frame; nil when the body is better stored as it is.
    private func writeFrame(
        of body: UnsafeRawBufferPointer,
        _ bodyBytes: UInt32,
        _ dictionary: CompressionDictionary?,
        to target: UnsafeMutableRawBufferPointer
    ) -> Int? {
        guard body.count >= Self.compressedBytesMin else { return nil }
        let kind: Envelope.Kind = dictionary == nil ? .zstd : .zstdWithDictionary
        let header = Envelope.writeHeader(kind, bodyBytes: bodyBytes, dictionaryID: dictionary?.id, to: target)
        // With no more room than a frame is worth, zstd gives up by itself.
        let room = UnsafeMutableRawBufferPointer(rebasing: target[header..<header + body.count - body.count / 16])
        // A frame that it gave up on is still open, and until that is dropped the last dictionary would stay.
        ZSTD_CCtx_reset(self.context, ZSTD_reset_session_only)
        guard ZSTD_isError(ZSTD_CCtx_refCDict(self.context, dictionary?.pointer)) == 0 else { return nil }
        let count = ZSTD_compress2(self.context, room.baseAddress, room.count, body.baseAddress, body.count)
        return ZSTD_isError(count) == 0 ? header + count : nil
    }

    private static func writeRaw(
        _ body: UnsafeRawBufferPointer,
        _ bodyBytes: UInt32,
        to target: UnsafeMutableRawBufferPointer
    ) -> Int {
        let header = Envelope.writeHeader(.raw, bodyBytes: bodyBytes, dictionaryID: nil, to: target)
        UnsafeMutableRawBufferPointer(rebasing: target[header...]).copyMemory(from: body)
        return header + body.count
    }
}
