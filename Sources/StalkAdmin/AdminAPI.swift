// What the control answers. It knows collectors and a store, and nothing of sockets.

internal import FoundationEssentials
internal import StalkCore
internal import StalkFailover
package import StalkLocal
internal import StalkWorker

/// Answers requests.
package struct AdminAPI: Sendable {
    let collectors: [AdminCollector]
    let failovers: [AdminFailover]
    let store: LocalStore?

    /// Answers for some collectors, forwardings and a store.
    package init(collectors: [AdminCollector] = [], failovers: [AdminFailover] = [], store: LocalStore? = nil) {
        self.collectors = collectors
        // A collector with a spool is shown as both.
        let own = collectors.compactMap { one in
            (one.collector as? FailoverCollector).map { AdminFailover(id: one.id, $0) }
        }
        self.failovers = own + failovers
        self.store = store
    }

    /// Does what a route asks for.
    ///
    /// - Parameter body: The request's body.
    func respond(to route: AdminRoute, body: [UInt8] = [], query: [String: String] = [:]) async -> AdminResponse {
        do {
            switch route {
            case .page: return AdminPage.response
            case .live: return .text(200, "ok")
            case .ready: return await self.ready()
            case .health: return await self.health()
            case .metrics: return try await self.metrics()
            case .queues: return .json(try await self.overview())
            case .messages(let queue, let state, let max): return try await self.messages(queue, state, max)
            case .sleep: return try await self.control(.sleep, ControlOrder(body, query))
            case .wake: return try await self.control(.wake, ControlOrder(body, query))
            case .scale: return try await self.scale(ControlOrder(body, query))
            case .pause(let queue):
                try await self.requireStore().pause(queue)
                return .json(["paused": true])
            case .resume(let queue):
                try await self.requireStore().resume(queue)
                return .json(["paused": false])
            case .redrive(let queue):
                return .json(["redriven": try await self.requireStore().redrive(queue)])
            case .kick(let queue, let max):
                return .json(["kicked": try await self.requireStore().kick(queue, max: max)])
            case .purge(let queue, let states):
                return .json(["purged": try await self.requireStore().purge(queue, states: states)])
            case .kickMessage(let id):
                return .json(["kicked": try await self.requireStore().kick(id) ? 1 : 0])
            case .moveMessage(let id): return try await self.move(id, MoveOrder(body, query))
            case .deleteMessage(let id):
                try await self.requireStore().delete(id)
                return .json(["deleted": 1])
            }
        } catch {
            return .error(error)
        }
    }

    func requireStore() throws(StalkError) -> LocalStore {
        guard let store = self.store else {
            throw StalkError(.noSuchQueue, "This process shows no local store, only its collectors: see /health.")
        }
        return store
    }

    // MARK: Health

    func reports() async -> [AdminOverview.Collector] {
        var reports: [AdminOverview.Collector] = []
        for collector in self.collectors { reports.append(await collector.report()) }
        return reports
    }

    func failoverReports() async throws -> [AdminOverview.Failover] {
        var reports: [AdminOverview.Failover] = []
        for failover in self.failovers { reports.append(try await failover.look()) }
        return reports
    }

    private func ready() async -> AdminResponse {
        let unready = await self.reports().filter { !$0.isReady }.map(\.id)
        if !unready.isEmpty { return .text(503, "not ready: \(unready.joined(separator: ", "))") }
        do {
            _ = try await self.store?.stats()
        } catch {
            return .text(503, "not ready: the store can't be used: \(error)")
        }
        return .text(200, "ready")
    }

    private struct Health: Encodable {
        enum CodingKeys: String, CodingKey {
            case collectors, store
            // What the original said of its one collector, under its names.
            case id = "collector_id"
            case sleeping
        }

        var collectors: [AdminOverview.Collector]
        var store: String?
        var id: String?
        var sleeping: Bool?
    }

    private func health() async -> AdminResponse {
        let reports = await self.reports()
        let only = reports.count == 1 ? reports.first : nil
        return .json(
            Health(collectors: reports, store: self.store?.path, id: only?.id, sleeping: only?.sleeping)
        )
    }

    // MARK: Control

    /// Which collector an order is for, and to how many: from the query, else from a JSON object in the body.
    struct ControlOrder: Decodable {
        var collector: String?
        var to: Int?

        init(_ body: [UInt8], _ query: [String: String]) throws(StalkError) {
            if !body.isEmpty {
                do {
                    self = try JSONDecoder().decode(Self.self, from: Data(body))
                } catch {
                    throw StalkError(
                        .invalidArgument,
                        #"The body is not understood: send a JSON object such as {"collector": "ID", "to": 4}."#
                    )
                }
            }
            self.collector = query["collector"] ?? self.collector
            guard let text = query["to"] else { return }
            guard let to = Int(text) else {
                throw StalkError(.invalidArgument, "Can't scale to \(quoted(text)): give a whole number.")
            }
            self.to = to
        }
    }

    private func chosen(_ order: ControlOrder) throws(StalkError) -> [AdminCollector] {
        guard let id = order.collector else {
            if self.collectors.isEmpty {
                throw StalkError(.noSuchQueue, "This process has no collectors: pause a queue of the store instead.")
            }
            return self.collectors
        }
        let chosen = self.collectors.filter { $0.id == id }
        guard !chosen.isEmpty else {
            throw StalkError(.noSuchQueue, "There is no collector \(quoted(id)): /health lists them.")
        }
        return chosen
    }

    private func control(_ command: CollectorCommand, _ order: ControlOrder) async throws -> AdminResponse {
        let chosen = try self.chosen(order)
        for collector in chosen { try await collector.collector.control(command) }
        return await Self.controlled(chosen)
    }

    private func scale(_ order: ControlOrder) async throws -> AdminResponse {
        guard let to = order.to else {
            throw StalkError(.invalidArgument, #"Scale to how many? Send {"to": 4}, or /scale?to=4."#)
        }
        guard (0...Self.largestConcurrency).contains(to) else {
            throw StalkError(
                .invalidArgument,
                "Can't scale to \(to): give 0 to drain, or more, up to \(Self.largestConcurrency)."
            )
        }
        let chosen = try self.chosen(order)
        for collector in chosen {
            if let worker = collector.worker {
                try worker.scale(to: to)
            } else {
                try await collector.collector.scale(to: to)
            }
        }
        return await Self.controlled(chosen)
    }

    static let largestConcurrency = 1_000_000

    private static func controlled(_ collectors: [AdminCollector]) async -> AdminResponse {
        var reports: [AdminOverview.Collector] = []
        for collector in collectors { reports.append(await collector.report()) }
        return .json(["collectors": reports])
    }
}
