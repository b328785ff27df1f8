// The file that makes a directory a store.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// What the file `STALK` in a store says: that it is one, in which format, and its number.
struct StoreMarker: Hashable, Sendable {
    static let name = "STALK"
    static let temporaryName = "STALK.new"
    private static let title = "stalk store"

    /// The store's number, which every frame of its log and every receipt carries.
    var store: UInt64

    /// Reads the marker.
    ///
    /// - Returns: The marker, or `nil` when the directory is empty or holds a store that was never finished.
    /// - Throws: ``StalkError`` with ``StalkError/Code/notAStore`` when the directory holds something else, and with
    ///   ``StalkError/Code/newerFormat`` when a newer version made it.
    static func read(in directory: any StorageDirectory) throws(StalkError) -> StoreMarker? {
        let names = try directory.list("")
        guard names.contains(Self.name) else {
            // What a store that was never finished may hold: the marker is written last.
            let own = [
                Self.temporaryName, StoreOpening.lockName, Segment.directory, StoreRecovery.indexDirectory,
                Ballast.name,
            ]
            let log = try directory.list(Segment.directory).filter { Segment.number(inName: $0) == nil }
            let index = try directory.list(StoreRecovery.indexDirectory).filter {
                !["data.mdb", "lock.mdb"].contains($0)
            }
            guard let foreign = (names.filter { !own.contains($0) } + log + index).first else { return nil }
            throw StalkError(
                .notAStore,
                "\(directory.path) is not a Stalk store and not empty (it holds \(quoted(foreign))): "
                    + "name an empty or new directory. Nothing was changed."
            )
        }
        let file = try directory.open(Self.name, .readOnly)
        let bytes = try file.read(at: 0, count: 256)
        return try Self.parse(String(decoding: bytes, as: UTF8.self), path: "\(directory.path)/\(Self.name)")
    }

    private static func parse(_ text: String, path: String) throws(StalkError) -> StoreMarker {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.first == Self.title[...] else {
            throw StalkError(
                .notAStore,
                "\(path) was not written by Stalk: name another directory. Nothing was changed."
            )
        }
        let fields = lines.dropFirst().map { $0.split(separator: " ") }.filter { $0.count == 2 }
        let format = fields.first { $0[0] == "format" }.flatMap { UInt32($0[1]) }
        guard let format, format > 0 else {
            throw StalkError(
                .storeDamaged,
                "\(path) does not say its format: restore it from a copy. Nothing was changed."
            )
        }
        guard format <= StoreMeta.formatVersion else { throw StalkError.newerStore(found: format) }
        guard let store = fields.first(where: { $0[0] == "store" }).flatMap({ UInt64($0[1], radix: 16) }) else {
            throw StalkError(.storeDamaged, "\(path) does not say the store's number. Nothing was changed.")
        }
        return StoreMarker(store: store)
    }

    /// Writes the marker, durably, so that it is there as a whole or not at all.
    func write(in directory: any StorageDirectory) throws(StalkError) {
        let text = "\(Self.title)\nformat \(StoreMeta.formatVersion)\nstore \(String(self.store, radix: 16))\n"
        let file = try directory.open(Self.temporaryName, .ifMissing)
        try file.write(Array(text.utf8), at: 0)
        try file.sync()
        try directory.rename(Self.temporaryName, to: Self.name)
        try directory.sync("")
    }
}
