// `stalk work`: a command for each message.

internal import ArgumentParser
internal import StalkAdmin
internal import StalkCore
internal import StalkLocal
internal import StalkNSQ
internal import StalkSQS
internal import StalkWorker

struct WorkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "work",
        abstract: "Run a command for each message.",
        discussion: """
            The command gets the body on its standard input, and STALK_ID, STALK_QUEUE, STALK_ATTEMPT and \
            STALK_HEADER_… in its environment. Its exit code decides:

              0             the message is done
              65 or 100     it failed for good: dead, or off to the error queue
              anything else the message comes again later

            A command that was killed or took too long counts as a failure that may be tried again.

            What the command wrote last to its standard error is kept as the reason.

              stalk work mail -- ./send.sh
              stalk work mail --http 1323 -- ./send.sh
              stalk work images -j 4 --timeout 1m --error-queue broken -- ./resize.sh

            The first SIGTERM or Ctrl-C lets running commands finish, the second one stops them, as does the end of \
            --stop-grace; what was stopped comes again and does not count as tried.
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(
        help: "The queue to take from; or sqs://NAME[?region=R&endpoint=URL&account=ID], or \(QueueArgument.nsqForm)."
    )
    var queue: String

    @Option(
        name: [.customShort("j"), .long],
        help: ArgumentHelp("How many commands run at a time.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var jobs = 1

    @Option(
        help: ArgumentHelp(
            "How many commands a backlog may lead to; -j is the fewest then, and the number follows the work.",
            valueName: "count"
        ),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var maxJobs: Int?

    @Option(
        help: ArgumentHelp(
            "How often a message is tried in all; 1 never retries. Default: 25.",
            valueName: "count"
        ),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var maxAttempts: Int?

    @Option(
        help: ArgumentHelp(
            "The wait before a failed message comes again. Default: from 1s, growing to 1h, with jitter.",
            valueName: "duration"
        ),
        transform: parseDuration
    )
    var retryInterval: Duration?

    @Option(help: ArgumentHelp("The queue that takes what fails for good.", valueName: "queue"))
    var errorQueue: String?

    @Option(
        help: ArgumentHelp("How long a command may run before it is killed.", valueName: "duration"),
        transform: parseDuration
    )
    var timeout: Duration?

    @Option(
        help: ArgumentHelp(
            "How long running commands may go on after the first SIGTERM. Default: until they end.",
            valueName: "duration"
        ),
        transform: parseDuration
    )
    var stopGrace: Duration?

    @Option(
        help: ArgumentHelp(
            "Show and control the work over HTTP at this address; a port alone means this machine only.",
            valueName: "address"
        ),
        transform: parseAdminAddress
    )
    var http: AdminAddress?

    @OptionGroup var tokenOption: TokenOption

    @Option(help: ArgumentHelp("What names the worker in metrics and over HTTP. Default: a UUID.", valueName: "id"))
    var collectorID: String?

    @Flag(help: "End when nothing is ready, delayed or worked on.")
    var drain = false

    @Flag(help: "Report the counts at the end as JSON, on standard error.")
    var json = false

    @Argument(parsing: .postTerminator, help: ArgumentHelp("The command and its arguments.", valueName: "command"))
    var command: [String] = []

    func validate() throws {
        guard !self.command.isEmpty else {
            throw ValidationError(
                "There is no command to run: write it behind '--', as in 'stalk work mail -- ./send.sh'."
            )
        }
        if let most = self.maxJobs, most < self.jobs {
            throw ValidationError("--max-jobs \(most) is less than the \(self.jobs) of -j: give at least as many.")
        }
        guard self.timeout != .zero else {
            throw ValidationError("A time-out of zero would kill every command at once: give more, or leave it out.")
        }
    }

    func run() async throws {
        let place = try QueueArgument(self.queue)
        let policy = try self.retryPolicy()
        let command = try ShellCommand(self.command, timeout: self.timeout)
        let programs = max(self.jobs, self.maxJobs ?? 0)
        try DescriptorRoom.require(
            DescriptorRoom.ofCommand + programs * DescriptorRoom.ofProgram,
            "let fewer commands run at once"
        )
        let counters: WorkerCounters
        switch place {
        case .local(let name):
            let errorQueue = try self.errorQueue.map(localQueueName)
            counters = try await self.storeOptions.withStore { store in
                try await store.requireQueue(name)
                let queue = store.queue(name, options: LocalQueueOptions(errorQueue: errorQueue))
                return try await self.work(on: queue, "local", store, policy: policy, command: command) {
                    try await queue.drained()
                }
            }
        case .sqs(let name, let configuration):
            counters = try await self.work(onSQS: name, configuration, policy: policy, command: command)
        case .nsq(let configuration):
            counters = try await self.work(onNSQ: configuration, policy: policy, command: command)
        }
        if self.json {
            StandardError.write(String(decoding: counters.json.line, as: UTF8.self))
        } else {
            StandardError.note(counters.text)
        }
    }

    private func work(
        onSQS name: String,
        _ configuration: SQSConfiguration,
        policy: RetryPolicy,
        command: ShellCommand
    ) async throws -> WorkerCounters {
        var configuration = configuration
        configuration.errorQueue = try self.sqsErrorQueue()
        configuration.prefetch = 10
        return try await withSQS(name, configuration) { queue in
            guard queue.hasErrorQueue else {
                throw StalkError(
                    .invalidArgument,
                    "SQS keeps no dead messages by itself: name a queue with --error-queue, or give \(queue.queue) a "
                        + "redrive policy. No message was taken."
                )
            }
            return try await self.work(on: queue, "sqs", policy: policy, command: command) {
                try await queue.drained()
            }
        }
    }

    private func work(
        onNSQ configuration: NSQConfiguration,
        policy: RetryPolicy,
        command: ShellCommand
    ) async throws -> WorkerCounters {
        guard !self.drain else {
            throw StalkError(.unsupported, "NSQ can't say whether a channel is empty: leave --drain out.")
        }
        var configuration = configuration
        switch try self.errorQueue.map({ text throws(StalkError) in try QueueArgument(text) }) {
        case nil: break
        case .local(let name): configuration.errorTopic = name.rawValue
        case .nsq(let errors): configuration.errorTopic = errors.topic
        case .sqs:
            throw StalkError(.unsupported, "The error queue of an NSQ topic is a topic of the same nsqd: name one.")
        }
        return try await withNSQ(configuration) { queue in
            try await self.work(on: queue, "nsq", policy: policy, command: command) {}
        }
    }

    /// The error queue's name or address: it is in the same place as the queue.
    private func sqsErrorQueue() throws(StalkError) -> String? {
        guard let text = self.errorQueue else { return nil }
        return switch try QueueArgument(text) {
        case .local(let name): name.rawValue
        case .sqs(let name, _): name
        case .nsq: throw StalkError(.unsupported, "The error queue of an SQS queue is a queue of SQS: name one.")
        }
    }

    private func work(
        on queue: any Collector,
        _ backend: String,
        _ store: LocalStore? = nil,
        policy: RetryPolicy,
        command: ShellCommand,
        drained: @escaping @Sendable () async throws -> Void
    ) async throws -> WorkerCounters {
        var run = WorkerRun(queue: queue, policy: policy, jobs: self.jobs, command: command)
        run.backend = backend
        run.store = store
        run.stopGrace = self.stopGrace
        if let id = self.collectorID { run.collectorID = id }
        if let most = self.maxJobs {
            guard let store else {
                throw StalkError(
                    .unsupported,
                    "\(queue.queue) does not say how long it is, which --max-jobs goes by: give -j alone."
                )
            }
            run.autoscale = AutoscaleOptions(min: self.jobs, max: most)
            run.backlog = {
                try await store.stats().queues.first { $0.name == queue.queue }?.ready ?? 0
            }
        }
        if let address = self.http {
            run.admin = AdminOptions(address: address, token: try self.tokenOption.token())
        }
        if self.drain { run.drained = drained }
        return try await run()
    }

    /// When a failed message comes again.
    func retryPolicy() throws(StalkError) -> RetryPolicy {
        let standard = RetryPolicy.standard
        let maxAttempts = self.maxAttempts ?? standard.maxAttempts
        guard let interval = self.retryInterval else {
            return try .exponential(base: standard.interval, cap: standard.cap, maxAttempts: maxAttempts)
        }
        return try .fixed(interval, maxAttempts: maxAttempts)
    }
}
