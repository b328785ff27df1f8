internal import FoundationEssentials
internal import StalkCore
internal import StalkLocal

// What is in the store, for the page and for `stalk top`.
extension AdminAPI {
    /// Everything at one moment.
    package func overview() async throws -> AdminOverview {
        let (reports, failovers) = (await self.reports(), try await self.failoverReports())
        guard let store = self.store else {
            return AdminOverview(queues: [], store: nil, collectors: reports, failovers: failovers)
        }
        let stats = try await store.stats()
        // Only collectors of this store take from its queues: the others may have queues of the same name.
        let local = reports.filter { $0.backend == "local" }
        let finished = Dictionary(
            local.map { ($0.queue, ($0.processed ?? 0) + ($0.failed ?? 0)) },
            uniquingKeysWith: +
        )
        return AdminOverview(
            queues: stats.queues.map { Self.overview($0, finished: finished[$0.name.rawValue] ?? 0) },
            store: AdminOverview.Store(
                path: store.path,
                logBytes: stats.logBytes,
                lmdbBytes: stats.lmdbBytes,
                checkpointLag: stats.checkpointLag,
                scheduleLagMs: stats.scheduleLag.wholeMillisecondsRoundedUp,
                owner: stats.owner
            ),
            collectors: reports,
            failovers: failovers
        )
    }

    private static func overview(_ queue: QueueStats, finished: Int) -> AdminOverview.Queue {
        AdminOverview.Queue(
            name: queue.name.rawValue,
            ready: queue.ready,
            delayed: queue.delayed,
            leased: queue.leased,
            dead: queue.dead,
            bytes: queue.bytes,
            oldestAgeMs: queue.oldestAge?.wholeMillisecondsRoundedUp,
            paused: queue.isPaused,
            finished: finished
        )
    }

    private struct Listed: Encodable {
        struct Attempt: Encodable {
            var attempt: Int
            var at: String
            var reason: String
        }

        var id: String
        var state: String
        var attempts: Int
        var publishedAt: String
        var dueAt: String
        var diedIn: String?
        var headers: [String: String]
        var failures: [Attempt]
        var size: Int
        var body: String?
        var bodyBase64: String?
        var isCut: Bool
    }

    /// How much of a body is shown.
    static let shownBytes = 4096

    func messages(_ queue: QueueName, _ state: MessageState, _ max: Int) async throws -> AdminResponse {
        let messages = try await self.requireStore().peek(queue, state: state, max: max)
        return .json(["messages": messages.map(Self.list)])
    }

    private static func list(_ message: StoredMessage) -> Listed {
        let isCut = message.body.count > Self.shownBytes
        let shown = message.body.prefix(Self.shownBytes)
        // A cut may part a character, and text must not be taken for bytes then.
        let text = (0...(isCut ? 3 : 0)).lazy
            .compactMap { String(validating: shown.dropLast($0), as: UTF8.self) }.first
        return Listed(
            id: message.id.rawValue,
            state: message.state.rawValue,
            attempts: message.attempts,
            publishedAt: message.publishedAt.description,
            dueAt: message.dueAt.description,
            diedIn: message.diedIn?.rawValue,
            headers: Dictionary(message.headers.map { ($0.name, $0.value) }) { $1 },
            failures: message.failures.map {
                Listed.Attempt(attempt: $0.attempt, at: $0.at.description, reason: $0.reason)
            },
            size: message.body.count,
            body: text,
            bodyBase64: text == nil ? Data(message.body.prefix(Self.shownBytes)).base64EncodedString() : nil,
            isCut: isCut
        )
    }

    // MARK: Changing messages

    /// Where a message is to go: from the query, else from a JSON object in the body.
    struct MoveOrder: Decodable {
        var to: String?

        init(_ body: [UInt8], _ query: [String: String]) throws(StalkError) {
            if !body.isEmpty {
                do {
                    self = try JSONDecoder().decode(Self.self, from: Data(body))
                } catch {
                    throw StalkError(
                        .invalidArgument,
                        #"The body is not understood: send a JSON object such as {"to": "QUEUE"}."#
                    )
                }
            }
            self.to = query["to"] ?? self.to
        }
    }

    func move(_ id: MessageID, _ order: MoveOrder) async throws -> AdminResponse {
        guard let to = order.to else {
            throw StalkError(.invalidArgument, #"Move it to which queue? Send {"to": "QUEUE"}, or ?to=QUEUE."#)
        }
        try await self.requireStore().move(id, to: QueueName(to))
        return .json(["moved": 1])
    }
}
