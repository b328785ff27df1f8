import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// A disk that is really full: a small tmpfs, which only root can mount.
@Suite(.timeLimit(.minutes(10))) struct FullDiskTests {
    private static func withSmallDisk(_ body: (String) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.path + "/stalk-disk-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        guard try Self.run("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", path) == 0 else {
            print("SKIPPED: a full disk can't be tried here, since mounting a tmpfs is not allowed.")
            return
        }
        do {
            try await body(path)
        } catch {
            _ = try Self.run("umount", "-l", path)
            throw error
        }
        // A child that another test has just forked holds copies of all descriptors until it runs its program.
        for _ in 0..<600 {
            if try Self.run("umount", path) == 0 { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        _ = try Self.run("umount", "-l", path)
        Issue.record("something still holds the disk")
    }

    private static func run(_ arguments: String...) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return process.terminationStatus
    }

    /// Publishes until the disk is full; returns the messages that are durable.
    private static func fill(_ queue: LocalQueue) async throws -> Set<MessageID> {
        var random = SeededGenerator(seed: 1)
        var durable: Set<MessageID> = []
        while true {
            let bodies = (0..<64).map { _ in
                (0..<250).flatMap { _ in withUnsafeBytes(of: random.next()) { Array($0) } }
            }
            for result in try await queue.publish(bodies.map { Message($0) }) {
                switch result {
                case .success(let id): durable.insert(id)
                case .failure(let error):
                    #expect(error.code == .storageFull)
                    return durable
                }
            }
        }
    }

    @Test func finishingGoesOnAndBringsSpaceBack() async throws {
        try await Self.withSmallDisk { path in
            var options = TemporaryStore().options
            options.segmentBytes = 1 << 20
            options.clock = ManualClock()
            var store = try await LocalStore.open(at: path + "/store", options: options)
            var queue = try store.queue("q")
            let durable = try await Self.fill(queue)
            #expect(durable.count > 1000)
            try await store.close()

            // Opened again and again, which takes no space for good.
            for _ in 0..<5 {
                store = try await LocalStore.open(at: path + "/store", options: options)
                #expect(try await store.stats().queues.first?.ready == durable.count)
                try await store.close()
            }

            store = try await LocalStore.open(at: path + "/store", options: options)
            queue = try store.queue("q")
            try await queue.wake()
            var seen: Set<MessageID> = []
            while true {
                let taken = try await queue.take(TakeRequest(max: 100))
                if taken.isEmpty { break }
                seen.formUnion(taken.map(\.id))
                let ends = taken.enumerated().map { position, delivery in
                    Completion(delivery.receipt, position == 0 ? .deadLetter(reason: "bad") : .acknowledge)
                }
                for result in try await queue.finish(ends) { try result.get() }
            }
            #expect(seen == durable)
            try await store.checkpoint()
            // What was finished made room for new messages, without anybody freeing space.
            let again = try await queue.publish(
                (0..<500).map { Message([UInt8](repeating: UInt8($0 % 251), count: 2000)) }
            )
            for result in again { _ = try result.get() }
            try await store.close()
            #expect(try await LocalStore.verify(at: path + "/store").problems.isEmpty)
        }
    }

    /// Where there is no room for a new segment the log goes on in its last one, which may be smaller than new ones are.
    @Test func smallerSegmentOfAnEarlierOwnerIsNotLeft() async throws {
        var temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        try await store.queue("q").publish(Message([UInt8](repeating: 1, count: 60_000)))
        await store.abandon()
        // Nothing is left of the room that the first owner had prepared.
        let log = "\(temporary.path)/log"
        for name in try FileManager.default.contentsOfDirectory(atPath: log).sorted().dropFirst() {
            try FileManager.default.removeItem(atPath: "\(log)/\(name)")
        }

        temporary.options.segmentBytes = 512 << 10
        var opening = StoreOpening(path: temporary.path, options: temporary.options)
        opening.disk = { directory in
            let disk = FaultyDirectory(directory)
            disk.inject(DiskFault(.fillWithZeros, error: .diskFull, isLasting: true))
            return disk
        }
        let crowded = try await LocalStore.open(opening)
        let queue = try crowded.queue("q")
        var published = 1
        for _ in 0..<20 {
            let body = (0..<20_000).map { _ in UInt8.random(in: 0...255) }
            let result = try await queue.publish([Message(body)])[0]
            guard case .success = result else { break }
            published += 1
        }
        #expect(published > 1, "the log did not go on in its last segment")
        await crowded.abandon()
        for name in try FileManager.default.contentsOfDirectory(atPath: log) {
            let size = try FileManager.default.attributesOfItem(atPath: "\(log)/\(name)")[.size] as? Int
            #expect(size == 256 << 10, "\(name) was written to behind its end")
        }
        let again = try await temporary.open()
        #expect(try await again.stats().queues.first?.ready == published)
        try await again.close()
    }
}
