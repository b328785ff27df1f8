// The directory damaged/: what repair takes out of a store is kept there, with a description.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// The files of one repair in `damaged/`, each synced before what it keeps is removed.
final class DamagedFiles {
    static let directory = "damaged"

    private let store: any StorageDirectory
    /// What the names of this repair's files begin with.
    private let prefix: String
    private var rows: (file: any StorageFile, offset: Int)?
    private(set) var rowCount = 0
    /// The files, each with what it is.
    private(set) var files: [(name: String, what: String)] = []

    /// Begins a repair: its files get a number that none before had.
    init(_ store: any StorageDirectory) throws(StalkError) {
        self.store = store
        let numbers = try store.list(Self.directory).compactMap { name in
            name.hasPrefix("repair-") ? Int(name.dropFirst(7).prefix { $0.isNumber }) : nil
        }
        let number = String((numbers.max() ?? 0) + 1)
        self.prefix = "repair-\(String(repeating: "0", count: max(0, 4 - number.count)))\(number)"
    }

    /// Keeps a row of a table that is damaged or belongs to nothing: one line of table, key, stored bytes, and why.
    func keep(table: String, key: [UInt8], stored: [UInt8], _ why: String) throws(StalkError) {
        var rows: (file: any StorageFile, offset: Int)
        if let begun = self.rows {
            rows = begun
        } else {
            let name = "\(self.prefix).rows"
            try self.store.makeDirectory(Self.directory)
            rows = (try self.store.open("\(Self.directory)/\(name)", .new), 0)
            self.files.append(
                (
                    name,
                    "rows of index/data.mdb, one a line: table, key, value with its checksum (both hexadecimal), reason"
                )
            )
        }
        let line = Array("\(table)\t\(Self.digits(key))\t\(Self.digits(stored))\t\(why)\n".utf8)
        try rows.file.write(line, at: rows.offset)
        self.rows = (rows.file, rows.offset + line.count)
        self.rowCount += 1
    }

    private static func digits(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 2)
        for byte in bytes { text += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
        return String(decoding: text, as: UTF8.self)
    }

    /// Keeps a part of a segment, under the name of its place.
    func keepFrame(_ place: LogPlace, bytes: Int, _ why: String) throws(StalkError) {
        guard bytes > 0 else { return }
        let name = "\(String(place.segment, radix: 16))-\(place.offset).frame"
        try self.store.makeDirectory(Self.directory)
        let source = try self.store.open(Segment.path(place.segment), .readOnly)
        let copy = try self.store.open("\(Self.directory)/\(name)", .ifMissing)
        try source.copy(from: place.offset, count: bytes, to: copy)
        self.files.append((name, "\(bytes) bytes of \(place): \(why)"))
    }

    /// Keeps a whole file of the store by a second name; the first one is still there.
    func keepFile(
        _ path: String,
        as suffix: String,
        _ why: String,
        link: (String, String) throws(StalkError) -> Void
    )
        throws(StalkError)
    {
        let name = "\(self.prefix).\(suffix)"
        try self.store.makeDirectory(Self.directory)
        try link(path, "\(Self.directory)/\(name)")
        self.files.append((name, "\(path) as it was: \(why)"))
    }

    /// Writes the description and makes everything durable; nothing may be removed from the store before.
    func seal(_ steps: [String]) throws(StalkError) {
        try self.rows?.file.sync()
        guard !self.files.isEmpty else { return }
        let name = "\(self.prefix).txt"
        var text = "What 'stalk repair --apply' took out of this store.\n\nFiles, in this directory:\n"
        for (name, what) in self.files { text += "  \(name): \(what)\n" }
        text += "\nWhat was done:\n"
        for step in steps { text += "  \(step)\n" }
        text += "\nStalk never reads these files: remove them when nothing in them is wanted any more.\n"
        let file = try self.store.open("\(Self.directory)/\(name)", .new)
        try file.write(Array(text.utf8), at: 0)
        try file.sync()
        try self.store.sync(Self.directory)
        self.files.append((name, ""))
    }
}
