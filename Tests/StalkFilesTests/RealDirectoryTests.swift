import Glibc
import StalkCore
import StalkFiles
import Testing

@testable import StalkFiles

@Suite struct RealDirectoryTests {
    private let temporary = TemporaryDirectory()

    // MARK: Opening

    @Test("A store's directory is made with its parents, for its owner alone, whatever the umask")
    func modes() async {
        // The umask is the whole process's.
        await #expect(processExitsWith: .success) {
            umask(0)
            let temporary = TemporaryDirectory()
            let directory = try RealDirectory(path: "\(temporary.path)/a/b//c/", createIfMissing: true)
            for name in ["a", "a/b", "a/b/c"] { #expect(try temporary.mode(name) == 0o700) }
            try directory.makeDirectory("log")
            #expect(try temporary.mode("a/b/c/log") == 0o700)
            _ = try directory.open("new", .new)
            _ = try directory.open("log/missing", .ifMissing)
            let lock = try directory.lock("lock")
            for name in ["new", "log/missing", "lock"] { #expect(try temporary.mode("a/b/c/\(name)") == 0o600) }
            withExtendedLifetime(lock) {}
            try directory.checkFitness()
            temporary.remove()
        }
    }

    @Test("Parents that are there keep their modes")
    func existingParents() throws {
        chmod(self.temporary.path, 0o755)
        _ = try RealDirectory(path: "\(self.temporary.path)/store", createIfMissing: true)
        #expect(try self.temporary.mode("") == 0o755)
        _ = try RealDirectory(path: self.temporary.path, createIfMissing: true)
    }

    @Test("A directory that is missing is only made when it may be")
    func missing() {
        let path = "\(self.temporary.path)/store"
        #expect(code { _ = try RealDirectory(path: path, createIfMissing: false) } == .noSuchStore)
        #expect(!self.temporary.exists("store"))
    }

    @Test("A file in the place of a directory is named", arguments: [true, false])
    func fileInstead(createIfMissing: Bool) throws {
        try self.temporary.makeFile("file")
        let path = "\(self.temporary.path)/file"
        for path in [path, "\(path)/store"] {
            let error = #expect(throws: StalkError.self) {
                try RealDirectory(path: path, createIfMissing: createIfMissing)
            }
            #expect(error?.code == .notAStore)
            #expect(error?.message.contains(path) == true)
        }
    }

    @Test("A path that is too long says so", arguments: [300, 5000])
    func longPath(count: Int) {
        let path = "\(self.temporary.path)/\(String(repeating: "n", count: count))"
        #expect(code { _ = try RealDirectory(path: path, createIfMissing: true) } == .pathTooLong)
        #expect(code { _ = try RealDirectory(path: path, createIfMissing: false) } == .pathTooLong)
    }

    @Test("A directory stays open when its path is renamed")
    func renamedPath() throws {
        let directory = try self.temporary.store()
        try #require(rename("\(self.temporary.path)/store", "\(self.temporary.path)/moved") == 0)
        _ = try directory.open("a", .new)
        #expect(self.temporary.exists("moved/a"))
    }

    @Test("The parent whose names must be synced is the one that holds the directory")
    func parents() {
        #expect(RealDirectory.parent(of: "/a/b") == "/a")
        #expect(RealDirectory.parent(of: "/a/b/") == "/a")
        #expect(RealDirectory.parent(of: "/a//b//") == "/a")
        #expect(RealDirectory.parent(of: "/a") == "/")
        #expect(RealDirectory.parent(of: "a/b") == "a")
        #expect(RealDirectory.parent(of: "a") == ".")
        #expect(RealDirectory.parent(of: "a/") == ".")
    }

    // MARK: Links

    @Test("A link in the place of a file is refused, wherever it leads")
    func linkedFile() throws {
        let directory = try self.temporary.store()
        try self.temporary.makeFile("target")
        try self.temporary.makeLink("store/link", to: "../target")
        try self.temporary.makeLink("store/dangling", to: "nowhere")
        for name in ["link", "dangling"] {
            for creation in [FileCreation.readOnly, .existing, .ifMissing] {
                #expect(code { _ = try directory.open(name, creation) } == .notAStore)
            }
            #expect(code { _ = try directory.lock(name) } == .notAStore)
        }
        #expect(!self.temporary.exists("store/nowhere"))
        try directory.remove("link")
        #expect(self.temporary.exists("target"))
    }

    @Test("A link in the place of a subdirectory is refused")
    func linkedDirectory() throws {
        let directory = try self.temporary.store()
        _ = try directory.open("inside", .new)
        try #require(mkdir("\(self.temporary.path)/elsewhere", 0o700) == 0)
        try self.temporary.makeFile("elsewhere/file")
        try self.temporary.makeLink("store/log", to: "../elsewhere")
        #expect(code { _ = try directory.open("log/file", .existing) } == .notAStore)
        #expect(code { _ = try directory.list("log") } == .notAStore)
        #expect(code { try directory.sync("log") } == .notAStore)
        #expect(code { try directory.makeDirectory("log") } == .notAStore)
        #expect(code { try directory.remove("log/file") } == .notAStore)
        #expect(code { try directory.rename("log/file", to: "taken") } == .notAStore)
        #expect(code { try directory.rename("inside", to: "log/file") } == .notAStore)
        #expect(self.temporary.exists("elsewhere/file"))
        #expect(self.temporary.exists("store/inside"))
    }

    // MARK: The lock

    @Test("A lock is held once, and the second one to ask learns who holds it")
    func lockTwice() throws {
        let first = try self.temporary.store()
        let second = try self.temporary.store()
        var lock: DirectoryLock? = try first.lock("lock")
        for directory in [first, second] {
            let error = #expect(throws: StalkError.self) { try directory.lock("lock") }
            #expect(error?.code == .storeBusy)
            #expect(error?.message.contains("process \(getpid())") == true)
        }
        withExtendedLifetime(lock) {}
        lock = nil
        _ = try second.lock("lock")
    }

    @Test("A lock that is given back is free, also while a forked child still has its descriptor")
    func lockWithCopiedDescriptor() throws {
        let directory = try self.temporary.store()
        var lock: DirectoryLock? = try directory.lock("lock")
        let copy = try #require(lock.map { dup($0.descriptor.number) })
        defer { close(copy) }
        #expect(throws: StalkError.self) { try directory.lock("lock") }
        lock = nil
        _ = try directory.lock("lock")
    }

    @Test("A lock goes with its process, and what it left written does not matter")
    func lockOfDeadProcess() async throws {
        let path = "\(self.temporary.path)/store"
        await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
            let lock = try RealDirectory(path: path, createIfMissing: true).lock("lock")
            kill(getpid(), SIGKILL)
            withExtendedLifetime(lock) {}
        }
        let directory = try RealDirectory(path: path, createIfMissing: false)
        let lock = try directory.lock("lock")
        let error = #expect(throws: StalkError.self) { try directory.lock("lock") }
        #expect(error?.message.contains("process \(getpid())") == true)
        withExtendedLifetime(lock) {}
    }

    // MARK: Fitness

    @Test(
        "A directory that others may write to is refused",
        arguments: [0o777, 0o770, 0o702, 0o720, 0o1777] as [mode_t]
    )
    func writableByOthers(mode: mode_t) throws {
        let directory = try self.temporary.store()
        chmod("\(self.temporary.path)/store", mode)
        let error = #expect(throws: StalkError.self) { try directory.checkFitness() }
        #expect(error?.code == .permissionDenied)
        #expect(error?.message.contains(String(mode & 0o777, radix: 8)) == true)
    }

    @Test("A directory that others may only read is fit", arguments: [0o700, 0o750, 0o755] as [mode_t])
    func readableByOthers(mode: mode_t) throws {
        let directory = try self.temporary.store()
        chmod("\(self.temporary.path)/store", mode)
        #expect(throws: Never.self) { try directory.checkFitness() }
        #expect(try #require(directory.freeBytes) > 0)
    }

    // MARK: Refusals of the system

    @Test("What the system does not permit is named", .enabled(if: getuid() != 0, "root may do everything"))
    func permissionDenied() throws {
        let directory = try self.temporary.store()
        _ = try directory.open("file", .new)
        chmod("\(self.temporary.path)/store/file", 0)
        #expect(code { _ = try directory.open("file", .existing) } == .permissionDenied)
        chmod("\(self.temporary.path)/store", 0o500)
        #expect(code { _ = try directory.open("new", .new) } == .permissionDenied)
        #expect(code { try directory.remove("file") } == .permissionDenied)
        #expect(code { try directory.makeDirectory("log") } == .permissionDenied)
        chmod("\(self.temporary.path)/store", 0)
        #expect(code { _ = try self.temporary.store() } == .permissionDenied)
        chmod("\(self.temporary.path)/store", 0o700)
    }

    @Test("What root gave up is not permitted either", .enabled(if: getuid() == 0, "only root can become another user"))
    func permissionDeniedToNobody() async {
        await #expect(processExitsWith: .success) {
            let temporary = TemporaryDirectory()
            let store = try temporary.store()
            _ = try store.open("file", .new)
            chmod(temporary.path, 0o755)
            chmod("\(temporary.path)/store", 0o755)
            try #require(setegid(65534) == 0)
            try #require(seteuid(65534) == 0)
            let directory = try RealDirectory(path: "\(temporary.path)/store", createIfMissing: false)
            #expect(code { _ = try directory.open("file", .existing) } == .permissionDenied)
            #expect(code { _ = try directory.open("new", .new) } == .permissionDenied)
            #expect(code { try directory.remove("file") } == .permissionDenied)
            #expect(code { try directory.rename("file", to: "moved") } == .permissionDenied)
            #expect(code { try directory.makeDirectory("log") } == .permissionDenied)
            #expect(code { _ = try directory.lock("lock") } == .permissionDenied)
            let path = "\(temporary.path)/other"
            #expect(code { _ = try RealDirectory(path: path, createIfMissing: true) } == .permissionDenied)
            seteuid(0)
            temporary.remove()
        }
    }

    @Test("A file over the size limit is a full disk, not a dead process")
    func fileSizeLimit() async {
        await #expect(processExitsWith: .success) {
            let temporary = TemporaryDirectory()
            let file = try temporary.store().open("file", .new)
            var limit = rlimit(rlim_cur: 8192, rlim_max: 1 << 30)
            setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
            #expect(code { try file.fillWithZeros(100_000) } == .storageFull)
            try file.write([1], at: 8191)
            #expect(code { try file.write([1], at: 8192) } == .storageFull)
            #expect(try file.size() == 8192)
            temporary.remove()
        }
    }

    @Test("Running out of descriptors is named")
    func noDescriptors() async {
        await #expect(processExitsWith: .success) {
            let temporary = TemporaryDirectory()
            let directory = try temporary.store()
            var files: [any StorageFile] = []
            var limit = rlimit(rlim_cur: 64, rlim_max: 1024)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let refused = code { for index in 0..<200 { files.append(try directory.open("\(index)", .new)) } }
            #expect(refused == .unavailable)
            #expect(code { _ = try directory.list("") } == .unavailable)
            files = []
            #expect(try directory.list("").count > 10)
            temporary.remove()
        }
    }
}
