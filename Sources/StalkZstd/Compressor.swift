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

    /// The envelope of a body that zstd makes smaller; `nil` for one that is better stored as it is, since it is small,
    /// does not shrink by a sixteenth, or zstd fails.
    ///
    /// - Parameter compressibility: What is known of the bodies before it: if they were not worth it, it may not be tried.
    package func packed(
        _ body: [UInt8],
        dictionary: CompressionDictionary?,
        as compressibility: inout Compressibility
    ) -> [UInt8]? {
        guard body.count >= Self.compressedBytesMin, compressibility.wantsTrial() else { return nil }
        let packed = self.packed(body, dictionary: dictionary)
        compressibility.note(isCompressed: packed != nil)
        return packed
    }

    /// The envelope of a body that zstd makes smaller; `nil` for one that is better stored as it is.
    package func packed(_ body: [UInt8], dictionary: CompressionDictionary?) -> [UInt8]? {
        guard body.count >= Self.compressedBytesMin, let bodyBytes = UInt32(exactly: body.count) else { return nil }
        let needed = Envelope.headerBytesMax + body.count
        if self.scratch.count < needed { self.scratch = [UInt8](repeating: 0, count: max(needed, 4096)) }
        defer { if self.scratch.count > Self.scratchBytesMax { self.scratch = [] } }
        return self.scratch.withUnsafeMutableBytes { scratch in
            let count = body.withUnsafeBytes { self.writeFrame(of: $0, bodyBytes, dictionary, to: scratch) }
            return count.map { [UInt8](scratch[..<$0]) }
        }
    }

    /// The envelope of a body, packed if that makes it smaller.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/bodyTooLarge`` for 4 GiB and more.
    package func envelope(
        for body: [UInt8],
        dictionary: CompressionDictionary? = nil
    ) throws(StalkError) -> [UInt8] {
        if let packed = self.packed(body, dictionary: dictionary) { return packed }
        var writer = ByteWriter(reserving: Envelope.headerBytesMax + body.count)
        try Envelope.write(raw: body, to: &writer)
        return writer.bytes
    }

    /// Writes an envelope with a frame; nil when the body is better stored as it is.
    private func writeFrame(
        of body: UnsafeRawBufferPointer,
        _ bodyBytes: UInt32,
        _ dictionary: CompressionDictionary?,
        to target: UnsafeMutableRawBufferPointer
    ) -> Int? {
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
}
