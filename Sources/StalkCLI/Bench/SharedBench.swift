// `stalk bench --processes`: what it costs that other processes use the store too.

internal import Foundation
internal import StalkCore
internal import StalkFiles
internal import StalkLocal
internal import Subprocess

/// The same load in the process that owns a store, and in several others that reach it through its socket.
struct SharedBench: Sendable {
    /// Which load.
    struct Run: Sendable {
        var name: String
        var work: BenchRun.Work
        /// The callers in each process.
        var callers: Int
        var batch: Int
        var durability = Durability.synced

        static let all = [
            Run(name: "publish-1", work: .publish, callers: 16, batch: 1),
            Run(name: "publish-100", work: .publish, callers: 16, batch: 100),
            Run(name: "life-1", work: .wholeLife, callers: 16, batch: 1),
            Run(name: "life-100", work: .wholeLife, callers: 16, batch: 100),
            Run(name: "single", work: .publish, callers: 1, batch: 1),
            Run(name: "written-1", work: .publish, callers: 16, batch: 1, durability: .written),
            Run(name: "written-100", work: .publish, callers: 16, batch: 100, durability: .written),
        ]

        var bench: BenchRun {
            BenchRun(
                name: self.name,
                work: self.work,
                durability: self.durability,
                callers: self.callers,
                batch: self.batch
            )
        }
    }

    /// What came of one load.
    struct Outcome: Sendable {
        var run: Run
        /// In the owner alone, with the callers of all processes together.
        var alone = Figures()
        var shared = Figures()
    }

    struct Figures: Sendable {
        var rate = 0.0
        /// The time of a call in microseconds; of the slowest process, when there are several.
        var median = 0.0
        var p99 = 0.0
    }

    let processes: Int
    let time: Duration
    let bodies: BenchBodies
    let directory: RealDirectory

    func measure(_ progress: SharedProgress) async throws -> [Outcome] {
        var outcomes: [Outcome] = []
        for run in Run.all {
            progress.update(run.name, fraction: Double(outcomes.count) / Double(Run.all.count))
            try Task.checkCancellation()
            var outcome = Outcome(run: run)
            outcome.alone = try await self.withStore { path, store in try await self.alone(run, store) }
            outcome.shared = try await self.withStore { path, store in try await self.shared(run, path, store) }
            outcomes.append(outcome)
        }
        return outcomes
    }

    private func withStore(_ body: (String, LocalStore) async throws -> Figures) async throws -> Figures {
        let path = "\(self.directory.path)/shared"
        defer { removeTree(path) }
        let store = try await LocalStore.open(at: path)
        let figures = try await body(path, store)
        try await store.close()
        return figures
    }

    /// One caller stays one, wherever it is: only its way is compared.
    private func count(_ run: Run) -> Int { run.callers == 1 ? 1 : self.processes }

    private func alone(_ run: Run, _ store: LocalStore) async throws -> Figures {
        var bench = run.bench
        bench.callers *= self.count(run)
        let queue = try store.queue("bench")
        try await queue.wake()
        let load = bench.load(on: queue, self.bodies)
        _ = try await load.run(for: self.time / 4)
        return Figures(try await load.run(for: self.time))
    }

    private func shared(_ run: Run, _ path: String, _ store: LocalStore) async throws -> Figures {
        let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let start = monotonicNanoseconds() + 1_500_000_000
        let arguments = [
            "bench", "--store", path, "--only", run.name, "--as-client-from", "\(start)", "--time",
            "\(self.time.nanoseconds / 1_000_000)ms",
        ]
        return try await withThrowingTaskGroup(of: Figures.self) { group in
            for _ in 0..<self.count(run) {
                group.addTask {
                    let result = try await Subprocess.run(
                        .path(literal(program)),
                        arguments: Arguments(arguments),
                        input: .none,
                        output: .string(limit: 4096),
                        error: .string(limit: 4096)
                    )
                    let words = result.standardOutput.split(separator: " ").compactMap { Double($0) }
                    guard words.count == 3 else {
                        throw StalkError(
                            .interrupted,
                            "A process that was to be measured ended with \(result.terminationStatus): "
                                + result.standardError
                        )
                    }
                    return Figures(rate: words[0], median: words[1], p99: words[2])
                }
            }
            var all = Figures()
            for try await figures in group {
                all.rate += figures.rate
                all.median = max(all.median, figures.median)
                all.p99 = max(all.p99, figures.p99)
            }
            return all
        }
    }

    /// What such a process does: warms up until the others are there, and is measured from then on.
    ///
    /// - Parameter start: When to begin, by the monotonic clock.
    static func beClient(of path: String, _ name: String, from start: Int64, for time: Duration) async throws {
        guard let run = Run.all.first(where: { $0.name == name }) else {
            throw StalkError(.invalidArgument, "There is no run \(quoted(name)).")
        }
        let store = try await LocalStore.open(at: path, options: LocalStoreOptions(createIfMissing: false))
        // A queue for each, so that nobody waits for what somebody else took.
        let queue = try store.queue("bench-\(ProcessInfo.processInfo.processIdentifier)")
        try await queue.wake()
        let load = run.bench.load(on: queue, BenchBodies.random())
        _ = try await load.run(for: .nanoseconds(max(0, start - monotonicNanoseconds())))
        let figures = Figures(try await load.run(for: time))
        try await OutputStream.standardOutput.write(Array("\(figures.rate) \(figures.median) \(figures.p99)".utf8))
        try await store.close()
    }
}

extension SharedBench.Figures {
    init(_ result: LoadResult) {
        self.init(
            rate: result.rate,
            median: result.latency.quantile(0.5) / 1000,
            p99: result.latency.quantile(0.99) / 1000
        )
    }

    fileprivate var json: JSONValue {
        .object([
            .init("messagesPerSecond", .decimal(self.rate, places: 0)),
            .init("p50Micros", .decimal(self.median, places: 1)),
            .init("p99Micros", .decimal(self.p99, places: 1)),
        ])
    }
}

extension [SharedBench.Outcome] {
    func text(processes: Int) -> String {
        var table = TextTable([
            ("RUN", .left), ("CALLERS", .right), ("ONE PROCESS/S", .right), ("P50", .right), ("P99", .right),
            ("PROCESSES", .right), ("SOCKET/S", .right), ("P50", .right), ("P99", .right), ("SHARE", .right),
        ])
        for outcome in self {
            let count = outcome.run.callers == 1 ? 1 : processes
            let (alone, shared) = (outcome.alone, outcome.shared)
            let time = { (micros: Double) in timeText(nanoseconds: micros * 1000) }
            table.add([
                outcome.run.name, "\(count * outcome.run.callers)", groupedText(alone.rate), time(alone.median),
                time(alone.p99), "\(count)", groupedText(shared.rate), time(shared.median), time(shared.p99),
                "\(decimalText(shared.rate / alone.rate * 100, places: 0))%",
            ])
        }
        return table.text
    }

    func json(processes: Int) -> JSONValue {
        .object([
            .init("processes", .number(processes)),
            .init(
                "runs",
                .array(
                    self.map { outcome in
                        .object([
                            .init("name", .string(outcome.run.name)),
                            .init("oneProcess", outcome.alone.json),
                            .init("throughSocket", outcome.shared.json),
                        ])
                    }
                )
            ),
        ])
    }
}
