// What the commands share that change messages by hand.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

/// How a change by hand is reported, and whether it is made.
struct ChangeOptions: ParsableArguments {
    @Flag(help: "Change nothing, only print how many it would be.")
    var dryRun = false

    @Flag(help: "Report as JSON.")
    var json = false

    /// Prints how many messages were changed, or would be.
    ///
    /// - Parameters:
    ///   - done: The name of the count, such as `moved`.
    ///   - planned: Its name when nothing was changed, such as `wouldMove`.
    func report(_ count: Int, done: String, planned: String) async throws {
        let name = self.dryRun ? planned : done
        try await OutputStream.standardOutput.write(
            self.json ? JSONValue.object([.init(name, .number(count))]).line : Array("\(count)\n".utf8)
        )
    }
}

extension LocalStore {
    /// Looks at messages before any of them is changed, so that a wrong id among them changes nothing.
    ///
    /// - Throws: ``StalkError`` for the first one that is not there, or that somebody works on.
    func requireChangeable(_ ids: [String]) async throws -> [StoredMessage] {
        var messages: [StoredMessage] = []
        for id in ids {
            let message = try await self.message(MessageID(id))
            if message.state == .leased {
                throw StalkError(.messageLeased, "Somebody works on message \(message.id): wait until it is back.")
            }
            if !messages.contains(where: { $0.id == message.id }) { messages.append(message) }
        }
        return messages
    }
}
