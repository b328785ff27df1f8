internal import CZstd
package import StalkCore

/// Makes a dictionary from bodies as they come.
///
/// It keeps every nth body, with n doubled each time that its memory is full, so that the kept ones stand for all that
/// it saw, in bounded memory and without chance. Every fifth of them is not trained on but kept for the trial.
package struct DictionaryTrainer: Sendable {
    /// A dictionary smaller than this is not worth its keeping.
    private static var dictionaryBytesMin: Int { 1024 }
    /// zstd's advice is a hundred times as many bytes of samples as of dictionary; below ten times it learns by heart.
    private static var samplesPerByteMax: Int { 100 }
    private static var samplesPerByteMin: Int { 10 }
    private static var sampleCountMin: Int { 40 }
    /// Longer bodies count with their beginning: further on they have context of their own.
    private static var sampleBytesMax: Int { 16 << 10 }
    private static var trialInterval: Int { 5 }

    private let dictionaryBytesMax: Int
    private var samples: [[UInt8]] = []
    private var interval = 1
    private var seenCount = 0

    /// The bytes that the kept bodies have: at most a hundred times the size of the dictionary.
    package private(set) var sampleBytes = 0

    /// - Parameter dictionaryBytesMax: The largest dictionary to make.
    package init(dictionaryBytesMax: Int = 64 << 10) {
        self.dictionaryBytesMax = max(dictionaryBytesMax, Self.dictionaryBytesMin)
    }

    /// How many bodies are kept.
    package var sampleCount: Int { self.samples.count }

    /// Shows it one more body.
    package mutating func add(_ body: UnsafeRawBufferPointer) {
        // Bodies that are stored as they are need no dictionary.
        guard body.count >= Compressor.compressedBytesMin else { return }
        defer { self.seenCount += 1 }
        guard self.seenCount % self.interval == 0 else { return }
        let sample = [UInt8](body.prefix(Self.sampleBytesMax))
        self.samples.append(sample)
        self.sampleBytes += sample.count
        while self.sampleBytes > self.dictionaryBytesMax * Self.samplesPerByteMax { self.thinOut() }
    }

    /// Shows it one more body.
    package mutating func add(_ body: [UInt8]) {
        body.withUnsafeBytes { body in self.add(body) }
    }

    /// Trains a dictionary; nil when there are too few bodies, or they have too little in common.
    ///
    /// It blocks: 64 KiB of dictionary from 5 MiB of records take about a quarter of a second.
    package func train() -> [UInt8]? {
        var samples: [UInt8] = []
        var sizes: [Int] = []
        samples.reserveCapacity(self.sampleBytes)
        for sample in self.select(forTrial: false) {
            samples.append(contentsOf: sample)
            sizes.append(sample.count)
        }
        let capacity = min(self.dictionaryBytesMax, samples.count / Self.samplesPerByteMin)
        guard sizes.count >= Self.sampleCountMin, capacity >= Self.dictionaryBytesMin else { return nil }
        let dictionary = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
            let result = ZDICT_trainFromBuffer(buffer.baseAddress, capacity, samples, sizes, UInt32(sizes.count))
            count = ZDICT_isError(result) == 0 ? result : 0
        }
        return dictionary.isEmpty ? nil : dictionary
    }

    /// Compresses the bodies that were not trained on with both dictionaries.
    ///
    /// - Parameters:
    ///   - candidate: The new dictionary.
    ///   - current: The one in use; nil when there is none yet.
    /// - Throws: As ``Compressor`` and ``CompressionDictionary``.
    package func trial(
        of candidate: CompressionDictionary,
        against current: CompressionDictionary?
    ) throws(StalkError) -> DictionaryTrial {
        let compressor = try Compressor()
        var trial = DictionaryTrial()
        for sample in self.select(forTrial: true) {
            trial.bodyBytes += sample.count
            trial.currentBytes += try compressor.envelope(for: sample, dictionary: current).count
            trial.candidateBytes += try compressor.envelope(for: sample, dictionary: candidate).count
        }
        return trial
    }

    private func select(forTrial: Bool) -> [[UInt8]] {
        self.samples.indices
            .filter { index in (index % Self.trialInterval == Self.trialInterval - 1) == forTrial }
            .map { index in self.samples[index] }
    }

    private mutating func thinOut() {
        self.interval *= 2
        self.samples = stride(from: 0, to: self.samples.count, by: 2).map { index in self.samples[index] }
        self.sampleBytes = self.samples.reduce(0) { sum, sample in sum + sample.count }
    }
}

/// What two dictionaries made of the same bodies.
package struct DictionaryTrial: Hashable, Sendable {
    /// The bodies before compression.
    package var bodyBytes = 0
    /// Their envelopes with the dictionary in use, or without one.
    package var currentBytes = 0
    /// Their envelopes with the new dictionary.
    package var candidateBytes = 0

    /// How many bytes of body go into a byte of envelope with the dictionary in use.
    package var currentRatio: Double { Double(self.bodyBytes) / Double(max(1, self.currentBytes)) }

    /// How many bytes of body go into a byte of envelope with the new dictionary.
    package var candidateRatio: Double { Double(self.bodyBytes) / Double(max(1, self.candidateBytes)) }

    /// Whether the new dictionary saves at least a twentieth: less does not pay for keeping one more.
    package var isWorthwhile: Bool {
        self.bodyBytes > 0 && self.candidateBytes <= self.currentBytes - self.currentBytes / 20
    }
}
