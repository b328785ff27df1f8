// What the log of a store says without its index.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// What the log alone says, read before it is replayed.
struct LogContents {
    /// The queues that it made.
    private(set) var queues: [UInt32: QueueName] = [:]
    /// The highest number of a queue that it speaks of.
    private(set) var lastQueue: UInt32 = 0
    /// The messages that were published in it.
    private(set) var published: Set<UInt64> = []
    /// The owners that it names.
    private(set) var epoch: UInt32 = 0

    /// Reads the log.
    init(
        _ directory: any StorageDirectory,
        store: UInt64,
        settled: UInt64,
        knownQueues: UInt32
    ) throws(StalkError) {
        let reader = LogReader(directory: directory, store: store, settled: settled, fromDisk: false)
        self.lastQueue = knownQueues
        var spokenOf: Set<UInt32> = []
        _ = try reader.read { _ in
        } _: { frame throws(StalkError) in
            do throws(StalkError) {
                try frame.forEachRecord { record in
                    switch record {
                    case .createQueue(let number, let name):
                        self.queues[number] = name
                        spokenOf.insert(number)
                    case .publish(let record):
                        self.published.insert(record.sequence)
                        spokenOf.insert(record.queue)
                    case .deadLetter(let record): spokenOf.insert(record.target)
                    case .move(_, let target, _): spokenOf.insert(target)
                    case .session(let record): self.epoch = max(self.epoch, record.epoch)
                    default: break
                    }
                }
            } catch {
                guard error.code == .storeDamaged else { throw error }
            }
        }
        // Numbers have no gaps, so one far off is a contradiction and no queue.
        for number in spokenOf.sorted() where number <= self.lastQueue + 1024 {
            self.lastQueue = max(self.lastQueue, number)
        }
    }
}
