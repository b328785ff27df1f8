// The files by which the processes of a store find each other.

internal import StalkCore
internal import StalkFiles

/// The directory `sharing` of a store: the owner's socket, and a file for the clients of each owner.
///
/// Each client holds a shared lock on the file of the owner that serves it. The system gives it back when the process
/// ends, however it ends, so a new owner knows whether anybody may still come back for what he works on.
struct SharingPlace: Sendable {
    static let directory = "sharing"
    private static let socket = "\(Self.directory)/socket"
    /// What the lock file says behind the number of an owner that serves others.
    private static let note = "sharing"

    let store: RealDirectory

    init(_ store: RealDirectory) {
        self.store = store
    }

    private static func clientsName(_ epoch: UInt32) -> String { "clients-\(epoch)" }

    // MARK: For the owner

    /// Lets others connect; only the owner of the store may.
    func listen() throws(StalkError) -> LocalListener {
        try self.store.makeDirectory(Self.directory)
        return try self.store.listen(at: Self.socket)
    }

    /// Takes the socket's name away; only the owner may.
    func withdraw() {
        try? self.store.remove(Self.socket)
    }

    /// Whether processes that an earlier owner served are neither gone nor with this one.
    func hasClients(besides epoch: UInt32) throws(StalkError) -> Bool {
        let own = Self.clientsName(epoch)
        var hasClients = false
        for name in try self.store.list(Self.directory) where name.hasPrefix("clients-") && name != own {
            if try self.store.isLocked("\(Self.directory)/\(name)") {
                hasClients = true
            } else {
                try? self.store.remove("\(Self.directory)/\(name)")
            }
        }
        return hasClients
    }

    /// Says in the lock file that this owner serves others.
    func announce(_ lock: DirectoryLock) { lock.note(Self.note) }

    // MARK: For clients

    /// A connection to the owner; `nil` when nobody listens now.
    func connect() throws(StalkError) -> LocalSocket? { try self.store.connect(to: Self.socket) }

    /// Says that this process is served by an owner, for as long as the result lives.
    func joinClients(of epoch: UInt32) throws(StalkError) -> DirectoryLock? {
        try self.store.lockShared("\(Self.directory)/\(Self.clientsName(epoch))")
    }

    /// Whether the owner serves others, or is about to.
    func isAnnounced() -> Bool {
        self.store.lockNote(StoreOpening.lockName)?.contains(Self.note) ?? false
    }
}
