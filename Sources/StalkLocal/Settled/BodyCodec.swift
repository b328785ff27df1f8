// Bodies as LMDB keeps them: compressed where they settle, with dictionaries trained on each queue's own traffic.

internal import StalkCore
internal import StalkPlatform
internal import StalkZstd

/// A dictionary as the table `dictionaries` keeps it.
struct StoredDictionary: Sendable {
    var id: UInt32
    /// The queue that it was trained for, and its bytes.
    var record: [UInt8]
}

/// Compresses what settles and decompresses what is read.
final class BodyCodec: Sendable {
    private struct State {
        var decompression: [UInt32: DecompressionDictionary] = [:]
        /// The newest dictionary of each queue.
        var compression: [UInt32: CompressionDictionary] = [:]
        /// Whether zstd makes the bodies of a queue smaller.
        var compressibilities: [UInt32: Compressibility] = [:]
        /// Samples of the queues that are to get a dictionary next.
        var trainers: [UInt32: DictionaryTrainer] = [:]
        /// How many bodies of a queue settled since its last training.
        var settled: [UInt32: Int] = [:]
        /// The queues that were trained for.
        var trained: Set<UInt32> = []
        var isTraining = false
        /// Trained, but not in LMDB yet.
        var unstored: [(queue: UInt32, dictionary: CompressionDictionary)] = []
        var nextID: UInt32 = 1

        /// Whether a queue is, or can now be, sampled for a dictionary.
        mutating func wantsSamples(of queue: UInt32) -> Bool {
            if self.trainers[queue] != nil { return true }
            let count = self.settled[queue] ?? 0
            guard !self.trained.contains(queue) || count >= BodyCodec.bodiesBeforeNextSampling else { return false }
            if self.trainers.count >= BodyCodec.trainersMax {
                // A queue with little traffic must not keep others from being sampled.
                guard let slowest = self.trainers.min(by: { $0.value.sampleCount < $1.value.sampleCount }),
                    count > 2 * slowest.value.sampleCount
                else { return false }
                self.trainers[slowest.key] = nil
            }
            self.settled[queue] = 0
            return true
        }
    }

    /// How many bodies are sampled for a training.
    private static let bodiesBeforeFirstTraining = 2048
    /// How many bodies settle before a queue is sampled again.
    private static let bodiesBeforeNextSampling = 500_000
    /// Samples take memory, so they are taken of this many queues at a time.
    private static let trainersMax = 8
    private static let dictionaryBytes = 32 << 10

    private let maxBodyBytes: Int
    private let state = Locked(State())
    // SAFETY: used only while `decompressorLock` is held.
    private nonisolated(unsafe) let decompressor: Decompressor
    private let decompressorLock = Locked(())
    private let thread = Locked<DedicatedThread?>(nil)

    init(maxBodyBytes: Int) throws(StalkError) {
        self.maxBodyBytes = maxBodyBytes
        self.decompressor = try Decompressor()
    }

    // MARK: Bodies

    /// Compresses the bodies of the messages that LMDB does not hold yet.
    ///
    /// - Returns: For each change the envelope of its body; `nil` when it is stored as it is, or LMDB holds it.
    func packed(_ changes: [SettleChange]) throws(StalkError) -> [[UInt8]?] {
        let compressor = try Compressor()
        let dictionaries = self.state.withLock { $0.compression }
        var compressibilities = self.state.withLock { $0.compressibilities }
        let packed = changes.map { change -> [UInt8]? in
            guard let content = change.content, let queue = change.after?.queue else { return nil }
            return compressor.packed(
                content.body,
                dictionary: dictionaries[queue],
                as: &compressibilities[queue, default: Compressibility()]
            )
        }
        let noticed = compressibilities
        self.state.withLock { $0.compressibilities = noticed }
        self.sample(changes)
        return packed
    }

    /// The body in an envelope.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue``.
    func body(of envelope: UnsafeRawBufferPointer) throws(StalkError) -> [UInt8] {
        let result = self.decompressorLock.withLock { _ -> Result<[UInt8], StalkError> in
            do throws(StalkError) {
                // The limit of today must not hide what was published under a larger one.
                let limit = max(self.maxBodyBytes, 1 << 30)
                return .success(
                    try self.decompressor.body(of: envelope, maxBytes: limit) { id throws(StalkError) in
                        try self.dictionary(id)
                    }
                )
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func dictionary(_ id: UInt32) throws(StalkError) -> DecompressionDictionary {
        guard let dictionary = self.state.withLock({ $0.decompression[id] }) else {
            throw StalkError(.corruptValue, "A body names the dictionary \(id), which the store does not hold.")
        }
        return dictionary
    }

    // MARK: Dictionaries

    /// How many dictionaries there are to read with.
    var dictionaryCount: Int { self.state.withLock { $0.decompression.count } }

    /// Takes a dictionary that LMDB holds.
    func add(dictionary id: UInt32, record: UnsafeRawBufferPointer) throws(StalkError) {
        var reader = ByteReader(record)
        let queue: UInt32
        let bytes: [UInt8]
        do throws(ByteReader.Truncated) {
            queue = try reader.read()
            bytes = try reader.readBytes(reader.remaining)
        } catch {
            throw StalkError(.corruptValue, "The dictionary \(id) contradicts itself although its checksum holds.")
        }
        let decompression = try DecompressionDictionary(id: id, bytes: bytes)
        let compression = try CompressionDictionary(id: id, bytes: bytes)
        self.state.withLock { state in
            state.decompression[id] = decompression
            if state.compression[queue].map({ $0.id < id }) ?? true { state.compression[queue] = compression }
            state.nextID = max(state.nextID, id + 1)
        }
    }

    /// The dictionaries to be stored; bodies use them only after ``noteStored(_:)``.
    func newDictionaries() -> [StoredDictionary] {
        self.state.withLock { state in
            state.unstored.map { queue, dictionary in
                var writer = ByteWriter()
                writer.write(queue)
                writer.write(dictionary.bytes)
                return StoredDictionary(id: dictionary.id, record: writer.bytes)
            }
        }
    }

    /// LMDB holds these now.
    func noteStored(_ dictionaries: [StoredDictionary]) {
        let ids = Set(dictionaries.map(\.id))
        self.state.withLock { state in
            for (queue, dictionary) in state.unstored where ids.contains(dictionary.id) {
                guard let decompression = try? DecompressionDictionary(id: dictionary.id, bytes: dictionary.bytes)
                else { continue }
                state.decompression[dictionary.id] = decompression
                state.compression[queue] = dictionary
            }
            state.unstored.removeAll { ids.contains($0.dictionary.id) }
        }
    }

    // MARK: Training

    private func sample(_ changes: [SettleChange]) {
        let due = self.state.withLock { state -> UInt32? in
            // Neighbours are mostly of one queue.
            var (queue, count, isWanted) = (UInt32(0), 0, false)
            for change in changes {
                guard let content = change.content, let next = change.after?.queue else { continue }
                if next != queue {
                    state.settled[queue, default: 0] += count
                    (queue, count, isWanted) = (next, 0, state.wantsSamples(of: next))
                }
                count += 1
                guard isWanted else { continue }
                state.trainers[queue, default: DictionaryTrainer(dictionaryBytesMax: Self.dictionaryBytes)]
                    .add(content.body)
            }
            state.settled[queue, default: 0] += count
            guard !state.isTraining else { return nil }
            let due = state.trainers.keys.first { (state.settled[$0] ?? 0) >= Self.bodiesBeforeFirstTraining }
            state.isTraining = due != nil
            return due
        }
        if let due { self.train(due) }
    }

    /// Trains on a thread of its own, since that takes up to a second.
    private func train(_ queue: UInt32) {
        self.finishTraining()
        let thread = try? DedicatedThread(name: "stalk-trainer") {
            let (trainer, current, id) = self.state.withLock { state in
                (state.trainers.removeValue(forKey: queue), state.compression[queue], state.nextID)
            }
            let trained = trainer.flatMap { try? Self.better($0, than: current, id: id) }
            self.state.withLock { state in
                state.isTraining = false
                state.trained.insert(queue)
                state.settled[queue] = 0
                guard let trained else { return }
                state.nextID = max(state.nextID, id + 1)
                state.unstored.append((queue, trained))
            }
        }
        guard let thread else {
            self.state.withLock { $0.isTraining = false }
            return
        }
        self.thread.withLock { $0 = thread }
    }

    /// A dictionary that compresses what it was not trained on better than the one in use; `nil` when none does.
    private static func better(
        _ trainer: DictionaryTrainer,
        than current: CompressionDictionary?,
        id: UInt32
    ) throws(StalkError) -> CompressionDictionary? {
        guard let bytes = trainer.train() else { return nil }
        let candidate = try CompressionDictionary(id: id, bytes: bytes)
        return try trainer.trial(of: candidate, against: current).isWorthwhile ? candidate : nil
    }

    /// Waits for a training that is under way.
    func finishTraining() {
        let thread = self.thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        thread?.join()
    }
}
