// The memory of `stalk forward`, by how much it has to move.

internal import FoundationEssentials
internal import StalkCore
internal import StalkTesting
internal import Subprocess
internal import Testing

@testable internal import StalkNSQ

@Suite(.timeLimit(.minutes(5))) struct DrainMemoryTests {
    /// How many messages the short drain has; the long one has four times as many.
    ///
    /// `STALK_DRAIN_MESSAGES` says otherwise.
    private static let count = ProcessInfo.processInfo.environment["STALK_DRAIN_MESSAGES"].flatMap { Int($0) } ?? 50_000
    /// What four times the messages may take more, in bytes: for three times the count that is far less than an id each.
    private static let tolerance = 16 << 20

    /// Anonymous memory: pages of LMDB are the disk's, and the kernel takes them back when it needs to.
    @Test func aLongDrainTakesNoMoreMemoryThanAShortOne() async throws {
        try await withNSQ { servers, _ in
            // It says OK and keeps nothing: only the other process is measured.
            await servers[0].react { command, _ in
                switch command {
                case .publish, .multiPublish: .forget
                default: .obey
                }
            }
            let url = await "nsq://127.0.0.1:\(servers[0].port)/orders"
            var peaks: [Int] = []
            for count in [Self.count, Self.count * 4] {
                let path = FileManager.default.temporaryDirectory.path + "/stalk-drain-\(UUID().uuidString)"
                defer { try? FileManager.default.removeItem(atPath: path) }
                let put = "seq -f %0100.0f 1 \(count) | $STALK put orders --lines --durability written --store \(path)"
                _ = try await Self.peak(of: put)
                let drain = "exec $STALK forward orders '\(url)' --drain --json --store \(path)"
                let (peak, output) = try await Self.peak(of: drain)
                #expect(output.contains(#""forwarded":\#(count),"#), "\(output)")
                peaks.append(peak)
            }
            #expect(peaks[0] > 1 << 20)
            #expect(peaks[1] < peaks[0] + Self.tolerance, "\(peaks)")
        }
    }

    /// The negative control: what keeps all that passes through it is found out.
    @Test func whatKeepsItAllIsSeen() async throws {
        var peaks: [Int] = []
        for count in [Self.count, Self.count * 4] {
            let sort = "exec sort -S 1G <(seq -f %0100.0f 1 \(count)) -o /dev/null"
            peaks.append(try await Self.peak(of: sort).bytes)
        }
        #expect(peaks[1] > peaks[0] + Self.tolerance, "\(peaks)")
    }

    /// The most anonymous memory that a process had, as far as looking every few milliseconds shows it.
    private static func peak(of script: String) async throws -> (bytes: Int, output: String) {
        let result = try await Subprocess.run(
            .name("bash"),
            arguments: ["-euc", script],
            environment: .inherit.updating(["STALK": "\(CommandTests.tool)"]),
            input: .none,
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        ) { execution in
            let begun = ContinuousClock.now
            var peak = 0
            while let now = anonymousBytes(of: execution.processIdentifier.value) {
                peak = max(peak, now)
                if begun.duration(to: .now) > .seconds(120) { try execution.send(signal: .kill) }
                try await ContinuousClock().sleep(for: .milliseconds(5))
            }
            return peak
        }
        try #require(result.terminationStatus == .exited(0), "\(script): \(result.standardError)")
        return (result.closureResult, result.standardOutput)
    }
}
