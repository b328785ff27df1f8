// Verification in a process of its own, so that a crash of LMDB is a finding and not the end of the command.

internal import FoundationEssentials
internal import StalkCore
internal import StalkLocal
internal import Subprocess

#if canImport(Glibc)
    internal import Glibc
#endif

/// Runs the hidden command `verify-reader` and reports what it finds, and how it ends.
struct VerifyReader {
    /// What the reader says, one JSON object a line.
    struct Line: Codable {
        var progress: [Int]?
        var table: String?
        var rows: Int?
        var report: VerifyFindings?
    }

    /// What is known of the reader so far.
    private struct State: Sendable {
        var processID: pid_t?
        var findings: VerifyFindings?
        var place: String?
        var lastSign = ContinuousClock.now
        var isHung = false
    }

    /// The state, shared with who watches the reader.
    private final class SharedState: Sendable {
        private let state = Locked(State())

        func withLock<Value: Sendable>(_ body: (inout State) -> Value) -> Value {
            self.state.withLock { state in body(&state) }
        }
    }

    let path: String
    /// The program that is run.
    var program = "/proc/self/exe"
    /// How long the reader may say nothing.
    var patience = Duration.seconds(600)

    /// Runs the reader to its end.
    ///
    /// - Parameter progress: Called now and then with the messages read and the messages in all.
    /// - Returns: What was found; that the reader crashed or hung is among it.
    /// - Throws: ``SilentExit`` when the reader refused the store and said why.
    func run(_ progress: @escaping @Sendable (Int, Int) -> Void) async throws -> VerifyFindings {
        let state = SharedState()
        let watch = Task { try await self.watch(state) }
        defer { watch.cancel() }
        let result = try await Subprocess.run(
            .path(literal(self.program)),
            arguments: Arguments(
                executablePathOverride: "stalk",
                remainingValues: ["verify-reader", "--store", self.path]
            ),
            input: .none,
            output: .sequence,
            error: .currentStandardError
        ) { execution in
            state.withLock { $0.processID = execution.processIdentifier.value }
            var rest: [UInt8] = []
            for try await chunk in execution.standardOutput {
                rest += chunk.withUnsafeBytes { Array($0) }
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    let line = try? JSONDecoder().decode(Line.self, from: Data(rest[..<end]))
                    rest.removeSubrange(...end)
                    if let line { Self.take(line, state, progress) }
                }
            }
        }
        // The number may belong to another process from here on.
        let end = state.withLock { state -> State in
            state.processID = nil
            return state
        }
        return try Self.findings(end, result.terminationStatus)
    }

    private static func take(_ line: Line, _ state: SharedState, _ progress: (Int, Int) -> Void) {
        state.withLock { state in
            state.lastSign = ContinuousClock.now
            if let table = line.table {
                state.place = "last read: table \(table)" + (line.rows.map { $0 == 0 ? "" : ", row \($0)" } ?? "")
            }
            if let report = line.report { state.findings = report }
        }
        if let counts = line.progress, counts.count == 2 { progress(counts[0], counts[1]) }
    }

    /// Ends a reader that says nothing any more.
    private func watch(_ state: SharedState) async throws {
        while true {
            try await Task.sleep(for: min(self.patience, .seconds(1)))
            state.withLock { state in
                guard let id = state.processID, ContinuousClock.now - state.lastSign > self.patience else { return }
                state.isHung = true
                kill(id, SIGKILL)
            }
        }
    }

    /// What the end of the reader means.
    private static func findings(_ state: State, _ status: TerminationStatus) throws -> VerifyFindings {
        let what: String
        switch status {
        case .exited(0):
            guard let findings = state.findings else {
                throw StalkError(.interrupted, "The reader of the store said nothing: run stalk verify again.")
            }
            return findings
        case .exited(let code):
            throw SilentExit(status: ExitStatus(rawValue: code) ?? .otherFailure)
        case .signaled(let number):
            // Nothing may be said of LMDB before it was given anything to read.
            let reader = state.findings == nil ? "the reader" : "LMDB"
            what =
                state.isHung
                ? "\(reader) hung while reading it and was killed"
                : "\(reader) crashed with \(Self.name(of: number)) while reading it"
        }
        var findings =
            state.findings ?? VerifyFindings(.init(frames: 0, records: 0, messages: 0, tornBytes: 0, problems: []))
        let place = state.place.map { "; \($0)" } ?? ""
        findings.problems.append(.init(file: "index/data.mdb", offset: nil, what: what + place))
        return findings
    }

    private static func name(of signal: CInt) -> String {
        switch signal {
        case SIGSEGV: "SIGSEGV"
        case SIGBUS: "SIGBUS"
        case SIGABRT: "SIGABRT"
        case SIGILL: "SIGILL"
        case SIGTRAP: "SIGTRAP"
        case SIGFPE: "SIGFPE"
        case SIGKILL: "SIGKILL"
        case SIGXCPU: "SIGXCPU, which means that its processor time was used up,"
        default: "signal \(signal)"
        }
    }
}
