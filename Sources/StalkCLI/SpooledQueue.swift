// Remote queues for commands that go on while the remote is away.

internal import StalkCore
internal import StalkFailover
internal import StalkLocal
internal import StalkNSQ
internal import StalkSQS

extension QueueArgument {
    /// A remote queue that is opened when it is first needed.
    struct Remote {
        var collector: DeferredCollector
        /// Whether its messages can have headers.
        var takesHeaders: Bool

        /// Closes what was opened.
        func close() async {
            switch self.collector.opened {
            case let queue as SQSCollector: await queue.close()
            case let queue as NSQCollector: await queue.close()
            default: break
            }
        }
    }

    /// The remote queue that the argument names; `nil` for one in the store.
    ///
    /// - Throws: ``StalkError`` when its name can't be a queue's.
    func remote() throws(StalkError) -> Remote? {
        switch self {
        case .local:
            return nil
        case .sqs(let text, let configuration):
            var configuration = configuration
            // Whoever sends through this tries again, and counts what may have arrived.
            configuration.maxAttempts = 1
            let settings = configuration
            let name = try QueueName(text.split(separator: "/").last.map { String($0) } ?? text)
            let collector = DeferredCollector(queue: name, assuming: .sqs(isFIFO: text.hasSuffix(".fifo"))) {
                try await SQSCollector.open(text, configuration: settings)
            }
            return Remote(collector: collector, takesHeaders: true)
        case .nsq(let configuration):
            let opened = try NSQCollector(configuration)
            let collector = DeferredCollector(queue: opened.queue, assuming: opened.capabilities) { opened }
            return Remote(collector: collector, takesHeaders: configuration.envelope)
        }
    }
}

extension CollectorCapabilities {
    /// What holds of each queue of SQS.
    fileprivate static func sqs(isFIFO: Bool) -> CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: 786_411,
            maxDelay: isFIFO ? .zero : .seconds(900),
            maxRetryDelay: .seconds(43_200),
            maxLease: .seconds(43_200),
            maxBatch: 1000,
            ordering: .bestEffort,
            leaseExtension: true,
            atomicPublish: false,
            uncountedRelease: false,
            durableDelay: true
        )
    }
}

/// Puts a store in front of a remote queue, runs `body`, and says what is left in the store.
///
/// - Parameters:
///   - remote: The remote queue.
///   - directory: Where the store is; it is made when it is not there.
///   - body: What publishes.
func withSpool<Value>(
    _ remote: QueueArgument.Remote,
    in directory: String,
    _ body: (FailoverCollector) async throws -> Value
) async throws -> Value {
    let store = try await LocalStore.open(at: directory)
    let result: Result<Value, any Error>
    do {
        var options = FailoverOptions()
        options.forwarding.sendsID = remote.takesHeaders
        let queue = try FailoverCollector(primary: remote.collector, spool: store, options: options)
        do {
            result = .success(try await body(queue))
        } catch {
            result = .failure(error)
        }
        await queue.close()
        let stats = try await queue.stats()
        if stats.waiting + stats.delayed > 0 {
            StandardError.note(
                "\(counted(stats.waiting + stats.delayed, "message")) of \(queue.queue) "
                    + "\(stats.waiting + stats.delayed == 1 ? "waits" : "wait") in \(directory): "
                    + "'stalk forward' with --store \(directory) sends them."
            )
        }
    } catch {
        await remote.close()
        try? await store.close()
        throw error
    }
    await remote.close()
    try await store.close()
    return try result.get()
}
