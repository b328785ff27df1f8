// What other processes published and may publish again, since they do not know whether it was stored.

internal import DequeModule
internal import StalkCore
internal import StalkLog

/// A call of another process.
struct CallOrigin: Hashable, Sendable {
    /// The number of the process.
    var client: UInt64
    /// The number of its call.
    var call: UInt64
    /// The process has the answers of all its calls below this one.
    var answeredBelow: UInt64
}

/// The calls that published something and whose answers may not have arrived.
///
/// When the owner of the store dies, its clients repeat what was not answered; the next owner finds here what of it is
/// stored. It is part of what the log and LMDB say. Of a client only what it may repeat is kept, and of clients only
/// those that called last.
struct PublishCalls: Hashable, Sendable {
    /// How many clients are remembered.
    static var maxClients: Int { 1024 }
    /// How many of their calls are remembered, beside those of the client that called last.
    static var maxRecords: Int { 4096 }

    private var clients: [UInt64: Deque<CallRecord>] = [:]
    /// The clients, the one that called last at the end.
    private var order: Deque<UInt64> = []
    private var count = 0

    /// All that is remembered, in an order in which it can be noted again.
    var records: [CallRecord] { self.order.flatMap { self.clients[$0] ?? [] } }

    var isEmpty: Bool { self.clients.isEmpty }

    /// Remembers what a call published, and forgets what its client has the answer of.
    mutating func note(_ record: CallRecord) {
        if self.order.last != record.client {
            if self.clients[record.client] != nil { self.order.removeAll { $0 == record.client } }
            self.order.append(record.client)
        }
        self.count += self.clients[record.client, default: []].note(record)
        while self.order.count > Self.maxClients || self.order.count > 1 && self.count > Self.maxRecords {
            self.forget(self.order[0])
        }
    }

    /// Forgets a client that has gone for good.
    mutating func forget(_ client: UInt64) {
        guard let calls = self.clients.removeValue(forKey: client) else { return }
        self.count -= calls.count
        self.order.removeAll { $0 == client }
    }

    /// Puts what a call has published before into its results.
    func recall(_ origin: CallOrigin, into results: inout [Result<MessageID, StalkError>?]) {
        for record in self.clients[origin.client] ?? [] where record.call == origin.call {
            for index in 0..<Int(record.count) where Int(record.position) + index < results.count {
                results[Int(record.position) + index] = .success(MessageID(sequence: record.first + UInt64(index)))
            }
        }
    }
}

extension Deque<CallRecord> {
    /// - Returns: How many more there are.
    fileprivate mutating func note(_ record: CallRecord) -> Int {
        let before = self.count
        while let first = self.first, first.call < record.answeredBelow { self.removeFirst() }
        self.append(record)
        return self.count - before
    }
}
