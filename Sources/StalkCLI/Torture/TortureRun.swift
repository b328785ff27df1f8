// Killing a loader again and again, and comparing its store with what it had reported.

internal import Foundation
internal import StalkCore
internal import Subprocess

/// A series of lives of one store, each ended by SIGKILL.
struct TortureRun {
    /// What came of it.
    struct Report: Sendable {
        var seed: UInt64
        var path: String
        var cycles = 0
        var published = 0
        var done = 0
        /// Calls that were under way when the process was killed, and had happened, or had not.
        var undecided = 0
        var tornBytes = 0
        var problems: [TortureVerdict.Problem] = []

        var isGood: Bool { self.problems.isEmpty }
    }

    private let seed: UInt64
    private let path: String
    private let program: String

    /// Makes the directory for the store.
    ///
    /// - Parameters:
    ///   - directory: Where to make it.
    ///   - seed: Where chance begins.
    init(in directory: String, seed: UInt64) throws {
        guard !FileManager.default.fileExists(atPath: directory + "/STALK") else {
            throw StalkError(
                .invalidArgument,
                "\(directory) is a store: name the directory that it stands in, and another store is made there."
            )
        }
        self.seed = seed & 0xFFF
        self.path = "\(directory)/stalk-torture-\(ProcessInfo.processInfo.processIdentifier)"
        self.program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        do {
            try FileManager.default.createDirectory(
                atPath: self.path,
                withIntermediateDirectories: false,
                attributes: [.posixPermissions: 0o700]
            )
        } catch {
            throw StalkError(.invalidArgument, "Can't make a directory in \(directory): \(error.localizedDescription)")
        }
    }

    private var storePath: String { self.path + "/store" }
    private var journalPath: String { self.path + "/journal" }

    /// Lets the store live and die.
    ///
    /// - Parameters:
    ///   - cycles: How often.
    ///   - deadline: When to end in any case.
    ///   - progress: Called after each cycle with how many are done.
    func run(
        cycles: Int,
        until deadline: ContinuousClock.Instant?,
        progress: (Int) -> Void
    ) async throws -> Report {
        var report = Report(seed: self.seed, path: self.path)
        defer { if report.isGood { try? FileManager.default.removeItem(atPath: self.path) } }
        var random = TortureRandom(seed: self.seed)
        var journal: [UInt8] = []
        while report.cycles < cycles, report.isGood {
            if let deadline, .now >= deadline { break }
            report.cycles += 1
            // Often soon, so that opening is interrupted too.
            let life =
                random.below(4) == 0
                ? Life.ofProcess(.milliseconds(random.below(60))) : .ofStore(.milliseconds(20 + random.below(400)))
            journal += try await self.live(report.cycles, life, &report)
            journal = try await self.judge(journal, closes: random.below(8) == 0, &report)
            progress(report.cycles)
        }
        if !report.isGood { try Data(journal).write(to: URL(fileURLWithPath: self.journalPath)) }
        return report
    }

    /// When a loader is killed.
    private enum Life {
        /// So long after it was started, opened or not.
        case ofProcess(Duration)
        /// So long after it had opened its store, however slow the machine is.
        case ofStore(Duration)

        /// When it is killed in any case.
        var longest: Duration {
            switch self {
            case .ofProcess(let time): time
            case .ofStore: .seconds(60)
            }
        }
    }

    /// Runs the loader and kills it.
    ///
    /// - Returns: What it had reported.
    private func live(_ cycle: Int, _ life: Life, _ report: inout Report) async throws -> [UInt8] {
        let seed = self.seed << 20 | UInt64(cycle & 0xFFFFF)
        let result = try await Subprocess.run(
            .path(literal(self.program)),
            arguments: ["torture-load", "--store", self.storePath, "--seed", "\(seed)", "--durability", "mixed"],
            input: .none,
            output: .sequence,
            error: .discarded
        ) { execution in
            async let _: Void = {
                guard (try? await Task.sleep(for: life.longest)) != nil else { return }
                try? execution.send(signal: .kill)
            }()
            var journal: [UInt8] = []
            var end: ContinuousClock.Instant?
            for try await chunk in execution.standardOutput {
                chunk.withUnsafeBytes { journal += $0 }
                if case .ofStore(let time) = life, end == nil,
                    String(decoding: journal, as: UTF8.self).contains("\nopened ")
                {
                    end = .now + time
                }
                if let end, .now >= end { try? execution.send(signal: .kill) }
            }
            return journal
        }
        if result.terminationStatus != .signaled(9) {
            let failure = String(decoding: result.closureResult, as: UTF8.self)
                .split(separator: "\n").last { $0.hasPrefix("failed") }
            report.problems.append(
                TortureVerdict.Problem(
                    kind: .damaged,
                    what: "the process ended by itself, \(result.terminationStatus): \(failure ?? "it gave no reason")"
                )
            )
        }
        return result.closureResult
    }

    /// Compares the store with the journal.
    ///
    /// - Returns: The journal that the next life goes on with.
    private func judge(_ journal: [UInt8], closes: Bool, _ report: inout Report) async throws -> [UInt8] {
        var oracle = TortureOracle()
        let (events, unreadable) = TortureEvent.journal(String(decoding: journal, as: UTF8.self))
        for event in events {
            oracle.note(event)
            if case .published = event { report.published += 1 }
            if case .opened(_, let torn) = event { report.tornBytes += torn }
        }
        let (verdict, content) = await TortureContent.judge(at: self.storePath, by: oracle, closes: closes)
        report.problems += verdict.problems
        report.problems += unreadable.map { TortureVerdict.Problem(kind: .journal, what: "can't read \(quoted($0))") }
        report.done += verdict.figures.done
        report.undecided += verdict.figures.undecidedAbsent + verdict.figures.undecidedPresent
        guard report.isGood, let content else { return journal }
        return content.settled.flatMap { Array("\($0)\n".utf8) }
    }
}

extension TortureRun.Report {
    /// The report for scripts.
    var json: JSONValue {
        .object([
            .init("good", .bool(self.isGood)),
            .init("seed", .integer(Int64(self.seed))),
            .init("cycles", .number(self.cycles)),
            .init("published", .number(self.published)),
            .init("done", .number(self.done)),
            .init("undecided", .number(self.undecided)),
            .init("tornBytes", .number(self.tornBytes)),
            .init("problems", .array(self.problems.map { .string("\($0.kind.rawValue): \($0.what)") })),
        ])
    }

    /// The report for a person.
    var text: String {
        let figures = """
            killed \(counted(self.cycles, "time")); \(counted(self.published, "message")) published, \(self.done) done, \
            \(counted(self.undecided, "call")) cut off in the middle (seed \(self.seed))

            """
        guard !self.isGood else {
            return "good: nothing was lost, invented, changed, or done twice\n" + figures
                + "Power cuts were not tried: a killed process leaves the kernel's cache behind.\n"
        }
        let problems = self.problems.prefix(20).map { "  \($0.kind.rawValue): \($0.what)\n" }
        return "BAD: \(counted(self.problems.count, "problem"))\n" + problems.joined() + figures
            + "The store and its journal are kept in \(self.path): please report them.\n"
    }
}
