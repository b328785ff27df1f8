import Foundation
import StalkCore
import StalkIndex
import StalkTesting
import Testing

@testable import StalkLocal

/// Bad input, by name: a typed error and a clear sentence, and nothing lost or half done.
@Suite(.timeLimit(.minutes(10))) struct BadInputTests {
    private static func code(opening path: String, _ options: LocalStoreOptions) async -> StalkError? {
        do {
            try await LocalStore.open(at: path, options: options).close()
            return nil
        } catch {
            return error as? StalkError
        }
    }

    @Test func placesThatCanNotBeStores() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let manager = FileManager.default
        try manager.createDirectory(atPath: temporary.path, withIntermediateDirectories: true)
        let path = temporary.path

        try "x".write(toFile: "\(path)/file", atomically: false, encoding: .utf8)
        #expect(await Self.code(opening: "\(path)/file", temporary.options)?.code == .notAStore)
        #expect(await Self.code(opening: "\(path)/file/store", temporary.options)?.code == .notAStore)
        // The directory itself holds a file of another program.
        let foreign = await Self.code(opening: path, temporary.options)
        #expect(foreign?.code == .notAStore)
        #expect(foreign?.message.contains("\"file\"") == true)
        #expect(try manager.contentsOfDirectory(atPath: path) == ["file"], "a refused directory was changed")

        let long = path + String(repeating: "/" + String(repeating: "d", count: 250), count: 20)
        #expect(await Self.code(opening: long, temporary.options)?.code == .pathTooLong)
        #expect(
            await Self.code(opening: path + "/" + String(repeating: "d", count: 300), temporary.options)?.code
                == .pathTooLong
        )

        try manager.createDirectory(atPath: "\(path)/open", withIntermediateDirectories: true)
        try manager.setAttributes([.posixPermissions: 0o777], ofItemAtPath: "\(path)/open")
        #expect(await Self.code(opening: "\(path)/open", temporary.options)?.code == .permissionDenied)

        var options = temporary.options
        options.createIfMissing = false
        #expect(await Self.code(opening: "\(path)/nowhere", options)?.code == .noSuchStore)
        try manager.createDirectory(atPath: "\(path)/empty", withIntermediateDirectories: true)
        #expect(await Self.code(opening: "\(path)/empty", options)?.code == .noSuchStore)
        #expect(try manager.contentsOfDirectory(atPath: "\(path)/empty").isEmpty)
    }

    @Test func secondOwnerIsTurnedAway() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var alone = temporary.options
        alone.sharing = .exclusive
        let store = try await LocalStore.open(at: temporary.path, options: alone)
        let error = await Self.code(opening: temporary.path, temporary.options)
        #expect(error?.code == .storeBusy)
        #expect(error?.message.contains("\(ProcessInfo.processInfo.processIdentifier)") == true)
        try await store.close()
        try await store.close()
        #expect(await Self.code(opening: temporary.path, temporary.options) == nil)
        await #expect(throws: StalkError.self) { try await store.queue("q").publish(Message("x")) }
        await #expect(throws: StalkError.self) { try await store.stats() }
    }

    @Test func newerFormatIsRefusedUntouched() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        try await store.queue("q").publish(Message("x"))
        try await store.close()
        let marker = "\(temporary.path)/STALK"
        let text = try String(contentsOfFile: marker, encoding: .utf8)
        try text.replacing("format 1", with: "format 2").write(toFile: marker, atomically: false, encoding: .utf8)
        let before = try temporary.fingerprint()
        let error = await Self.code(opening: temporary.path, temporary.options)
        #expect(error?.code == .newerFormat)
        #expect(error?.message.contains("format 2") == true && error?.message.contains("up to 1") == true)
        #expect(try temporary.fingerprint() == before)
    }

    @Test(arguments: ["index", "log"], [false, true])
    func missingPartIsDamage(part: String, isCheckpointed: Bool) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        try await store.queue("q").publish(Message("x"))
        if isCheckpointed { try await store.close() } else { await store.abandon() }
        try FileManager.default.removeItem(atPath: "\(temporary.path)/\(part)")
        let report = try await LocalStore.verify(at: temporary.path)
        #expect(report.problems.map(\.file) == [part == "log" ? "log" : "index/data.mdb"])
        #expect(await Self.code(opening: temporary.path, temporary.options)?.code == .storeDamaged)
    }

    /// A page of LMDB that went missing takes records with it whose checksums then can't complain.
    @Test func missingQueueIsDamage() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        for name in ["a", "b", "c"] { try await store.queue(name).publish(Message("x")) }
        try await store.close()
        do {
            let tables = try SettledTables(
                SettledTables.openLMDB(path: temporary.path + "/index", createIfMissing: false),
                maxBodyBytes: 1 << 20
            )
            try tables.index.write { transaction throws(StalkError) in
                #expect(try transaction.delete(tables.queues, KeyBuilder.queue(2)))
            }
            tables.index.close()
        }
        let before = try temporary.fingerprint()
        #expect(await Self.code(opening: temporary.path, temporary.options)?.code == .storeDamaged)
        #expect(try temporary.fingerprint() == before)
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty == false)
        try await LocalStore.repair(at: temporary.path, apply: true)
        let mended = try await temporary.open()
        #expect(try await mended.stats().queues.map(\.ready) == [1, 1, 1])
        try await mended.close()
    }

    @Test func oversizeIsRefusedBeforeAnythingIsWritten() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        let limit = temporary.options.maxBodyBytes
        let results = try await queue.publish([
            Message([UInt8](repeating: 1, count: limit + 1)), Message([UInt8](repeating: 2, count: limit)), Message([]),
        ])
        guard case .failure(let error) = results[0] else {
            Issue.record("a body over the limit was taken")
            return
        }
        #expect(error.code == .bodyTooLarge)
        #expect(error.message.contains("\(limit + 1)") && error.message.contains("\(limit)"))
        #expect(try await store.stats().queues.first?.ready == 2)
        // Headers count on their own: the largest message of all fits.
        var headers = Headers()
        for number in 0..<256 { headers["h\(number)"] = String(repeating: "v", count: 250) }
        try await queue.publish(Message([UInt8](repeating: 3, count: limit), headers: headers))
        await #expect(throws: StalkError.self) {
            try await queue.publish(Message([], headers: ["big": String(repeating: "v", count: 65_536)]))
        }
        try await store.close()
    }

    @Test func optionsWithoutSenseAreRefused() async throws {
        for change in [
            { $0.segmentBytes = 1 << 16 }, { $0.segmentBytes = 300_001 }, { $0.maxBodyBytes = 1 << 30 },
            { $0.maxBodyBytes = -1 }, { $0.checkpointBytes = 1 }, { $0.releaseRate = 10 },
        ] as [(inout LocalStoreOptions) -> Void] {
            let temporary = TemporaryStore()
            var options = temporary.options
            change(&options)
            #expect(await Self.code(opening: temporary.path, options)?.code == .invalidArgument)
            #expect(!FileManager.default.fileExists(atPath: temporary.path))
        }
    }

    @Test func filesAreTheOwnersAlone() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        try await store.queue("q").publish(Message("x"))
        try await store.close()
        let manager = FileManager.default
        for name in try manager.subpathsOfDirectory(atPath: temporary.path) + [""] {
            let attributes = try manager.attributesOfItem(atPath: "\(temporary.path)/\(name)")
            let mode = try #require(attributes[.posixPermissions] as? Int)
            #expect(mode & 0o077 == 0, "\(name) has mode \(String(mode, radix: 8))")
        }
    }

    @Test func storeLetGoWithoutClosingLosesNothing() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        do {
            let store = try await temporary.open()
            try await store.queue("q").publish(Message("x"))
        }
        // Its threads end by themselves and give the lock back with the last of them.
        var store: LocalStore?
        while store == nil {
            do {
                store = try await temporary.open()
            } catch let error as StalkError where error.code == .storeBusy {
                await Task.yield()
            }
        }
        #expect(try await store?.stats().queues.first?.ready == 1)
        try await store?.close()
    }
}
