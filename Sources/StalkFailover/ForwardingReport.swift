// What a process that forwards tells others of itself: the files in the directory `forwarding` of a store.

public import StalkCore
internal import StalkFiles
public import StalkLocal

/// How a forwarding is doing, as other processes see it.
///
/// Breaker and rates live in the memory of the process that forwards. It writes them into a file of the store, at most
/// once a second and whenever the breaker turns, and holds a lock on that file, which the system takes back when the
/// process ends, however it ends.
public struct ForwardingReport: Hashable, Sendable {
    /// What changes.
    public struct Figures: Hashable, Sendable {
        /// Where the circuit breaker stands.
        public var breaker: BreakerPhase
        /// When the destination is tried again; `nil` unless the breaker is open.
        public var triedAt: Timestamp?
        /// Messages that the destination took in the last second.
        public var rate: Int
        /// The size of their bodies, in bytes.
        public var byteRate: Int
        /// The bound on messages per second; `nil` without one.
        public var rateLimit: Double?
        /// What has passed through since the forwarding began.
        public var counters: ForwardingCounters
    }

    /// The queue that messages are taken from.
    public var queue: QueueName
    /// The queue that they go to.
    public var destination: QueueName
    /// The process that forwards, or did.
    public var process: Int
    /// Whether it still does; else the figures are its last ones.
    public var isAlive: Bool
    /// When it wrote this.
    public var writtenAt: Timestamp
    /// How it is doing.
    public var figures: Figures

    /// The reports of all that forward from queues of a store.
    ///
    /// Several may forward from one queue. Where none does any more, the last one to write is shown.
    ///
    /// - Parameter store: The store.
    /// - Throws: ``StalkCore/StalkError`` when its directory can't be read.
    public static func all(in store: LocalStore) async throws -> [ForwardingReport] {
        let path = store.path
        return try await ForwardingBoard.onOwnThread { () -> Result<[ForwardingReport], StalkError> in
            do throws(StalkError) {
                return .success(try Self.all(inStoreAt: path))
            } catch {
                return .failure(error)
            }
        }?.get() ?? []
    }

    static func all(inStoreAt path: String) throws(StalkError) -> [ForwardingReport] {
        let directory = try RealDirectory(path: path, createIfMissing: false)
        var found: [QueueName: [ForwardingReport]] = [:]
        for name in try directory.list(ForwardingBoard.directory) {
            // What can't be read says nothing of anybody.
            guard let report = try? Self.read("\(ForwardingBoard.directory)/\(name)", in: directory) else { continue }
            found[report.queue, default: []].append(report)
        }
        return found.values.flatMap { reports in
            let alive = reports.filter(\.isAlive).sorted { $0.process < $1.process }
            return alive.isEmpty ? Array(reports.sorted { $0.writtenAt < $1.writtenAt }.suffix(1)) : alive
        }.sorted { $0.queue.rawValue < $1.queue.rawValue }
    }

    private static func read(_ name: String, in directory: RealDirectory) throws(StalkError) -> ForwardingReport? {
        let file = try directory.open(name, .readOnly)
        // Read while it is written, it may be of two pieces: the next reading is not.
        for _ in 0..<3 {
            let bytes = try file.read(at: 0, count: ForwardingText.size)
            guard var report = ForwardingText.report(bytes) else { continue }
            // Asked last: who has gone since then is seen the next time. A shared lock, so that two who ask at a time don't
            // take each other for the owner.
            report.isAlive = try directory.lockShared(name) == nil
            return report
        }
        return nil
    }
}

/// A report as text: a line each, padded to one size, so that a new one takes the place of the old one in one write.
enum ForwardingText {
    /// Twice the longest names and all figures fit in.
    static let size = 2048

    private static let title = "stalk forwarding 1"

    /// - Parameter number: What differs between two writes of one file.
    static func bytes(_ report: ForwardingReport, number: UInt64) -> [UInt8] {
        let (figures, counters) = (report.figures, report.figures.counters)
        var lines = [
            "\(Self.title) \(number)", "queue \(report.queue)", "destination \(report.destination)",
            "process \(report.process)", "written \(report.writtenAt.millisecondsSince1970)",
            "breaker \(figures.breaker.rawValue)", "rate \(figures.rate)", "bytes \(figures.byteRate)",
            "forwarded \(counters.forwarded)", "aside \(counters.setAside)", "ambiguous \(counters.ambiguous)",
            "duplicate \(counters.mayBeDuplicate)", "opened \(counters.opened)", "throttled \(counters.throttled)",
        ]
        if let triedAt = figures.triedAt { lines.append("tried \(triedAt.millisecondsSince1970)") }
        if let limit = figures.rateLimit { lines.append("limit \(limit)") }
        let text = Array(lines.joined(separator: "\n").utf8)
        let end = Array("\nend \(number)\n".utf8)
        let padding = [UInt8](repeating: UInt8(ascii: "\n"), count: max(Self.size - text.count - end.count, 0))
        return text + padding + end
    }

    /// What a file says; `nil` when it is no report, or pieces of two.
    static func report(_ bytes: [UInt8]) -> ForwardingReport? {
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        guard let first = lines.first, first.hasPrefix("\(Self.title) "), let last = lines.last,
            last == "end \(first.dropFirst(Self.title.count + 1))"
        else { return nil }
        var values: [Substring: Substring] = [:]
        for line in lines.dropFirst().dropLast() {
            guard let space = line.firstIndex(of: " ") else { return nil }
            values[line[..<space]] = line[line.index(after: space)...]
        }
        func count(_ name: Substring) -> Int { values[name].flatMap { Int($0) } ?? 0 }
        func moment(_ name: Substring) -> Timestamp? {
            values[name].flatMap { Int64($0) }.map { Timestamp(millisecondsSince1970: $0) }
        }
        guard let queue = values["queue"].flatMap({ try? QueueName(String($0)) }),
            let destination = values["destination"].flatMap({ try? QueueName(String($0)) }),
            let writtenAt = moment("written"),
            let breaker = values["breaker"].flatMap({ BreakerPhase(rawValue: String($0)) })
        else { return nil }
        var counters = ForwardingCounters()
        counters.forwarded = count("forwarded")
        counters.setAside = count("aside")
        counters.ambiguous = count("ambiguous")
        counters.mayBeDuplicate = count("duplicate")
        counters.opened = count("opened")
        counters.throttled = count("throttled")
        return ForwardingReport(
            queue: queue,
            destination: destination,
            process: count("process"),
            isAlive: false,
            writtenAt: writtenAt,
            figures: ForwardingReport.Figures(
                breaker: breaker,
                triedAt: moment("tried"),
                rate: count("rate"),
                byteRate: count("bytes"),
                rateLimit: values["limit"].flatMap { Double($0) },
                counters: counters
            )
        )
    }
}
