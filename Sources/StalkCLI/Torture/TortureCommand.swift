// `stalk torture`: does the promise hold on this disk, with this kernel?

internal import ArgumentParser
internal import Foundation
internal import StalkCore

struct TortureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "torture",
        abstract: "Try a disk: kill a store's owner again and again, and look whether anything is lost.",
        discussion: """
            Makes a store of its own in a new directory inside the one given by --store. A process publishes, takes, \
            retries, dead-letters and acknowledges there as fast as it can, and reports each step. It is killed with \
            SIGKILL at a random moment. Then the store is opened, twice, and compared with what was reported: nothing \
            acknowledged may be missing, changed or done twice. The same store lives on for all cycles. It is removed at \
            the end, unless something was wrong.

              stalk torture --store /var/lib/app              100 cycles
              stalk torture --store /var/lib/app --time 1h    as many as fit into an hour

            What this shows: that this binary loses nothing when its process dies, on this file system and kernel. What \
            it does not show: power cuts and failing disks. A killed process leaves the kernel's cache behind, a power \
            cut does not.
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Option(help: "How often the process is killed.", transform: { try parseCount($0, atLeast: 1) })
    var cycles: Int?

    @Option(help: "How long to go on, such as 10m.", transform: parseDuration)
    var time: Duration?

    @Option(help: "Where chance begins; the same seed makes the same choices, though not the same moments.")
    var seed: UInt64?

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let directory = try self.storeOptions.path()
        let run = try TortureRun(in: directory, seed: self.seed ?? UInt64.random(in: 1..<4096))
        let most = self.cycles ?? (self.time == nil ? 100 : .max)
        let deadline = self.time.map { ContinuousClock.now + $0 }
        let report = try await cancelledBySignals {
            let progress = SharedProgress("killed")
            defer { progress.end() }
            return try await run.run(cycles: most, until: deadline) { done in
                let fraction = most == .max ? 0 : Double(done) / Double(most)
                progress.update("\(done) times", fraction: fraction)
            }
        }
        try await OutputStream.standardOutput.write(self.json ? report.json.line : Array(report.text.utf8))
        if !report.isGood { throw SilentExit(status: .otherFailure) }
    }
}
