// Taking messages, printing them, and only then acknowledging them.

internal import StalkCore

/// Takes messages from a collector and writes them to standard output.
struct Taking {
    private static let lease = Duration.seconds(30)
    /// How much of bodies a batch aims for, since a batch is in memory at once.
    private static let batch = (messages: 256, bytes: 4 << 20)

    private let queue: any Collector
    private let limit: Int?
    private let wait: Duration
    private let acknowledges: Bool
    private let format: GetCommand.Format
    private let output: OutputStream
    private let held: HeldLeases
    private var taken = 0
    private var nextBatch = 16

    init(
        queue: any Collector,
        limit: Int?,
        wait: Duration,
        acknowledges: Bool,
        format: GetCommand.Format,
        output: OutputStream = .standardOutput
    ) {
        self.queue = queue
        self.limit = limit
        self.wait = wait
        self.acknowledges = acknowledges
        self.format = format
        self.output = output
        self.held = HeldLeases(queue: queue, lease: Self.lease)
    }

    /// Takes and prints until the limit is reached or nothing came for as long as may be waited.
    ///
    /// What was not acknowledged is released at the end, also when it fails.
    ///
    /// - Throws: ``OutputClosed`` when nobody reads any more; what the collector throws.
    mutating func run() async throws {
        let held = self.held
        let result: Result<Void, any Error>
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await held.keepAlive() }
                defer { group.cancelAll() }
                try await self.takeAll()
            }
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await held.release()
        try result.get()
    }

    private mutating func takeAll() async throws {
        while self.limit.map({ self.taken < $0 }) ?? true {
            let most = min(self.nextBatch, self.limit.map { $0 - self.taken } ?? .max)
            let deliveries = try await self.queue.take(TakeRequest(max: most, wait: self.wait, lease: Self.lease))
            guard !deliveries.isEmpty else { return }
            self.taken += deliveries.count
            self.held.add(deliveries.map(\.receipt))
            try await self.output.write(self.text(of: deliveries))
            if self.acknowledges { try await self.held.acknowledge(deliveries) }
            self.adaptBatch(to: deliveries)
        }
    }

    private mutating func adaptBatch(to deliveries: [Delivery]) {
        let bytes = deliveries.reduce(0) { $0 + $1.body.count }
        let fitting = Self.batch.bytes / Swift.max(bytes / deliveries.count, 1)
        let most = min(Self.batch.messages, Swift.max(self.queue.capabilities.maxBatch, 1))
        self.nextBatch = min(Swift.max(fitting, 1), most)
    }

    private func text(of deliveries: [Delivery]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(deliveries.reduce(0) { $0 + $1.body.count + 1 })
        for delivery in deliveries {
            switch self.format {
            case .raw:
                bytes += delivery.body
                bytes.append(UInt8(ascii: "\n"))
            case .json:
                bytes += Self.json(delivery).line
            }
        }
        return bytes
    }

    /// A delivery as the command line contract has it.
    static func json(_ delivery: Delivery) -> JSONValue {
        .object([
            .init("id", .string(delivery.id.rawValue)),
            .init("attempt", .number(delivery.attempt)),
            .init("headers", .headers(delivery.headers)),
            .body(delivery.body),
            .init("receipt", .string(delivery.receipt.description)),
            .init("publishedAt", .time(delivery.publishedAt)),
        ])
    }
}

/// The leases that a command holds, kept alive while it does.
final class HeldLeases: Sendable {
    private let queue: any Collector
    private let lease: Duration
    private let receipts = Locked<[Receipt]>([])

    init(queue: any Collector, lease: Duration) {
        self.queue = queue
        self.lease = lease
    }

    /// Holds more.
    func add(_ receipts: [Receipt]) {
        self.receipts.withLock { $0 += receipts }
    }

    /// Acknowledges the deliveries that were added last, and holds them no longer.
    ///
    /// - Parameter deliveries: The deliveries, as many as were added.
    /// - Throws: ``StalkError`` when one was refused: its message comes again.
    func acknowledge(_ deliveries: [Delivery]) async throws {
        let results = try await self.queue.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
        self.receipts.withLock { $0.removeLast(deliveries.count) }
        for result in results { try result.get() }
    }

    /// Extends all leases three times per lease until it is cancelled.
    ///
    /// A lease that could not be extended is no failure here: acknowledging it says so, and its message comes again.
    func keepAlive() async {
        while (try? await Task.sleep(for: self.lease / 3)) != nil {
            for receipts in self.batches() {
                _ = try? await self.queue.extend(receipts, lease: self.lease)
            }
        }
    }

    /// Gives everything that is held back to the queue, as if it had not been taken.
    func release() async {
        for receipts in self.batches() {
            // Closing the store returns what this can't.
            _ = try? await self.queue.finish(receipts.map { Completion($0, .release) }, durability: .written)
        }
        self.receipts.withLock { $0 = [] }
    }

    private func batches() -> [[Receipt]] {
        let receipts = self.receipts.withLock { $0 }
        let size = min(Swift.max(self.queue.capabilities.maxBatch, 1), 256)
        return stride(from: 0, to: receipts.count, by: size).map {
            Array(receipts[$0..<min($0 + size, receipts.count)])
        }
    }
}
