// Cutting a stream of bytes at a separator, whatever the pieces it arrives in.

/// Cuts bytes into records at a separator, which belongs to no record; what stands behind the last one is a record too,
/// unless it is empty.
struct RecordSplitter {
    /// A record is longer than allowed.
    struct TooLong: Error {
        /// The records before it.
        var records: [[UInt8]]
    }

    private let separator: UInt8
    private let maxBytes: Int
    private var pending: [UInt8] = []

    /// Begins.
    ///
    /// - Parameters:
    ///   - separator: The byte between records.
    ///   - maxBytes: The longest record, which bounds what is kept in memory.
    init(separator: UInt8, maxBytes: Int) {
        self.separator = separator
        self.maxBytes = maxBytes
    }

    /// Takes more bytes and returns the records that end in them.
    ///
    /// - Parameter chunk: The bytes that follow those before.
    /// - Throws: ``TooLong`` as soon as a record is known to be too long.
    mutating func append(_ chunk: [UInt8]) throws(TooLong) -> [[UInt8]] {
        var records: [[UInt8]] = []
        var rest = chunk[...]
        while let end = rest.firstIndex(of: self.separator) {
            let length = self.pending.count + (end - rest.startIndex)
            guard length <= self.maxBytes else { throw TooLong(records: records) }
            if self.pending.isEmpty {
                records.append(Array(rest[..<end]))
            } else {
                self.pending += rest[..<end]
                records.append(self.pending)
                self.pending = []
            }
            rest = rest[(end + 1)...]
        }
        guard self.pending.count + rest.count <= self.maxBytes else { throw TooLong(records: records) }
        self.pending += rest
        return records
    }

    /// Ends the stream and returns what stands behind the last separator, if anything does.
    mutating func finish() -> [UInt8]? {
        guard !self.pending.isEmpty else { return nil }
        defer { self.pending = [] }
        return self.pending
    }
}
