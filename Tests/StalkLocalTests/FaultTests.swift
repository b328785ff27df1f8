import StalkCore
import StalkFiles
import StalkTesting
import Testing

@testable import StalkLocal

/// Lets each call on the disk fail in turn, under a store with real threads and a real LMDB, as SQLite's tests do: the first
/// call, the second, and so on, until a run has passed without a failure.
@Suite struct FaultTests {
    /// A kind of failure.
    enum Kind: CaseIterable {
        case deviceOnce
        case deviceForEver
        case fullOnce
        case tornWrite
    }

    @Test(
        "Whatever call fails, nothing acknowledged is lost",
        arguments: Kind.allCases,
        [
            DiskOperation.open, .write, .sync, .fillWithZeros, .rename, .syncDirectory, .list, .makeDirectory,
            .size,
            .read, .dropCache,
        ]
    )
    func eachCallFailsInTurn(kind: Kind, operation: DiskOperation) async throws {
        var failures = 0
        for call in 1...200 {
            let run = FaultyRun()
            defer { run.temporary.remove() }
            let fault = DiskFault(
                operation,
                call: call,
                error: kind == .fullOnce ? .diskFull : .deviceFailed,
                isLasting: kind == .deviceForEver,
                reachedBytes: kind == .tornWrite ? 700 : 0
            )
            let hasFailed = await run.live(fault)
            try await run.check()
            guard hasFailed else { break }
            failures += 1
        }
        // The script makes calls of every kind; without one the test would show nothing.
        #expect(failures > 0)
        #expect(failures < 200)
    }
}

/// A scripted life of a store on a directory that fails, and what was acknowledged in it.
private final class FaultyRun: Sendable {
    private struct Journal {
        var asked: Set<String> = []
        var published: Set<String> = []
        var asksToEnd: Set<String> = []
        var acknowledged: Set<String> = []
        var firstFailure: StalkError?
    }

    let temporary = TemporaryStore()
    private let journal = Locked(Journal())

    /// Lives until the end, or until a call fails for good.
    ///
    /// - Returns: Whether the fault came.
    func live(_ fault: DiskFault) async -> Bool {
        let faulty = Locked<FaultyDirectory?>(nil)
        var opening = StoreOpening(path: self.temporary.path, options: self.temporary.options)
        opening.disk = { directory in
            let disk = FaultyDirectory(directory)
            disk.inject(fault)
            faulty.withLock { $0 = disk }
            return disk
        }
        do {
            let store = try await LocalStore.open(opening)
            do {
                try await self.script(store)
                try await store.close()
            } catch {
                await store.access.abandon()
            }
        } catch {
            // Opening met the fault.
        }
        return faulty.withLock { $0?.failures ?? 0 } > 0
    }

    private func script(_ store: LocalStore) async throws {
        let queue = try store.queue("work")
        try await queue.wake()
        for round in 0..<3 {
            // Enough for several segments of 256 KiB.
            let names = (0..<16).map { "\(round)-\($0)" }
            self.journal.withLock { $0.asked.formUnion(names) }
            let padding = [UInt8](repeating: UInt8(round), count: 12 << 10)
            let results = try await queue.publish(
                names.map { Message(padding, headers: ["name": $0]) },
                durability: .synced
            )
            for (name, result) in zip(names, results) {
                if case .success = result { self.journal.withLock { _ = $0.published.insert(name) } }
            }
            if round == 1 { try? await store.checkpoint() }
            for delivery in try await queue.take(TakeRequest(max: 8, lease: .seconds(60))) {
                let name = delivery.headers["name"] ?? ""
                self.journal.withLock { _ = $0.asksToEnd.insert(name) }
                let result = try await queue.finish([Completion(delivery.receipt, .acknowledge)], durability: .synced)
                if case .success? = result.first { self.journal.withLock { _ = $0.acknowledged.insert(name) } }
            }
        }
    }

    /// Opens the store on a disk that works again, and compares.
    func check() async throws {
        let journal = self.journal.withLock { $0 }
        let store = try await self.temporary.open()
        let queue = try store.queue("work")
        try await queue.wake()
        var found: Set<String> = []
        while true {
            let deliveries = try await queue.take(TakeRequest(max: 100, lease: .seconds(60)))
            if deliveries.isEmpty { break }
            for delivery in deliveries {
                let name = delivery.headers["name"] ?? ""
                #expect(found.insert(name).inserted, "\(name) came twice")
                let round = UInt8(name.prefix(1)) ?? 0
                #expect(delivery.body == [UInt8](repeating: round, count: 12 << 10), "\(name) has wrong bytes")
            }
        }
        #expect(journal.published.subtracting(journal.asksToEnd).subtracting(found) == [], "lost")
        #expect(found.subtracting(journal.asked) == [], "invented")
        #expect(found.intersection(journal.acknowledged) == [], "acknowledged, and there again")
        try await store.close()
        let report = try await LocalStore.verify(at: self.temporary.path)
        #expect(report.problems.isEmpty)
    }
}
