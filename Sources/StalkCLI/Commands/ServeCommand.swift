// `stalk serve`: a store over HTTP.

internal import ArgumentParser
internal import StalkAdmin
internal import StalkCore
internal import StalkLocal

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Show a store over HTTP: a page, metrics and probes.",
        discussion: """
            The page shows every queue and its messages live. With a token it pauses queues, and retries, \
            moves and deletes messages as well.

              stalk serve
              stalk serve --http :8080 --token-file token

            Other processes may publish and work on the store meanwhile. A worker can serve its own page with \
            'stalk work --http', which also shows its handlers.
            """
    )

    @OptionGroup var storeOptions: StoreOptions
    @OptionGroup var tokenOption: TokenOption

    @Option(
        help: ArgumentHelp("Where to listen; a port alone means this machine only.", valueName: "address"),
        transform: parseAdminAddress
    )
    var http = AdminAddress()

    func run() async throws {
        let options = AdminOptions(address: self.http, token: try self.tokenOption.token())
        try await self.storeOptions.withStore { store in
            try await withEndingSignals { signals in
                try await withAdminServer(options, collectors: [], store: store) {
                    for await _ in signals { break }
                }
            }
        }
    }
}
