// `stalk verify-reader`: the process that `stalk verify` starts; not for people.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

#if canImport(Glibc)
    internal import Glibc
#endif

struct VerifyReaderCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify-reader",
        abstract: "Read a store for 'stalk verify', which starts this; it may crash on a damaged store.",
        shouldDisplay: false
    )

    @OptionGroup var storeOptions: StoreOptions

    func run() async throws {
        let report = try await self.storeOptions.withPath { path in
            Self.limit(indexBytes: Self.size(of: "\(path)/index/data.mdb"))
            return try await LocalStore.verifyInOwnProcess(at: path) { done, all in
                Self.say(.object([.init("progress", .array([.number(done), .number(all)]))]))
            } onReport: { report in
                Self.say(.object([.init("report", VerifyFindings(report).json)]))
            } onTable: { table, rows in
                Self.say(.object([.init("table", .string(table)), .init("rows", .number(rows))]))
            }
        }
        Self.say(.object([.init("report", VerifyFindings(report).json)]))
    }

    /// Writes one line at once: what was said must not be lost by a crash.
    private static func say(_ value: JSONValue) {
        // The parent that would read it may be gone; then this process has nothing left to do.
        let bytes = value.line
        if bytes.withUnsafeBytes({ Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }) < 0 { _exit(1) }
    }

    private static func size(of path: String) -> Int {
        var info = stat()
        return stat(path, &info) == 0 ? Int(info.st_size) : 0
    }

    /// Bounds what a damaged store can make this process do: no core file with messages in it, no memory without end, no
    /// loop without end.
    private static func limit(indexBytes: Int) {
        self.limit(__rlimit_resource_t(RLIMIT_CORE.rawValue), to: 0)
        self.limit(__rlimit_resource_t(RLIMIT_DATA.rawValue), to: 4 << 30)
        self.limit(__rlimit_resource_t(RLIMIT_CPU.rawValue), to: 300 + rlim_t(indexBytes >> 20))
    }

    private static func limit(_ resource: __rlimit_resource_t, to value: rlim_t) {
        var limits = rlimit()
        guard getrlimit(resource, &limits) == 0 else { return }
        limits.rlim_cur = min(value, limits.rlim_max)
        _ = setrlimit(resource, &limits)
    }
}
