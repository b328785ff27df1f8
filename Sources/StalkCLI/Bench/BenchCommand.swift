// `stalk bench`: how fast this disk lets a store be, and how near the store comes.

internal import ArgumentParser
internal import StalkCore
internal import StalkFiles
internal import StalkLocal

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure throughput and latency on this disk, beside what the disk allows.",
        discussion: """
            Works in a new directory inside the store's, or in the nearest parent that exists, and removes it. Stores \
            that are there are left alone. It keeps the machine busy for a minute or so.

            The runs:
              publish-1    256 callers publish, synced, one message a call
              publish-100  16 callers publish, synced, 100 messages a call
              life-1       256 callers publish, take and acknowledge, each synced, one message a call
              life-100     16 callers do so with 100 messages a call
              single       one caller publishes, synced, one message a call
              written-1    256 callers publish, written but not synced, one message a call
            each with 1 KiB of random bytes and with package records of this machine.

            The columns of the first table:
              MSG/S       messages a second
              BARE LOG/S  the same records through the same log by group commit, with no queue behind it: the ceiling
              SHARE       MSG/S as a share of that
              P50, P99, P99.9  the time of a call; in life runs of its whole publish, take and acknowledge
              P50/SYNC    P50 as a multiple of one write of 4 KiB with its fdatasync, on blocks written before
            Both ceilings are measured right before and right after their run.

            The columns of the second:
              MSG/FRAME   messages for each write to the log
              BYTES/BODY  bytes handed to write calls, for log and LMDB (wchar in /proc/self/io), for each byte of the \
            bodies, until everything that is left was moved from the log into LMDB
              SYNCS/1K    fdatasync, fsync and synced writes for 1,000 messages, of log and LMDB
              LMDB        transactions committed to LMDB
              WAKES/1K    times that a thread of the process waited and was woken, for 1,000 messages
              CPU/MSG     processor time, callers included
              MEMORY      anonymous resident memory at the end of the run, less what there was before the store was opened

            With --backlog, --scheduled or --processes, only that is measured. The first two need room on the disk and some \
            minutes for millions. With --processes, the same callers work in the one process that owns the store, and then in \
            others that reach it through its socket, 16 in each and a queue for each; 'single' has one caller in any case, and \
            'written-100' publishes 100 messages a call without a sync.

              stalk bench --only single --store /mnt/other-disk
              stalk bench --backlog 10000000
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Flag(help: "Report as JSON.")
    var json = false

    @Option(
        help: ArgumentHelp("How long each run lasts, such as 500ms, 5s.", valueName: "duration"),
        transform: parseDuration
    )
    var time: Duration = .seconds(2)

    @Option(help: ArgumentHelp("Only this run; may be given several times.", valueName: "name"))
    var only: [String] = []

    @Option(
        help: ArgumentHelp(
            "Publish this many records first, and compare rates, memory, disk and opening with a short queue.",
            valueName: "count"
        ),
        transform: { try parseCount($0, atLeast: 1000) }
    )
    var backlog: Int?

    @Option(
        help: ArgumentHelp(
            "Schedule this many records over an hour, and measure memory and punctuality.",
            valueName: "count"
        ),
        transform: { try parseCount($0, atLeast: 1000) }
    )
    var scheduled: Int?

    @Option(
        help: ArgumentHelp("Compare one process with this many that share its store.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var processes: Int?

    /// What a child process does to be measured: see ``SharedBench``.
    @Option(help: .hidden)
    var asClientFrom: Int64?

    /// What a child process does to be killed: see ``BacklogBench``.
    @Flag(help: .hidden)
    var publishUntilKilled = false

    @Option(help: "Only these bodies: 'random' or 'records'.")
    var bodies: BodiesOption?

    enum BodiesOption: String, ExpressibleByArgument, CaseIterable {
        case random
        case records
    }

    func validate() throws {
        let names = BenchRun.all.map(\.name)
        guard self.asClientFrom == nil else { return }
        for name in self.only where !names.contains(name) {
            throw ValidationError("There is no run \(quoted(name)); there are \(names.joined(separator: ", ")).")
        }
        guard self.time >= .milliseconds(10) else { throw ValidationError("Let each run last 10ms at least.") }
    }

    func run() async throws {
        let path = try self.storeOptions.path()
        if let start = self.asClientFrom {
            return try await SharedBench.beClient(of: path, self.only.first ?? "", from: start, for: self.time)
        }
        if self.publishUntilKilled { return try await BacklogBench.publishUntilKilled(path) }
        let report = try await cancelledBySignals { [self] in
            try await withBenchDirectory(inside: path) { directory in
                try directory.checkFitness()
                let isDeep = self.backlog != nil || self.scheduled != nil || self.processes != nil
                return isDeep ? try await self.measureDeep(in: directory) : try await self.measure(in: directory)
            }
        }
        try await OutputStream.standardOutput.write(self.json ? report.json.line : Array(report.text.utf8))
    }

    private func measureDeep(in directory: RealDirectory) async throws -> (json: JSONValue, text: String) {
        let isDeep = self.backlog != nil || self.scheduled != nil
        let bodies = self.bodies == .random || !isDeep ? BenchBodies.random() : await .records()
        let progress = SharedProgress("measured")
        defer { progress.end() }
        var (members, text) = ([JSONValue.Member](), "")
        if let depth = self.backlog {
            let bench = BacklogBench(depth: depth, time: self.time, bodies: bodies, directory: directory)
            let outcome = try await bench.measure(progress)
            members.append(.init("backlog", outcome.json))
            text += outcome.text
        }
        if let count = self.scheduled {
            let bench = ScheduleBench(count: count, time: self.time, bodies: bodies, directory: directory)
            let outcome = try await bench.measure(progress)
            members.append(.init("scheduled", outcome.json))
            text += outcome.text
        }
        if let processes = self.processes {
            let bench = SharedBench(processes: processes, time: self.time, bodies: .random(), directory: directory)
            let outcomes = try await bench.measure(progress)
            members.append(.init("shared", outcomes.json(processes: processes)))
            text += outcomes.text(processes: processes)
        }
        return (.object(members), text)
    }

    private func measure(in directory: RealDirectory) async throws -> (json: JSONValue, text: String) {
        var kinds: [BenchBodies] = []
        if self.bodies != .records { kinds.append(.random()) }
        if self.bodies != .random { kinds.append(await .records()) }
        var report = BenchReport(directory: directory.path, bodies: kinds, results: [])
        let runs = BenchRun.all.filter { self.only.isEmpty || self.only.contains($0.name) }
        let progress = SharedProgress("measured")
        defer { progress.end() }
        for run in runs {
            for bodies in kinds {
                let done = Double(report.results.count) / Double(runs.count * kinds.count)
                progress.update("\(report.results.count) of \(runs.count * kinds.count) runs", fraction: done)
                try Task.checkCancellation()
                report.results.append(try await run.measure(bodies, in: directory, for: self.time))
            }
        }
        return (report.json, report.text)
    }
}
