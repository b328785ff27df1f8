// A command that is run for each message.

internal import FoundationEssentials
internal import StalkCore
internal import Subprocess

#if canImport(Glibc)
    internal import Glibc
#endif

/// How the run of a command ended for its message.
enum CommandOutcome: Hashable, Sendable {
    /// The work is done.
    case acknowledge
    /// It failed, and may be tried again.
    case retry(reason: String)
    /// It failed for good.
    case deadLetter(reason: String)
}

/// A command that takes a message on its standard input and says by its exit code what becomes of it.
struct ShellCommand: Sendable {
    /// The exit codes that mean "never again": EX_DATAERR of sysexits.h, and 100 as in qmail's deliveries.
    private static let deadLetterCodes: Set<Int32> = [65, 100]
    /// How long a command has between SIGTERM and SIGKILL once its time is over.
    private static let grace = Duration.seconds(2)

    /// Where the program is.
    let path: String
    private let name: String
    private let arguments: [String]
    private let timeout: Duration?
    /// Headers of a message that an outer `stalk work` runs this one for; they are not this message's.
    private let inheritedHeaders: [String]

    /// Finds the program.
    ///
    /// - Parameters:
    ///   - words: The command and its arguments, at least one word.
    ///   - timeout: How long a run may take.
    ///   - environment: Where `PATH` is looked up.
    /// - Throws: ``StalkError`` with `invalidArgument` when there is no such program.
    init(
        _ words: [String],
        timeout: Duration?,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws(StalkError) {
        guard let name = words.first, !name.isEmpty else {
            throw StalkError(.invalidArgument, "There is no command to run: write it behind '--'.")
        }
        self.name = name
        self.arguments = Array(words.dropFirst())
        self.timeout = timeout
        self.inheritedHeaders = environment.keys.filter { $0.hasPrefix("STALK_HEADER_") }
        self.path = try Self.resolve(name, searchPath: environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin")
    }

    /// Finds a program the way a shell does.
    private static func resolve(_ name: String, searchPath: String) throws(StalkError) -> String {
        let candidates =
            name.contains("/")
            ? [name]
            : searchPath.split(separator: ":", omittingEmptySubsequences: false).map {
                "\($0.isEmpty ? "." : $0)/\(name)"
            }
        if let path = candidates.first(where: Self.isProgram) { return path }
        let isThere = candidates.contains { access($0, F_OK) == 0 }
        throw StalkError(
            .invalidArgument,
            isThere
                ? "The command \(quoted(name)) can't be run: make it executable. No message was taken."
                : "The command \(quoted(name)) was not found\(name.contains("/") ? "" : " in PATH"). No message was taken."
        )
    }

    private static func isProgram(_ path: String) -> Bool {
        var status = stat()
        return access(path, X_OK) == 0 && stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    /// Runs the command for a message.
    ///
    /// Its standard output is this process's own; its standard error is passed on, and its end is kept as the reason of a
    /// failure. It runs in a process group of its own, so that a time-out ends whatever it started, and so that Ctrl-C
    /// reaches stalk alone. Cancelling the task kills the group at once.
    ///
    /// - Parameter delivery: The message.
    /// - Returns: What becomes of it; a command that can't be started is a reason to retry.
    /// - Throws: `CancellationError` when the task was cancelled meanwhile.
    func run(_ delivery: Delivery) async throws -> CommandOutcome {
        let tail = StderrTail()
        let group = ProcessGroup()
        let status: TerminationStatus
        do {
            status = try await self.status(of: delivery, group: group, tail: tail)
        } catch {
            try Task.checkCancellation()
            return .retry(reason: "can't run \(self.name): \(error)")
        }
        try Task.checkCancellation()
        if let timeout = self.timeout, group.isOverdue {
            return .retry(reason: "timed out after \(timeout.stalkText)")
        }
        return Self.outcome(of: status, stderr: tail.text)
    }

    /// What an exit status means.
    static func outcome(of status: TerminationStatus, stderr: String) -> CommandOutcome {
        switch status {
        case .exited(0): .acknowledge
        case .exited(let code) where Self.deadLetterCodes.contains(code):
            .deadLetter(reason: stderr.isEmpty ? "exit \(code)" : stderr)
        case .exited(let code): .retry(reason: stderr.isEmpty ? "exit \(code)" : stderr)
        case .signaled(let number): .retry(reason: stderr.isEmpty ? "killed by signal \(number)" : stderr)
        }
    }

    private func status(
        of delivery: Delivery,
        group: ProcessGroup,
        tail: StderrTail
    ) async throws -> TerminationStatus {
        return try await withThrowingTaskGroup(of: TerminationStatus?.self) { tasks in
            defer { tasks.cancelAll() }
            if let timeout = self.timeout {
                tasks.addTask {
                    try await group.end(after: timeout, grace: Self.grace)
                    return nil
                }
            }
            tasks.addTask {
                let result = try await Subprocess.run(
                    .path(literal(self.path)),
                    arguments: Arguments(executablePathOverride: self.name, remainingValues: self.arguments),
                    environment: .inherit.updating(self.environment(of: delivery)),
                    platformOptions: Self.platformOptions,
                    input: .inputWriter,
                    output: .currentStandardOutput,
                    error: .sequence
                ) { execution in
                    group.started(execution.processIdentifier.value)
                    async let written: Void = Self.write(delivery.body, to: execution.standardInputWriter)
                    for try await chunk in execution.standardError {
                        let bytes = chunk.withUnsafeBytes { Array($0) }
                        tail.append(bytes)
                        try? await OutputStream.standardError.write(bytes)
                    }
                    await written
                }
                group.ended()
                return result.terminationStatus
            }
            while let status = try await tasks.next() {
                if let status { return status }
            }
            throw CancellationError()
        }
    }

    private static var platformOptions: PlatformOptions {
        var options = PlatformOptions()
        options.processGroupID = 0
        options.teardownSequence = [
            .send(signal: .kill, toProcessGroup: true, allowedDurationToNextStep: .zero)
        ]
        return options
    }

    /// A command that does not read its message is no failure: its exit code alone counts.
    private static func write(_ body: [UInt8], to writer: StandardInputWriter) async {
        _ = try? await writer.write(body)
        try? await writer.finish()
    }

    private func environment(of delivery: Delivery) -> [Environment.Key: String?] {
        var variables: [String: String?] = [:]
        for name in self.inheritedHeaders { variables[name] = .some(nil) }
        for (name, value) in Self.variables(of: delivery) { variables[name] = value }
        return Dictionary(
            variables.compactMap { name, value in Environment.Key(rawValue: name).map { ($0, value) } },
            uniquingKeysWith: { $1 }
        )
    }

    /// The environment variables that describe a message.
    ///
    /// A header whose value holds a NUL can't be one: it is left out, with a warning.
    static func variables(of delivery: Delivery) -> [String: String] {
        var variables = [
            "STALK_ID": delivery.id.rawValue,
            "STALK_QUEUE": delivery.queue.rawValue,
            "STALK_ATTEMPT": "\(delivery.attempt)",
        ]
        for header in delivery.headers {
            guard !header.value.utf8.contains(0) else {
                StandardError.note(
                    "The header \(header.name) of message \(delivery.id) holds a NUL, so the command does not get it."
                )
                continue
            }
            variables[Self.variableName(ofHeader: header.name)] = header.value
        }
        return variables
    }

    /// The environment variable that carries a header.
    static func variableName(ofHeader name: String) -> String {
        let letters = name.uppercased().map { character in
            character.isASCII && (character.isLetter || character.isNumber) ? character : "_"
        }
        return "STALK_HEADER_" + String(letters)
    }
}

/// Makes a value of a type that is written as a string literal, such as a file path of a module that is not imported here.
func literal<Value: ExpressibleByStringLiteral>(_ text: String) -> Value
where Value.StringLiteralType == String {
    Value(stringLiteral: text)
}
