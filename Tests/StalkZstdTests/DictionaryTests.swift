import Glibc
import StalkCore
import StalkTesting
import StalkZstd
import Testing

@Suite struct DictionaryTests {
    /// A dictionary of `count` records.
    private static func trained(count: UInt64 = 2000, dictionaryBytesMax: Int = 8192) throws -> [UInt8] {
        var trainer = DictionaryTrainer(dictionaryBytesMax: dictionaryBytesMax)
        for seed in 0..<count { trainer.add(Samples.record(seed)) }
        return try #require(trainer.train())
    }

    @Test func recordsShrinkFurtherWithADictionary() throws {
        var trainer = DictionaryTrainer(dictionaryBytesMax: 16 << 10)
        for seed in 0..<2000 as Range<UInt64> { trainer.add(Samples.record(seed)) }
        let bytes = try #require(trainer.train())
        #expect(bytes.count <= 16 << 10)
        let dictionary = try CompressionDictionary(id: 1, bytes: bytes)
        let trial = try trainer.trial(of: dictionary, against: nil)
        #expect(trial.isWorthwhile)
        #expect(trial.candidateRatio > 1.5 * trial.currentRatio)
        #expect(trial.currentRatio > 1)
        // The same dictionary does not beat itself.
        let same = try trainer.trial(of: dictionary, against: dictionary)
        #expect(!same.isWorthwhile)
        #expect(same.candidateBytes == same.currentBytes && same.candidateBytes == trial.candidateBytes)
    }

    @Test func trialUsesBodiesThatWereNotTrainedOn() throws {
        var trainer = DictionaryTrainer(dictionaryBytesMax: 1 << 20)
        // Of five bodies, the one held out has nothing in common with the others.
        var held = 0
        for index in 0..<500 as Range<UInt64> {
            let isHeld = index % 5 == 4
            let record = isHeld ? Samples.random(300, seed: index) : Samples.record(index)
            if isHeld { held += record.count }
            trainer.add(record)
        }
        let dictionary = try CompressionDictionary(id: 1, bytes: try #require(trainer.train()))
        let trial = try trainer.trial(of: dictionary, against: nil)
        #expect(trial.bodyBytes == held)
        #expect(!trial.isWorthwhile)
    }

    @Test func tooLittleToLearnFromGivesNothing() throws {
        var few = DictionaryTrainer()
        #expect(few.train() == nil)
        for seed in 0..<20 as Range<UInt64> { few.add(Samples.record(seed)) }
        #expect(few.train() == nil)
        var small = DictionaryTrainer()
        for _ in 0..<1000 { small.add([1, 2, 3]) }
        #expect(small.sampleCount == 0)
        #expect(small.train() == nil)
        let trial = try few.trial(of: CompressionDictionary(id: 1, bytes: Samples.record(1)), against: nil)
        #expect(trial.bodyBytes > 0)
    }

    @Test func memoryOfTheTrainerIsBounded() throws {
        var trainer = DictionaryTrainer(dictionaryBytesMax: 1024)
        var generator = SeededGenerator(seed: 3)
        for seed in 0..<3000 as Range<UInt64> {
            trainer.add(Samples.text(Int.random(in: 0..<20_000, using: &generator), seed: seed))
            #expect(trainer.sampleBytes <= 102_400)
        }
        #expect(trainer.sampleBytes > 25_000)
    }

    /// All of the traffic stands for itself, not only its beginning.
    @Test func samplesComeFromAllOfTheTraffic() throws {
        var trainer = DictionaryTrainer(dictionaryBytesMax: 2048)
        for seed in 0..<2000 as Range<UInt64> { trainer.add(Samples.text(400, seed: seed)) }
        for seed in 0..<2000 as Range<UInt64> { trainer.add(Samples.record(seed)) }
        let dictionary = try #require(trainer.train())
        #expect(String(decoding: dictionary, as: UTF8.self).contains("\"maintainers\""))
        #expect(String(decoding: dictionary, as: UTF8.self).contains("attempt"))
    }

    @Test func dictionaryIsAskedForByItsNumber() throws {
        let bytes = try Self.trained()
        let record = Samples.record(9999)
        let compressed = try CompressionDictionary(id: 42, bytes: bytes)
        let envelope = try Compressor().envelope(for: record, dictionary: compressed)
        var asked: [UInt32] = []
        let ready = try DecompressionDictionary(id: 42, bytes: bytes)
        let found = try Decompressor().body(of: envelope, maxBytes: 1 << 20) { id in
            asked.append(id)
            return ready
        }
        #expect(found == record && asked == [42])
        // Without one, it is the caller's error that comes out.
        #expect(code { _ = try body(of: envelope) } == .noSuchMessage)
    }

    @Test func wrongDictionaryIsRefusedOrAtLeastHarmless() throws {
        let record = Samples.record(9999)
        let compressed = try CompressionDictionary(id: 42, bytes: try Self.trained())
        let envelope = try Compressor().envelope(for: record, dictionary: compressed)
        // Under its own number, it is refused.
        let other = Samples.record(1) + Samples.text(5000)
        let wrong = try DecompressionDictionary(id: 43, bytes: other)
        let thrown = code { _ = try Decompressor().body(of: envelope, maxBytes: 1 << 20) { _ in wrong } }
        #expect(thrown == .corruptValue)
        // Under the right one, only a checksum could tell; it must not crash or give more than was declared.
        let disguised = try DecompressionDictionary(id: 42, bytes: other)
        let found = try? Decompressor().body(of: envelope, maxBytes: 1 << 20) { _ in disguised }
        #expect(found == nil || found?.count == record.count)
        #expect(found != record)
    }

    @Test func damagedDictionaryIsRefused() throws {
        var bytes = try Self.trained()
        for index in 8..<60 { bytes[index] = 0xff }
        #expect(code { _ = try CompressionDictionary(id: 1, bytes: bytes) } == .corruptValue)
        #expect(code { _ = try DecompressionDictionary(id: 1, bytes: bytes) } == .corruptValue)
        #expect(code { _ = try CompressionDictionary(id: 1, bytes: []) } == .corruptValue)
        #expect(code { _ = try DecompressionDictionary(id: 1, bytes: []) } == .corruptValue)
    }

    @Test func threadsShareADictionary() async throws {
        let bytes = try Self.trained()
        let compressed = try CompressionDictionary(id: 1, bytes: bytes)
        let ready = try DecompressionDictionary(id: 1, bytes: bytes)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<4 as Range<UInt64> {
                group.addTask {
                    let compressor = try Compressor()
                    let decompressor = try Decompressor()
                    for seed in task * 1000..<task * 1000 + 100 {
                        let record = Samples.record(seed)
                        let envelope = try compressor.envelope(for: record, dictionary: compressed)
                        let found = try decompressor.body(of: envelope, maxBytes: 1 << 20) { _ in ready }
                        #expect(found == record)
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}
