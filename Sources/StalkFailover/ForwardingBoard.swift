// Keeps a report of a forwarding in the store while it runs.

internal import StalkCore
internal import StalkFiles
internal import StalkPlatform
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// Writes the figures of one forwarding where other processes read them.
///
/// It is a help for people and never a reason to fail: where nothing can be written, nothing is.
final class ForwardingBoard: Sendable {
    /// Where the reports are, below the store's directory.
    static let directory = "forwarding"
    /// The most processes that forward from one queue and can be told apart.
    private static let mostOfAQueue = 16

    private let store: String
    private let queue: QueueName
    private let clock: ElapsedClock
    /// Whether it will look by itself within a second.
    private let isTicking = Atomic(true)
    private let pokes: AsyncStream<Void>
    private let poking: AsyncStream<Void>.Continuation

    init(store: String, queue: QueueName, clock: ElapsedClock) {
        self.store = store
        self.queue = queue
        self.clock = clock
        (self.pokes, self.poking) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// Whether it looks again without being poked.
    var looksByItself: Bool { self.isTicking.load(ordering: .sequentiallyConsistent) }

    /// Something may have changed.
    func poke(isUrgent: Bool) {
        if isUrgent || !self.looksByItself { self.poking.yield() }
    }

    /// Writes until the task is cancelled, and once more then.
    func run(
        to destination: QueueName,
        _ look: @escaping @Sendable () -> ForwardingReport.Figures
    ) async {
        guard let lock = await self.lock().map(Held.init) else { return }
        // Now, and not when the last thread that wrote has ended.
        defer { lock.release() }
        var last: ForwardingReport.Figures?
        var number: UInt64 = .random(in: .min ... .max)
        var iterator = self.pokes.makeAsyncIterator()
        while !Task.isCancelled {
            if look().isAlike(last) {
                // From here on the next event pokes; what came before it is seen by the second look.
                self.isTicking.store(false, ordering: .sequentiallyConsistent)
                if look().isAlike(last) { await iterator.next() }
                self.isTicking.store(true, ordering: .sequentiallyConsistent)
                continue
            }
            last = look()
            number &+= 1
            await self.write(last, to: destination, number, lock)
            let deadline = self.clock.elapsed() + .seconds(1)
            let alarm = Task {
                guard (try? await self.clock.sleep(deadline)) != nil else { return }
                self.poking.yield()
            }
            await iterator.next()
            alarm.cancel()
        }
        await self.write(look(), to: destination, number &+ 1, lock)
    }

    /// The lock, until it is given back.
    private final class Held: Sendable {
        private let lock: Locked<DirectoryLock?>

        init(_ lock: DirectoryLock) { self.lock = Locked(lock) }

        func overwrite(_ bytes: [UInt8]) { self.lock.withLock { _ = $0?.overwrite(bytes) } }

        func release() { self.lock.withLock { $0 = nil } }
    }

    /// The first file of the queue that no other process has; `nil` when there is none to be had.
    private func lock() async -> DirectoryLock? {
        let (store, queue) = (self.store, self.queue)
        return await Self.onOwnThread { () -> DirectoryLock? in
            guard let place = try? RealDirectory(path: store, createIfMissing: false),
                (try? place.makeDirectory(Self.directory)) != nil
            else { return nil }
            for number in 1...Self.mostOfAQueue {
                let name = number == 1 ? "\(queue)" : "\(queue)@\(number)"
                if let lock = try? place.lockAlone("\(Self.directory)/\(name)") { return lock }
            }
            return nil
        } ?? nil
    }

    private func write(
        _ figures: ForwardingReport.Figures?,
        to destination: QueueName,
        _ number: UInt64,
        _ lock: Held
    ) async {
        guard let figures else { return }
        let report = ForwardingReport(
            queue: self.queue,
            destination: destination,
            process: Int(getpid()),
            isAlive: true,
            writtenAt: SystemStoreClock().wallTime(),
            figures: figures
        )
        let bytes = ForwardingText.bytes(report, number: number)
        _ = await Self.onOwnThread { lock.overwrite(bytes) }
    }

    /// Carries out what may wait for the disk; `nil` when the system refuses a thread.
    static func onOwnThread<Value: Sendable>(_ work: @escaping @Sendable () -> Value) async -> Value? {
        await withCheckedContinuation { continuation in
            let thread = try? DedicatedThread(name: "stalk-report") { continuation.resume(returning: work()) }
            if let thread { thread.detach() } else { continuation.resume(returning: nil) }
        }
    }
}

extension ForwardingReport.Figures {
    /// Whether they say the same; a moment that is told from two clocks differs a little each time.
    fileprivate func isAlike(_ other: Self?) -> Bool {
        guard var other else { return false }
        if let own = self.triedAt, let theirs = other.triedAt,
            abs(own.millisecondsSince1970 - theirs.millisecondsSince1970) < 100
        {
            other.triedAt = own
        }
        return self == other
    }
}
