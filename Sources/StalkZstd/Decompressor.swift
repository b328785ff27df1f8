internal import CZstd
package import StalkCore

/// Takes bodies out of their envelopes; for one thread, which keeps it.
package final class Decompressor {
    private let context: OpaquePointer

    /// - Throws: ``StalkError`` with ``StalkError/Code/unavailable`` when there is no memory.
    package init() throws(StalkError) {
        guard let context = ZSTD_createDCtx() else {
            throw StalkError(.unavailable, "There is no memory for a decompressor; free some and try again.")
        }
        self.context = context
    }

    deinit {
        ZSTD_freeDCtx(self.context)
    }

    /// Copies the body out of an envelope.
    ///
    /// No more memory than `maxBytes` is taken, whatever the envelope declares: its length must be within that, and the
    /// frame's own must agree, before any is.
    ///
    /// - Parameters:
    ///   - envelope: The bytes that ``Compressor`` made.
    ///   - maxBytes: The longest body that can be.
    ///   - dictionary: Finds a dictionary by its number, for envelopes that name one.
    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue`` for bytes that are no sound envelope of such a
    ///   body; what `dictionary` throws. Damage inside a frame can also give wrong bytes: see ``Envelope``.
    package func body(
        of envelope: UnsafeRawBufferPointer,
        maxBytes: Int,
        dictionary: (UInt32) throws(StalkError) -> DecompressionDictionary
    ) throws(StalkError) -> [UInt8] {
        let envelope = try Envelope(parsing: envelope)
        guard envelope.bodyBytes <= maxBytes else {
            throw .corruptEnvelope("it declares \(envelope.bodyBytes) bytes, and the limit is \(maxBytes)")
        }
        switch envelope.kind {
        case .raw:
            guard envelope.payload.count == envelope.bodyBytes else {
                throw .corruptEnvelope("it has \(envelope.payload.count) of \(envelope.bodyBytes) bytes")
            }
            return [UInt8](envelope.payload)
        case .zstd:
            return try self.content(of: envelope, nil)
        case .zstdWithDictionary:
            guard let id = envelope.dictionaryID else { throw .corruptEnvelope("it names no dictionary") }
            let found = try dictionary(id)
            guard found.id == id else {
                throw .corruptEnvelope("it needs the dictionary \(id), and \(found.id) was found for it")
            }
            return try self.content(of: envelope, found)
        }
    }

    private func content(
        of envelope: Envelope,
        _ dictionary: DecompressionDictionary?
    ) throws(StalkError) -> [UInt8] {
        try Self.checkFrame(envelope)
        let payload = envelope.payload
        var result = 0
        let body = [UInt8](unsafeUninitializedCapacity: envelope.bodyBytes) { buffer, count in
            result = ZSTD_decompress_usingDDict(
                self.context,
                buffer.baseAddress,
                envelope.bodyBytes,
                payload.baseAddress,
                payload.count,
                dictionary?.pointer
            )
            count = result == envelope.bodyBytes ? result : 0
        }
        if let error = ZstdError(result) { throw .corruptEnvelope("its frame is damaged", cause: error) }
        guard result == envelope.bodyBytes else {
            throw .corruptEnvelope("its frame holds \(result) bytes instead of \(envelope.bodyBytes)")
        }
        return body
    }

    /// Makes sure, before memory is taken, that the payload is one zstd frame, all of it, of the declared length.
    private static func checkFrame(_ envelope: Envelope) throws(StalkError) {
        let payload = envelope.payload
        // Skippable frames and those of zstd's first versions have other magic numbers.
        guard payload.count >= 4, UInt32(littleEndian: payload.loadUnaligned(as: UInt32.self)) == ZSTD_MAGICNUMBER
        else { throw .corruptEnvelope("its payload is no zstd frame") }
        // Unknown and unreadable lengths are given as numbers that no envelope can declare.
        let declared = ZSTD_getFrameContentSize(payload.baseAddress, payload.count)
        guard declared == UInt64(envelope.bodyBytes) else {
            throw .corruptEnvelope("its frame does not declare \(envelope.bodyBytes) bytes")
        }
        let frameBytes = ZSTD_findFrameCompressedSize(payload.baseAddress, payload.count)
        if let error = ZstdError(frameBytes) { throw .corruptEnvelope("its frame is cut short", cause: error) }
        guard frameBytes == payload.count else {
            throw .corruptEnvelope("\(payload.count - frameBytes) bytes follow its frame")
        }
    }
}
