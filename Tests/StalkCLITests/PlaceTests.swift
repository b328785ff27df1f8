import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// Places as the system gives them to the command: modes, users and mounts.
@Suite("Places", .timeLimit(.minutes(10))) struct PlaceTests {
    @Test("Files are the owner's alone, whatever the umask", arguments: ["000", "022", "077", "777"])
    func umask(mask: String) async throws {
        try await EndToEndTests.withStore { store in
            let made = try await Tool.shell(
                "umask \(mask); printf 'a\\nb\\n' | \"$STALK\" put q --lines && \"$STALK\" get q > /dev/null "
                    + "&& \"$STALK\" backup \(store)-copy > /dev/null && \"$STALK\" compact > /dev/null",
                store: store
            )
            // A umask that takes the owner's own rights away leaves nothing to work with; only root gets past that.
            if mask == "777", made.status != .exited(0) { return }
            #expect(made.status == .exited(0), "\(made.errors)")
            var seen = 0
            for root in [store, store + "-copy"] {
                for name in try FileManager.default.subpathsOfDirectory(atPath: root) + ["."] {
                    var info = stat()
                    try #require(lstat("\(root)/\(name)", &info) == 0)
                    let wanted: mode_t = info.st_mode & S_IFMT == S_IFDIR ? 0o700 : 0o600
                    // The umask may take rights away, and never adds any.
                    #expect(info.st_mode & 0o7777 & ~wanted == 0, "\(root)/\(name): \(String(info.st_mode, radix: 8))")
                    if mask != "777" { #expect(info.st_mode & 0o777 == wanted, "\(root)/\(name)") }
                    seen += 1
                }
            }
            #expect(seen > 14)
        }
    }

    @Test("A read-only directory is refused as that, and nothing in it changes")
    func readOnlyDirectory() async throws {
        guard getuid() == 0 else {
            print("SKIPPED: a directory that its owner may not write to needs another user, and so root.")
            return
        }
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            // Root may write anywhere, so the command runs as nobody, to whom the store belongs.
            let setUp =
                "cp \"$STALK\" \(directory)/stalk; chmod 755 \(directory) \(directory)/stalk; "
                + "chown -R 65534:65534 \(store); chmod 500 \(store)"
            try #require(await Tool.shell(setUp).status == .exited(0))
            let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups -- \(directory)/stalk"
            guard try await Tool.shell("\(nobody) --version").status == .exited(0) else {
                print("SKIPPED: a read-only directory can't be tried here, since another user can't run the command.")
                return
            }
            let before = try await Self.listing(of: store)
            // Everything that a store needs is there already but a new segment, which can't be made.
            try #require(await Tool.shell("chmod 500 \(store)/log").status == .exited(0))
            let put = try await Tool.shell("printf b | \(nobody) put q", store: store)
            #expect(put.status == .exited(1), "\(put.errors)")
            #expect(put.errors.contains("Run as the owner of the store"), "\(put.errors)")
            let new = try await Tool.shell("printf b | \(nobody) put q", store: store + "/new")
            #expect(new.status == .exited(1) && new.errors.contains("Run as the owner"), "\(new.errors)")
            #expect(try await Self.listing(of: store) == before)

            // The control: with its rights back the store works, and nothing is missing.
            let back = try await Tool.shell("chmod 700 \(store) \(store)/log; \(nobody) get q --ack", store: store)
            #expect(back.status == .exited(0) && back.text == "a\n", "\(back.errors)")
        }
    }

    @Test("A store on a read-only mount can be verified, and anything else is refused with the reason")
    func readOnlyMount() async throws {
        try await withTemporaryDirectory { directory in
            let (store, mount) = (directory + "/store", directory + "/mount")
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            let setUp = "mkdir -m 700 \(mount) && mount --bind \(store) \(mount) && mount -o remount,bind,ro \(mount)"
            guard try await Tool.shell(setUp).status == .exited(0) else {
                _ = try await Tool.shell("umount \(mount) 2> /dev/null")
                print("SKIPPED: a read-only mount can't be made here, which needs root.")
                return
            }
            do {
                let verify = try await Tool.run("verify", store: mount)
                #expect(verify.status == .exited(0), "\(verify.text) \(verify.errors)")
                let plan = try await Tool.run("repair", store: mount)
                #expect(plan.status == .exited(0), "\(plan.text) \(plan.errors)")
                for arguments in [["stats"], ["put", "q"], ["get", "q"]] {
                    let outcome = try await Tool.run(arguments, store: mount)
                    #expect(outcome.status == .exited(1), "\(arguments)")
                    #expect(outcome.errors.contains("mounted read-only"), "\(arguments): \(outcome.errors)")
                }
            } catch {
                _ = try await Tool.shell("umount \(mount)")
                throw error
            }
            #expect(try await Tool.shell("umount \(mount)").status == .exited(0))
            let back = try await Tool.run("get", "q", "--ack", store: store)
            #expect(back.status == .exited(0) && back.text == "a\n")
        }
    }

    /// All files but the two that only hold locks.
    private static func listing(of store: String) async throws -> String {
        try await Tool.shell(
            "cd \(store) && find . -type f ! -name lock ! -name lock.mdb -printf '%p %s %T@ ' -exec md5sum {} +"
        ).text
    }
}
