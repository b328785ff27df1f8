import Foundation
import StalkCore
import StalkTesting
import StalkWheel
import Synchronization

@testable import StalkLocal

/// A store in a directory of its own, under a manual clock, with small segments.
struct TemporaryStore: Sendable {
    let path: String
    let clock: ManualClock
    var options: LocalStoreOptions

    init(clock: ManualClock = ManualClock(), path: String? = nil) {
        self.path = path ?? FileManager.default.temporaryDirectory.path + "/stalk-test-\(UUID().uuidString)"
        self.clock = clock
        self.options = LocalStoreOptions(
            maxBodyBytes: 64 << 10,
            segmentBytes: 256 << 10,
            checkpointBytes: 1 << 20,
            clock: clock
        )
    }

    func open() async throws -> LocalStore {
        try await LocalStore.open(at: self.path, options: self.options)
    }

    /// Lets time pass, and returns once the store has noticed.
    func advance(_ store: LocalStore, by duration: Duration) async {
        self.clock.advance(by: duration)
        await store.catchUp()
    }

    func remove() {
        try? FileManager.default.removeItem(atPath: self.path)
    }
}

extension LocalStore {
    /// Returns once everything that is due by now was released.
    func catchUp() async {
        let now = self.core.now.milliseconds
        while self.core.look({ engine in
            let isDue = engine.wheel.nextDeadline ?? .max <= now || engine.nextUnfed ?? .max <= now
            return engine.wheel.now < now || engine.isFeeding || isDue
        }) { await Task.yield() }
    }

    /// Lets the store end as a kill would: nothing is written any more.
    func abandon() async {
        await self.access.abandon()
    }

    /// The engine of a store that this process owns.
    var core: StoreCore {
        guard let owned = self.access.owned else { preconditionFailure("this process owns the store") }
        return owned.core
    }
}

/// Reaches a local queue for the conformance suite.
final class LocalHarness: CollectorHarness {
    let temporary: TemporaryStore
    let store: LocalStore
    private let next = NextNumber()

    init() async throws {
        self.temporary = TemporaryStore()
        self.store = try await self.temporary.open()
    }

    func makeCollector() async throws -> LocalQueue {
        try self.store.queue("queue-\(self.next.take())")
    }

    func advance(by duration: Duration) async throws {
        await self.temporary.advance(self.store, by: duration)
    }

    func takeIsWaiting() async throws {
        while self.store.core.look({ engine in engine.queues.numbers.allSatisfy { engine.queues[$0].takers.isEmpty } })
        {
            await Task.yield()
        }
    }

    func deadLetters(of collector: LocalQueue) async throws -> [ConformanceDeadLetter]? {
        try await self.store.peek(collector.queue, state: .dead, max: 100).map { message in
            ConformanceDeadLetter(body: message.body, reason: message.failures.last?.reason ?? "")
        }
    }

    func close() async throws {
        try await self.store.close()
        self.temporary.remove()
    }
}

/// Numbers without repetition.
final class NextNumber: Sendable {
    private let value = Atomic(0)

    func take() -> Int { self.value.add(1, ordering: .relaxed).newValue }
}

extension LocalStore {
    /// Returns once the scheduler has done what it can at this time.
    func settleSchedule() async {
        let now = self.core.now.milliseconds
        while !self.core.look({ $0.isSchedulerAsleep && $0.releaseBudget.refilledAt >= now }) { await Task.yield() }
    }
}

extension TemporaryStore {
    /// Flips a bit in the first place where a file of the store holds a text.
    func flipByte(of text: String, in file: String? = nil) throws {
        let files =
            try file.map { [$0] }
            ?? FileManager.default.contentsOfDirectory(atPath: self.path + "/log").map { "log/\($0)" }
        for file in files {
            let url = URL(fileURLWithPath: "\(self.path)/\(file)")
            var data = try Data(contentsOf: url)
            guard let place = data.firstRange(of: Data(text.utf8)) else { continue }
            data[place.lowerBound] ^= 1
            let handle = try FileHandle(forWritingTo: url)
            try handle.seek(toOffset: UInt64(place.lowerBound))
            try handle.write(contentsOf: data[place.lowerBound..<place.lowerBound + 1])
            try handle.close()
            return
        }
        throw StalkError(.noSuchMessage, "no file holds \(text)")
    }

    /// The names and contents of all files of the store that tell whether it was changed.
    func fingerprint() throws -> [String: Data] {
        var files: [String: Data] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: self.path) where name != "lock" {
            guard name != "index/lock.mdb", let data = FileManager.default.contents(atPath: "\(self.path)/\(name)")
            else { continue }
            files[name] = data
        }
        return files
    }
}
