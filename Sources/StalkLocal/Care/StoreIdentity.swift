// Which store a directory holds, also when its marker is lost: the index and every frame of the log know its number.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// The number of a store and who says so.
struct StoreIdentity {
    /// The number that the store has.
    var store: UInt64
    /// What is wrong with the marker; `nil` when it is right.
    var markerFault: String?
    /// Whether the index is that of another store.
    var isIndexForeign = false

    /// Finds out which store a directory holds.
    ///
    /// - Parameters:
    ///   - directory: The directory.
    ///   - meta: What the index says of the store, when that can be read.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchStore`` or ``StalkError/Code/notAStore`` when nothing says
    ///   that this is or was a store, ``StalkError/Code/newerFormat``, and ``StalkError/Code/storeDamaged`` when its
    ///   parts contradict each other so that nobody can tell which of them belong together.
    init(of directory: any StorageDirectory, meta: StoreMeta?, hasMessages: Bool) throws(StalkError) {
        let logs = try Self.storesInLog(directory)
        let fault: StalkError
        do throws(StalkError) {
            if let marker = try StoreMarker.read(in: directory) {
                self = Self(marker, meta: meta, logs: logs)
                return
            }
            fault = StoreOpening.noStore(at: directory.path)
        } catch {
            guard error.code == .notAStore || error.code == .storeDamaged else { throw error }
            fault = error
        }
        // A store that was never finished holds nothing yet: opening makes it anew.
        let log = logs.max { $0.value < $1.value }?.key
        guard let store = meta?.store ?? log, hasMessages || log != nil || fault.code != .noSuchStore else {
            throw fault
        }
        guard meta == nil || log == nil || logs[store] != nil else {
            throw StalkError(
                .storeDamaged,
                "\(directory.path)/\(StoreMarker.name) is lost, and index and log belong to different stores: put the "
                    + "files of one store together. Nothing was changed.",
                cause: fault
            )
        }
        let isThere = try directory.list("").contains(StoreMarker.name)
        self = Self(store: store, markerFault: isThere ? "it is damaged" : "it is missing")
    }

    private init(store: UInt64, markerFault: String? = nil) {
        self.store = store
        self.markerFault = markerFault
    }

    private init(_ marker: StoreMarker, meta: StoreMeta?, logs: [UInt64: Int]) {
        self.init(store: marker.store)
        guard let meta, meta.store != marker.store else { return }
        if logs[marker.store] != nil {
            self.isIndexForeign = true
        } else {
            self.store = meta.store
            self.markerFault =
                "it names the store \(String(marker.store, radix: 16)), but the index is that of the store "
                + String(meta.store, radix: 16)
        }
    }

    /// The stores that whole frames at the start of segments belong to, and how many say so.
    private static func storesInLog(_ directory: any StorageDirectory) throws(StalkError) -> [UInt64: Int] {
        var stores: [UInt64: Int] = [:]
        for name in try directory.list(Segment.directory) {
            guard let number = Segment.number(inName: name) else { continue }
            let file = try directory.open(Segment.path(number), .readOnly)
            if let store = try FrameHeader.storeOfFirstFrame(in: file) { stores[store, default: 0] += 1 }
        }
        return stores
    }
}
