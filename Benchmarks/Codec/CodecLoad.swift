// What compression is put through.

import Benchmark
import BenchmarkSupport
import StalkCore
import StalkZstd

/// Bodies that a checkpoint compresses as they settle, and that a delivery takes out of LMDB.
struct CodecLoad {
    enum Bodies: String, CaseIterable {
        /// Records of about 790 bytes.
        case records
        /// The same with a dictionary that was trained on others of their kind.
        case recordsWithDictionary = "records-dictionary"
        /// Random bytes, 1 KiB each, which are stored as they are.
        case random
    }

    private static let dictionaryID: UInt32 = 1

    private let bodies: [[UInt8]]
    private let compression: CompressionDictionary?
    private let decompression: DecompressionDictionary?
    private let isRandom: Bool

    init(_ kind: Bodies) throws {
        self.isRandom = kind == .random
        self.bodies = kind == .random ? Records.random(4_096, bytes: 1_024) : Records.text(4_096)
        guard kind == .recordsWithDictionary else {
            (self.compression, self.decompression) = (nil, nil)
            return
        }
        var trainer = DictionaryTrainer()
        for sample in Records.text(4_096, seed: 4) { trainer.add(sample) }
        guard let dictionary = trainer.train() else { throw Mismatch("No dictionary can be trained on the records") }
        self.compression = try CompressionDictionary(id: Self.dictionaryID, bytes: dictionary)
        self.decompression = try DecompressionDictionary(id: Self.dictionaryID, bytes: dictionary)
    }

    /// Puts all bodies into envelopes as a checkpoint does; each is looked at and dropped.
    func compress(_ benchmark: Benchmark) throws {
        let compressor = try Compressor()
        var raw = ByteWriter()
        var bytes = 0
        try benchmark.count(messages: self.bodies.count) {
            for body in self.bodies {
                if let packed = compressor.packed(body, dictionary: self.compression) {
                    bytes += packed.count
                } else {
                    raw = ByteWriter(reusing: raw.take())
                    try Envelope.write(raw: body, to: &raw)
                    bytes += raw.count
                }
            }
        }
        benchmark.measurement(.storedBytes, bytes / self.bodies.count)
    }

    /// Takes all bodies out of their envelopes.
    func decompress(_ benchmark: Benchmark) throws {
        let compressor = try Compressor()
        let envelopes = try self.bodies.map { try compressor.envelope(for: $0, dictionary: self.compression) }
        let decompressor = try Decompressor()
        var isSame = true
        try benchmark.count(messages: self.bodies.count) {
            for (body, envelope) in zip(self.bodies, envelopes) {
                let found = try envelope.withUnsafeBufferPointer { envelope throws(StalkError) in
                    try decompressor.body(of: UnsafeRawBufferPointer(envelope), maxBytes: 1 << 20) {
                        id throws(StalkError) in
                        guard let dictionary = self.decompression else {
                            throw StalkError(.corruptValue, "An envelope names the dictionary \(id): there is none.")
                        }
                        return dictionary
                    }
                }
                isSame = isSame && found == body
            }
        }
        guard isSame else { throw Mismatch("What was compressed is not what came out") }
        let isRaw = envelopes.allSatisfy { $0.first == Envelope.Kind.raw.rawValue }
        guard isRaw == self.isRandom else { throw Mismatch("The wrong bodies were stored as they are") }
        benchmark.measurement(.storedBytes, envelopes.reduce(0) { $0 + $1.count } / self.bodies.count)
    }
}
