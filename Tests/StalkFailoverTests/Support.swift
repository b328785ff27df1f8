import Foundation
import Logging
import StalkCore
import StalkTesting
import Synchronization
import Testing

@testable import StalkFailover
@testable import StalkLocal

/// A remote that fails as told, a store in front of it, and a clock that stands still, for one test.
///
/// The remote outlives the collector and the store, as a real one does.
final class Rig: Sendable {
    let path = FileManager.default.temporaryDirectory.path + "/stalk-failover-\(UUID().uuidString)"
    let clock: ManualClock
    let base: InMemoryCollector
    let remote: FaultyCollector

    init(
        _ name: String = "orders",
        capabilities: CollectorCapabilities = .likeSQS,
        clock: ManualClock = ManualClock()
    ) throws {
        self.clock = clock
        self.base = InMemoryCollector(queue: try QueueName(name), capabilities: capabilities, clock: clock)
        self.remote = FaultyCollector(self.base)
    }

    deinit { try? FileManager.default.removeItem(atPath: self.path) }

    /// What reached the remote, as text.
    var arrived: [String] { self.remote.arrived.map(\.text) }

    /// One life of a process: opens the store, puts a collector in front, and closes both.
    func live<Value: Sendable>(
        _ options: FailoverOptions = FailoverOptions(),
        logger: Logger? = nil,
        _ body: (FailoverCollector, LocalStore) async throws -> Value
    ) async throws -> Value {
        let (collector, store) = try await self.open(options, logger: logger)
        let result: Result<Value, any Error>
        do {
            result = .success(try await body(collector, store))
        } catch {
            result = .failure(error)
        }
        self.remote.script { if $0.lasting == .silence { $0.lasting = .notSent } }
        await collector.close()
        try? await store.close()
        return try result.get()
    }

    func open(
        _ options: FailoverOptions = FailoverOptions(),
        logger: Logger? = nil
    ) async throws -> (FailoverCollector, LocalStore) {
        var storeOptions = LocalStoreOptions(
            segmentBytes: 2 << 20,
            checkpointBytes: 4 << 20,
            clock: self.clock
        )
        storeOptions.idleCheckpointDelay = .seconds(3600)
        let store = try await LocalStore.open(at: self.path, options: storeOptions)
        let clock = self.clock
        let collector = try FailoverCollector(
            primary: self.remote,
            spool: store,
            options: options,
            clock: ElapsedClock(clock),
            wallTime: { clock.wallTime() },
            logger: logger
        )
        try await collector.opened()
        return (collector, store)
    }

    /// Ends a life as a kill does: the store takes nothing more, and the collector learns it from that.
    func kill(_ collector: FailoverCollector, _ store: LocalStore) async {
        store.core.step { engine, _ in engine.fail(.storeClosed) }
        self.remote.script { if $0.lasting == .silence { $0.lasting = .notSent } }
        await collector.close()
        await store.access.abandon()
    }

    /// Lets time pass in small steps until something is so.
    func until(_ what: String, step: Duration = .milliseconds(200), _ condition: () async throws -> Bool) async throws {
        let start = ContinuousClock.now
        while try await !condition() {
            guard ContinuousClock.now - start < .seconds(60) else {
                throw StalkError(.interrupted, "\(what) did not happen; arrived: \(self.arrived.suffix(20))")
            }
            self.clock.advance(by: step)
            for _ in 0..<20 { await Task.yield() }
            try await Task.sleep(for: .microseconds(200))
        }
    }

    /// Lets time pass until nothing waits.
    func drained(_ collector: FailoverCollector) async throws {
        try await self.until("draining") {
            let stats = try await collector.stats()
            return stats.waiting == 0
        }
    }

    /// Lets time pass while nothing is expected to change.
    func pass(_ duration: Duration, steps: Int = 20) async throws {
        for _ in 0..<steps {
            self.clock.advance(by: duration / steps)
            for _ in 0..<20 { await Task.yield() }
            try await Task.sleep(for: .microseconds(200))
        }
    }
}

extension Message {
    var text: String { String(decoding: self.body, as: UTF8.self) }
    var id: String { self.headers["Stalk-Id"] ?? "" }
}

extension CollectorCapabilities {
    /// A local queue.
    static var likeStore: CollectorCapabilities {
        var capabilities = CollectorCapabilities.likeSQS
        capabilities.uncountedRelease = true
        return capabilities
    }

    /// Delays of 15 minutes, batches of ten.
    static var likeSQS: CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: 1 << 18,
            maxDelay: .seconds(900),
            maxRetryDelay: .seconds(43_200),
            maxLease: .seconds(43_200),
            maxBatch: 10,
            ordering: .firstInFirstOut,
            leaseExtension: true,
            atomicPublish: false,
            uncountedRelease: false,
            durableDelay: true
        )
    }
}

/// What went wrong on the way of messages to a remote, by what was promised to publishers and what arrived.
struct Oracle {
    /// Ids that publishing said to be safe, with their group, in the order in which it did.
    var promised: [(id: String, group: String)] = []

    /// The breaches of "nothing lost, no more copies than ambiguous sends, in order within a group".
    func breaches(arrived: [String], ambiguous: Int, setAside: Set<String> = []) -> [String] {
        var breaches: [String] = []
        var places: [String: Int] = [:]
        var copies = 0
        for (place, id) in arrived.enumerated() {
            if places[id] == nil { places[id] = place } else { copies += 1 }
        }
        if copies > ambiguous { breaches.append("\(copies) copies, \(ambiguous) ambiguous sends") }
        var last: [String: Int] = [:]
        for (id, group) in self.promised where !setAside.contains(id) {
            guard let place = places[id] else {
                breaches.append("\(id) is lost")
                continue
            }
            if place < last[group] ?? -1 { breaches.append("\(id) of \(group) came out of order") }
            last[group] = max(last[group] ?? -1, place)
        }
        return breaches
    }
}

extension LocalStore {
    /// The engine of a store that this process owns.
    var core: StoreCore {
        guard let owned = self.access.owned else { preconditionFailure("this process owns the store") }
        return owned.core
    }
}
