// The real outside world.

internal import NIOPosix
internal import StalkCore
internal import Subprocess

#if canImport(Glibc)
    internal import Glibc
#endif

extension Surroundings {
    /// This process's variables and files, a transport's HTTP, and real programs.
    static func system(_ transport: any Transport) -> Surroundings {
        Surroundings(
            variable: { name in getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 } },
            readFile: { path in
                try await NIOThreadPool.singleton.runIfActive { try Self.contents(of: path) }
            },
            fetch: { fetch in
                let answer = try await transport.send(
                    HTTPCall(
                        method: fetch.method,
                        url: fetch.url,
                        headers: fetch.headers.map { (name: $0.key, value: $0.value) },
                        body: fetch.body,
                        timeout: fetch.timeout
                    )
                )
                return (answer.status, answer.body)
            },
            run: { try await Self.output(of: $0) },
            now: { .system() }
        )
    }

    private static func contents(of path: String) throws(StalkError) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw StalkError(.permissionDenied, "Can't open \(path) (errno \(errno)): allow this user to read it.")
        }
        defer { close(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(file, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw StalkError(.permissionDenied, "Can't read \(path) (errno \(errno)).") }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
        }
    }

    /// Runs a program without a shell, for a minute at most.
    private static func output(of words: [String]) async throws -> [UInt8] {
        guard let name = words.first else { throw StalkError(.invalidArgument, "There is no command.") }
        let program: Executable = name.contains("/") ? .path(literal(name)) : .name(name)
        return try await withThrowingTaskGroup(of: [UInt8].self) { group in
            group.addTask {
                do {
                    let result = try await Subprocess.run(
                        program,
                        arguments: Arguments(Array(words.dropFirst())),
                        output: .bytes(limit: 1 << 20)
                    )
                    guard result.terminationStatus.isSuccess else {
                        throw StalkError(.permissionDenied, "the program ended with \(result.terminationStatus).")
                    }
                    return result.standardOutput
                } catch let error as SubprocessError {
                    throw StalkError(.permissionDenied, "it can't be run (\(error)).")
                }
            }
            group.addTask {
                try await ContinuousClock().sleep(for: .seconds(60))
                throw StalkError(.permissionDenied, "it did not end within a minute.")
            }
            defer { group.cancelAll() }
            return try await group.next() ?? []
        }
    }
}

/// A value from text that is no literal: the type of Subprocess's paths belongs to a package that this one doesn't name.
private func literal<Value: ExpressibleByStringLiteral>(_ text: Value.StringLiteralType) -> Value {
    Value(stringLiteral: text)
}
