// `stalk put`: from a file or standard input to a queue.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

#if canImport(Glibc)
    internal import Glibc
#endif

struct PutCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "put",
        abstract: "Publish one message, or one per line.",
        discussion: """
            Without a framing option all input is one message, and its id is printed:

              echo hello | stalk put greetings

            With one, each line (or NUL-terminated record, or JSON object) is a message:

              stalk put mail --lines < addresses.txt
              find . -name '*.jpg' -print0 | stalk put images --null
              stalk put mail --jsonl < messages.jsonl

            where a line of messages.jsonl is an object such as

              {"body": "hi", "headers": {"Lang": "en"}, "delay": "5m"}

            With --spool a store stands in front of a remote queue: while the remote is away, messages wait there.

              stalk put sqs://orders --lines --spool /var/lib/orders < orders.txt
              stalk forward orders sqs://orders --drain --store /var/lib/orders

            The command ends with 0 only when every message is on disk. When it fails midway it says how many are.
            """
    )

    enum FramingOption: String, EnumerableFlag {
        case lines
        case null
        case jsonl

        static func help(for value: Self) -> ArgumentHelp? {
            switch value {
            case .lines: "One message per line, without its newline."
            case .null: "One message before each NUL byte, for messages of several lines."
            case .jsonl: "One JSON object per line: body or bodyBase64, and perhaps headers and delay."
            }
        }
    }

    enum DurabilityOption: String, ExpressibleByArgument, CaseIterable {
        case synced
        case written

        var durability: Durability { self == .synced ? .synced : .written }
        /// What to call messages that were published.
        var adjective: String { self == .synced ? "durable" : "written" }
    }

    @OptionGroup var storeOptions: StoreOptions

    @Argument(
        help:
            "The queue; it is made when it is not there. Or sqs://NAME[?region=R&endpoint=URL&account=ID], or \(QueueArgument.nsqForm)."
    )
    var queue: String

    @Argument(help: "The file to read; '-' or nothing is standard input.")
    var file: String?

    @Flag(exclusivity: .exclusive)
    var framing: FramingOption?

    @Flag(help: "Print the id of each message, in input order, once it is durable.")
    var ids = false

    @Flag(help: "Report on standard output as JSON.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "How long each message stays invisible, such as 500ms, 5s, 2m, 3h, 7d.",
            valueName: "duration"
        ),
        transform: parseDuration
    )
    var delay: Duration = .zero

    @Option(
        name: .customLong("header"),
        help: ArgumentHelp("A header of each message; may be given several times.", valueName: "name=value"),
        transform: Self.parseHeader
    )
    var headers: [Headers.Field] = []

    @Option(
        help: "What a message survives once it counts as published: 'synced' a power cut, 'written' a crash of stalk."
    )
    var durability: DurabilityOption = .synced

    @Option(
        help: ArgumentHelp(
            "A store for what the remote queue can't take now; made when it is not there.",
            valueName: "dir"
        )
    )
    var spool: String?

    func run() async throws {
        let place = try QueueArgument(self.queue)
        if self.spool != nil, place.isLocal {
            throw StalkError(
                .invalidArgument,
                "--spool stands in front of a remote queue, and \(self.queue) is in the store: leave it out."
            )
        }
        let template = try self.template()
        let input = try InputStream(path: self.file)
        if input.isTerminal { StandardError.note("Reading from the terminal; Ctrl-D ends the input.") }
        let publication = try await cancelledBySignals { [self] in
            let first = try await input.read(upTo: MessageReader.chunkBytes)
            // Nothing to publish makes no store; all of an empty input is one empty message.
            if first.isEmpty, self.framing != nil { return 0 }
            if let spool = self.spool, let remote = try place.remote() {
                return try await withSpool(remote, in: spool) { queue in
                    try await self.publish(input, first, template, to: queue)
                }
            }
            switch place {
            case .local(let name):
                return try await self.storeOptions.withStore(creating: true) { store in
                    try await self.publish(input, first, template, to: store.queue(name))
                }
            case .sqs(let name, let configuration):
                return try await withSQS(name, configuration) { queue in
                    try await self.publish(input, first, template, to: queue)
                }
            case .nsq(let configuration):
                return try await withNSQ(configuration) { queue in
                    try await self.publish(input, first, template, to: queue)
                }
            }
        }
        try await self.report(published: publication)
    }

    private func publish(
        _ input: InputStream,
        _ first: [UInt8],
        _ template: Message,
        to queue: any Collector
    ) async throws -> Int {
        let reader = MessageReader(
            input: input,
            first: first,
            framing: self.framing.framing,
            template: template,
            capabilities: queue.capabilities
        )
        let printsIDs = self.ids || self.framing == nil
        var publication = Publication(
            queue: queue,
            durability: self.durability,
            framing: self.framing.framing,
            ids: printsIDs ? (self.json ? .json : .plain) : .none,
            inputSize: input.size
        )
        return try await publication.publishAll(from: reader)
    }

    private func report(published: Int) async throws {
        if self.json {
            if self.framing != nil {
                try await OutputStream.standardOutput.write(
                    JSONValue.object([.init("published", .number(published))]).line
                )
            }
        } else if !self.ids, self.framing != nil {
            StandardError.write("\(counted(published, "message")) published\n")
        }
    }

    private func template() throws(StalkError) -> Message {
        var headers = Headers()
        for field in self.headers { headers[field.name] = field.value }
        try headers.validate()
        return Message([], headers: headers, delay: self.delay)
    }

    static func parseHeader(_ text: String) throws -> Headers.Field {
        guard let equals = text.firstIndex(of: "=") else {
            throw ValidationError("Write a header as name=value.")
        }
        var headers = Headers()
        headers[String(text[..<equals])] = String(text[text.index(after: equals)...])
        do {
            try headers.validate()
        } catch {
            throw ValidationError(error.message)
        }
        return headers.fields[0]
    }
}

extension PutCommand.FramingOption? {
    var framing: Framing {
        switch self {
        case nil: .whole
        case .lines: .lines
        case .null: .nul
        case .jsonl: .jsonLines
        }
    }
}
