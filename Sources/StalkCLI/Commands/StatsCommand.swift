// `stalk stats`: the figures of the store and its queues.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct StatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show how many messages are where.",
        discussion: """
            For each queue: how many messages are ready to be taken, delayed until later, leased to somebody who works \
            on them, and dead because they failed for good; the size of their bodies; how long the first in line waits. \
            Other processes may use the store meanwhile.

              stalk stats
              stalk stats mail --json | jq '.queues[0].ready'
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "Only this queue.")
    var queue: String?

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let name = try self.queue.map(localQueueName)
        var stats = try await self.storeOptions.withStore { store in
            if let name { try await store.requireQueue(name) }
            return try await store.stats()
        }
        if let name { stats.queues.removeAll { $0.name != name } }
        try await OutputStream.standardOutput.write(self.json ? Self.json(stats).line : Array(Self.text(stats).utf8))
    }

    static func json(_ stats: StoreStats) -> JSONValue {
        .object([
            .init("queues", .array(stats.queues.map(Self.json))),
            .init("logBytes", .number(stats.logBytes)),
            .init("lmdbBytes", .number(stats.lmdbBytes)),
            .init("checkpointLag", .number(stats.checkpointLag)),
            .init("setAside", .number(stats.setAside)),
            .init("owner", .integer(Int64(stats.owner))),
        ])
    }

    private static func json(_ queue: QueueStats) -> JSONValue {
        .object([
            .init("name", .string(queue.name.rawValue)),
            .init("ready", .number(queue.ready)),
            .init("delayed", .number(queue.delayed)),
            .init("leased", .number(queue.leased)),
            .init("dead", .number(queue.dead)),
            .init("bytes", .number(queue.bytes)),
            .init("oldestAgeMs", queue.oldestAge.map { .integer($0.wholeMillisecondsRoundedUp) } ?? .null),
            .init("paused", .bool(queue.isPaused)),
        ])
    }

    static func text(_ stats: StoreStats) -> String {
        var table = TextTable([
            ("QUEUE", .left), ("READY", .right), ("DELAYED", .right), ("LEASED", .right), ("DEAD", .right),
            ("BODIES", .right), ("OLDEST", .right), ("", .left),
        ])
        for queue in stats.queues {
            table.add([
                queue.name.rawValue, "\(queue.ready)", "\(queue.delayed)", "\(queue.leased)", "\(queue.dead)",
                sizeText(queue.bytes),
                queue.oldestAge.map { ageText(milliseconds: $0.wholeMillisecondsRoundedUp) } ?? "-",
                queue.isPaused ? "paused" : "",
            ])
        }
        let damage = stats.setAside == 0 ? "" : "\(counted(stats.setAside, "damaged value")) set aside\n"
        return table.text + damage + """

            log \(sizeText(stats.logBytes)), of which \(sizeText(stats.checkpointLag)) wait for the next checkpoint; \
            LMDB \(sizeText(stats.lmdbBytes)); owner is process \(stats.owner)

            """
    }
}
