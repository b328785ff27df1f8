// What follows from the messages of an index: their places in line, and the figures of the queues.

internal import StalkCore
internal import StalkIndex
internal import StalkZstd

extension SettledTables {
    /// Makes `ready`, `schedule` and `dead`, which must be empty, from `messages` and `states`.
    ///
    /// - Parameter released: Up to where the schedule was released.
    /// - Returns: The figures of each queue that has messages; names are left out.
    func makeLines(releasedThrough released: ScheduleKey) throws(StalkError) -> [UInt32: SettledQueue] {
        var figures: [UInt32: SettledQueue] = [:]
        var next: [UInt8]? = []
        while let start = next {
            let run = try self.standings(from: start, max: 4096)
            next = run.next
            try self.index.write { transaction throws(StalkError) in
                for (place, hasState, _) in run.messages {
                    for row in place.rows(releasedThrough: released, hasState: hasState) {
                        try transaction.put(self.index.table(row.table), row.key, row.value)
                    }
                }
            }
            for (place, _, bodyBytes) in run.messages {
                var queue = figures[place.queue] ?? SettledQueue(number: place.queue, name: QueueName(stored: ""))
                queue.bytes += bodyBytes
                if place.isDead {
                    queue.dead += 1
                } else if place.isScheduled, place.key.scheduleKey > released {
                    queue.delayed += 1
                } else {
                    queue.ready += 1
                }
                figures[place.queue] = queue
            }
        }
        return figures
    }

    /// Where some of the messages stand, and how large their bodies are.
    private func standings(
        from start: [UInt8],
        max limit: Int
    ) throws(StalkError) -> (messages: [(SettledPlace, hasState: Bool, bodyBytes: Int)], next: [UInt8]?) {
        var messages: [(SettledPlace, hasState: Bool, bodyBytes: Int)] = []
        var next: [UInt8]?
        try self.index.read { transaction throws(StalkError) in
            try transaction.scan(self.messages, from: start) { key, value throws(StalkError) in
                guard messages.count < limit else {
                    next = [UInt8](key)
                    return .stop
                }
                var reader = KeyReader(key)
                let sequence = try reader.readUInt64()
                let state = try transaction.withValue(self.states, key) { value throws(StalkError) in
                    try MessageStanding(reading: value, sequence: sequence)
                }
                let message = try MessageValue.read(value, sequence: sequence) { record, envelope throws(StalkError) in
                    let bodyBytes = try Envelope(parsing: envelope).bodyBytes
                    return ((state ?? record.standing).place, hasState: state != nil, bodyBytes: bodyBytes)
                }
                messages.append(message)
                return .next
            }
        }
        return (messages, next)
    }
}
