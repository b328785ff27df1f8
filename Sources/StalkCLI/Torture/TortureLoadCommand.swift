// `stalk torture-load`: the process that is attacked.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

/// What calls of the load must survive.
enum TortureDurability: String, ExpressibleByArgument, CaseIterable {
    case synced
    case written
    /// Now this, now that.
    case mixed

    /// The durability of one call.
    func choose(_ bits: UInt64) -> Durability {
        switch self {
        case .synced: .synced
        case .written: .written
        case .mixed: bits & 1 == 0 ? .synced : .written
        }
    }
}

struct TortureLoadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "torture-load",
        abstract: "Use a store hard and report every step on standard output.",
        shouldDisplay: false
    )

    @OptionGroup var storeOptions: StoreOptions

    @Option(help: "Where its choices and numbers begin; each life of a store needs another one, below 2^32.")
    var seed: UInt64 = 1

    @Option(help: "How many tasks publish.")
    var publishers = 4

    @Option(help: "How many tasks take and finish.")
    var workers = 4

    @Option(help: "End after as many messages have ended, or with --single after as many operations.")
    var messages: Int?

    @Flag(help: "One task and a fixed series of operations.")
    var single = false

    @Flag(help: "Other processes use the store too, and write the same journal.")
    var shared = false

    @Option(help: "Messages that are published per second.")
    var rate: Int?

    @Option(help: "How many messages wait before publishers pause; by default that follows from the seed.")
    var backlog: Int?

    @Option(help: "How large the log's segments are; by default that follows from the seed.")
    var segmentBytes: Int?

    @Option(help: "What calls must survive: \(TortureDurability.allCases.map(\.rawValue).joined(separator: ", ")).")
    var durability = TortureDurability.synced

    @Option(help: "How long deliveries are leased.", transform: parseDuration)
    var lease: Duration = .seconds(30)

    func validate() throws {
        guard self.seed < 1 << 32 else { throw ValidationError("The seed must be below 2^32.") }
    }

    func run() async throws {
        try TortureParent.watch()
        let journal = TortureJournal(speaker: self.shared ? self.seed : nil)
        let options = TortureLoad.Options(
            seed: self.seed,
            publishers: max(self.publishers, 0),
            workers: max(self.workers, 0),
            messages: self.messages,
            rate: self.rate,
            backlog: self.backlog,
            durability: self.durability,
            lease: self.lease,
            isShared: self.shared
        )
        let load = TortureLoad(options: options, journal: journal)
        journal.note(.life(seed: self.seed, isSingle: self.single))
        do {
            let store = try await LocalStore.open(
                at: self.storeOptions.path(),
                options: TortureLoad.storeOptions(
                    seed: self.seed,
                    isSingle: self.single,
                    segmentBytes: self.segmentBytes,
                    isShared: self.shared
                )
            )
            let recovery = store.recovery
            journal.note(.opened(replayedFrames: recovery.replayedFrames, tornBytes: recovery.tornBytes))
            if self.single {
                var script = TortureScript(load: load)
                try await script.run(self.messages ?? 100, on: store)
            } else {
                try await load.run(on: store)
            }
            try await store.close()
            journal.note(.closed)
        } catch {
            journal.noteFailure(error)
            throw error
        }
        if journal.hasFailed { throw SilentExit(status: .otherFailure) }
    }
}
