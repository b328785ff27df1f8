internal import CZstd
package import StalkCore

/// A dictionary, made ready for compressing; several threads can use it at once.
// SAFETY: zstd makes a ZSTD_CDict once and only reads it afterwards: zstd.h says that threads may share it.
package final class CompressionDictionary: @unchecked Sendable {
    /// The level for everything: checkpoints compress, and lasting load is as fast as they are.
    ///
    /// On package records with a dictionary it takes three quarters of the time of zstd's default, 3, for 95% of the ratio.
    package static var levelDefault: Int { 1 }

    /// The number that stands in the envelopes made with it.
    package let id: UInt32
    /// The dictionary itself: what to store, and to make a ``DecompressionDictionary`` of.
    package let bytes: [UInt8]
    let pointer: OpaquePointer

    /// - Parameters:
    ///   - id: The number to put into envelopes; the caller keeps numbers apart.
    ///   - bytes: What ``DictionaryTrainer`` made, or any text that is like the bodies.
    ///   - level: zstd's level for bodies that use it.
    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue`` when zstd refuses the bytes.
    package init(id: UInt32, bytes: [UInt8], level: Int = levelDefault) throws(StalkError) {
        guard !bytes.isEmpty, let pointer = ZSTD_createCDict(bytes, bytes.count, CInt(clamping: level)) else {
            throw .unusableDictionary(id)
        }
        self.id = id
        self.bytes = bytes
        self.pointer = pointer
    }

    deinit {
        ZSTD_freeCDict(self.pointer)
    }
}

/// A dictionary, made ready for decompressing; several threads can use it at once.
// SAFETY: zstd makes a ZSTD_DDict once and only reads it afterwards, like a ZSTD_CDict.
package final class DecompressionDictionary: @unchecked Sendable {
    /// The number that stands in the envelopes that need it.
    package let id: UInt32
    let pointer: OpaquePointer

    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue`` when zstd refuses the bytes.
    package init(id: UInt32, bytes: [UInt8]) throws(StalkError) {
        guard !bytes.isEmpty, let pointer = ZSTD_createDDict(bytes, bytes.count) else {
            throw .unusableDictionary(id)
        }
        self.id = id
        self.pointer = pointer
    }

    deinit {
        ZSTD_freeDDict(self.pointer)
    }
}

extension StalkError {
    fileprivate static func unusableDictionary(_ id: UInt32) -> StalkError {
        StalkError(.corruptValue, "The compression dictionary \(id) is damaged; run 'stalk repair'.")
    }
}
