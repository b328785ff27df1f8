import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// Places that a store must not trust: what is refused stays as it is.
@Suite(.timeLimit(.minutes(10))) struct PlaceTests {
    /// Each file and directory of a store in turn is a link to the real one, somewhere else.
    @Test(arguments: [
        "STALK", "lock", "ballast", "log", "log/SEGMENT", "index", "index/data.mdb", "index/lock.mdb",
    ])
    func linksAreNotFollowed(part: String) async throws {
        let temporary = TemporaryStore()
        let elsewhere = temporary.path + "-elsewhere"
        defer {
            temporary.remove()
            try? FileManager.default.removeItem(atPath: elsewhere)
        }
        let store = try await temporary.open()
        try await store.queue("q").publish(Message("x"))
        await store.abandon()
        var name = part
        if part.hasSuffix("SEGMENT") {
            name = try "log/" + #require(FileManager.default.contentsOfDirectory(atPath: temporary.path + "/log").min())
        }
        let path = "\(temporary.path)/\(name)"
        try FileManager.default.moveItem(atPath: path, toPath: elsewhere)
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: elsewhere)

        let before = try (everything(in: temporary.path), everything(in: elsewhere))
        let error = await #expect(throws: StalkError.self) { try await temporary.open() }
        #expect(error?.code == .notAStore, "\(String(describing: error))")
        #expect(error?.message.contains("link") == true, "\(String(describing: error))")
        let after = try (everything(in: temporary.path), everything(in: elsewhere))
        #expect(after == before, "a refused store was changed")

        // The control: with the file itself in its place again, nothing was wrong with the store.
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: elsewhere, toPath: path)
        let again = try await temporary.open()
        #expect(try await again.stats().queues.first?.ready == 1)
        try await again.close()
    }

    @Test(arguments: [0o777, 0o770, 0o707, 0o720, 0o702])
    func directoryThatOthersMayWriteToIsRefused(mode: Int) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        try await temporary.open().close()
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: temporary.path)
        let before = try everything(in: temporary.path)
        let error = await #expect(throws: StalkError.self) { try await temporary.open() }
        #expect(error?.code == .permissionDenied)
        #expect(error?.message.contains("chmod 700") == true)
        #expect(try everything(in: temporary.path) == before)
        try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: temporary.path)
        try await temporary.open().close()
    }

    /// A number that is none, or none that a version can have, is damage; one that is higher is a newer format.
    @Test(arguments: [
        ("x", StalkError.Code.storeDamaged), ("", .storeDamaged), ("-1", .storeDamaged), ("0", .storeDamaged),
        ("1.0", .storeDamaged), ("0x1", .storeDamaged), ("99999999999999999999", .storeDamaged), ("2", .newerFormat),
        ("4294967295", .newerFormat),
    ])
    func formatNumbers(number: String, code: StalkError.Code) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        try await store.queue("q").publish(Message("x"))
        await store.abandon()
        let marker = "\(temporary.path)/STALK"
        let text = try String(contentsOfFile: marker, encoding: .utf8)
        try text.replacing("format 1\n", with: "format \(number)\n")
            .write(toFile: marker, atomically: false, encoding: .utf8)
        let before = try everything(in: temporary.path)
        let error = await #expect(throws: StalkError.self) { try await temporary.open() }
        #expect(error?.code == code)
        #expect(try everything(in: temporary.path) == before, "a refused store was changed")
        try text.write(toFile: marker, atomically: false, encoding: .utf8)
        try await temporary.open().close()
    }
}
