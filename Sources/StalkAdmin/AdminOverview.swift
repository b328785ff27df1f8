/// Everything that the page and `stalk top` show at one moment.
package struct AdminOverview: Codable, Sendable {
    /// A queue of the store.
    package struct Queue: Codable, Sendable {
        package var name: String
        package var ready: Int
        package var delayed: Int
        package var leased: Int
        package var dead: Int
        package var bytes: Int
        package var oldestAgeMs: Int64?
        package var paused: Bool
        /// What this process's workers ended, for good or ill; who reads it twice has the rate.
        package var finished: Int

        /// Messages that are still to be worked on.
        package var held: Int { self.ready + self.delayed + self.leased }
    }

    /// The store itself.
    package struct Store: Codable, Sendable {
        package var path: String
        package var logBytes: Int
        package var lmdbBytes: Int
        package var checkpointLag: Int
        package var scheduleLagMs: Int64
        package var owner: Int32
    }

    /// A collector and its worker.
    package struct Collector: Codable, Sendable {
        package var id: String
        package var queue: String
        package var backend: String
        package var sleeping: Bool?
        package var running: Bool?
        package var stopping: Bool?
        package var concurrency: Int?
        package var inFlight: Int?
        package var stuck: Int?
        package var processed: Int?
        package var retried: Int?
        package var failed: Int?
        package var backendReachable: Bool
        package var lastSuccessMs: Int64?
        /// Why its state is not known.
        package var error: String?

        /// Whether it does its work: what was scaled to zero or put to sleep does what it was told.
        var isReady: Bool { self.backendReachable && self.running ?? true && !(self.stopping ?? false) }
    }

    package var queues: [Queue]
    package var store: Store?
    package var collectors: [Collector]
    package var failovers: [Failover]
}
