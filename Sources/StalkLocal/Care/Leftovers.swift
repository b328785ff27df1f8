// What the care of a store can leave behind when it is killed.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex

/// Files that were to take the place of others and never did.
enum Leftovers {
    /// Where repair makes a new index.
    static let workshop = "repair"

    /// Removes them; the store's lock must be held.
    static func remove(in directory: RealDirectory) throws(StalkError) {
        let index = StoreRecovery.indexDirectory
        if try directory.list(index).contains(Environment.replacementName) {
            try directory.remove("\(index)/\(Environment.replacementName)")
        }
        guard try directory.list("").contains(Self.workshop) else { return }
        for name in try directory.list(Self.workshop) where ["data.mdb", "lock.mdb"].contains(name) {
            try directory.remove("\(Self.workshop)/\(name)")
        }
        try directory.removeDirectory(Self.workshop)
    }
}
