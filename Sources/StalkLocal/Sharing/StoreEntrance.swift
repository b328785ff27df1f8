// How a process comes to use a store: as its owner, or through its owner.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkPlatform

/// The way into a store.
struct StoreEntrance: Sendable {
    /// How long an owner may take until it serves, in nanoseconds: opening may have to replay a log.
    static let patience: Int64 = 60_000_000_000

    /// A store that can be used.
    enum Entered: Sendable {
        case owner(OwnedStore, StoreServer?)
        case client(StoreClient, greeted: WireGreeting)
    }

    let opening: StoreOpening
    let book: ClientBook

    private var isShared: Bool { self.opening.options.sharing == .automatic }

    /// Owns the store, or connects to the process that does; blocks.
    ///
    /// - Parameters:
    ///   - isRunning: Asked again and again whether it is still wanted.
    ///   - leave: Run once this process owns the store, before it looks for the clients of the last owner: it is none.
    func enter(
        while isRunning: () -> Bool = { true },
        leave: () -> Void = {}
    ) throws(StalkError) -> Entered {
        let started = SystemStoreClock().bootTime().nanoseconds
        var pause: useconds_t = 500
        while true {
            let busy: StalkError
            do throws(StalkError) {
                return try self.own(leave)
            } catch {
                guard error.code == .storeBusy, self.isShared, isRunning() else { throw error }
                busy = error
            }
            if let client = try self.connect() { return client }
            let waited = SystemStoreClock().bootTime().nanoseconds - started
            // One who owns it for a moment may have just begun, and not have said yet that it serves others.
            guard waited < (self.isAnnounced ? Self.patience : Self.patience / 120) else { throw busy }
            usleep(pause)
            pause = min(2 * pause, 10_000)
        }
    }

    // MARK: As its owner

    private func own(_ leave: () -> Void) throws(StalkError) -> Entered {
        let opened = try self.opening.run { lock, directory in
            if self.isShared { SharingPlace(directory).announce(lock) }
        }
        let owned = OwnedStore(opened)
        guard self.isShared else { return .owner(owned, nil) }
        leave()
        // A store that can't be shared, for want of descriptors for instance, is of use to its owner all the same.
        return .owner(owned, try? StoreServer(owned, at: SharingPlace(opened.directory)))
    }

    // MARK: Through its owner

    private var directory: RealDirectory? { try? RealDirectory(path: self.opening.path, createIfMissing: false) }

    private var isAnnounced: Bool { self.directory.map { SharingPlace($0).isAnnounced() } ?? false }

    private func connect() throws(StalkError) -> Entered? {
        guard let directory = self.directory else { return nil }
        let place = SharingPlace(directory)
        guard let socket = try place.connect() else { return nil }
        guard socket.peerUser == geteuid() || geteuid() == 0 else {
            throw StalkError(
                .permissionDenied,
                "Process \(socket.peer), which owns the store \(self.opening.path), belongs to another user: use a store of "
                    + "your own."
            )
        }
        let greeting = self.book.greeting(at: self.opening.options.clock.bootTime())
        guard let welcome = try self.greet(greeting, on: socket) else { return nil }
        let membership = try place.joinClients(of: welcome.epoch)
        return .client(try StoreClient(socket, welcome, self.book, membership), greeted: greeting)
    }

    /// - Returns: What the owner said; `nil` when it went meanwhile.
    private func greet(_ greeting: WireGreeting, on socket: LocalSocket) throws(StalkError) -> WireWelcome? {
        var writer = ByteWriter()
        WireRequest.greeting(greeting).write(call: self.book.nextCall(), to: &writer)
        let bytes = writer.take()
        var sent = 0
        var assembler = WireAssembler()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        let started = SystemStoreClock().bootTime().nanoseconds
        while true {
            guard SystemStoreClock().bootTime().nanoseconds - started < StoreClient.patience else {
                throw .silentOwner(socket.peer)
            }
            var waits = [SocketWait(socket.number, reads: true, writes: sent < bytes.count)]
            SocketWait.wait(for: &waits, milliseconds: 100)
            if waits[0].canWrite, sent < bytes.count {
                let transfer = bytes.withUnsafeBytes { socket.send(UnsafeRawBufferPointer(rebasing: $0[sent...])) }
                if case .bytes(let count) = transfer { sent += count }
            }
            guard waits[0].canRead else { continue }
            switch buffer.withUnsafeMutableBytes({ socket.receive(into: $0) }) {
            case .later: continue
            case .ended: return nil
            case .bytes(let count):
                buffer.withUnsafeBytes { assembler.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            }
            if let welcome = try self.welcome(from: &assembler) { return welcome }
        }
    }

    private func welcome(from assembler: inout WireAssembler) throws(StalkError) -> WireWelcome? {
        do {
            while let frame = try assembler.next() {
                switch try WireAnswer(frame) {
                case .welcome(let welcome): return welcome
                case .failure(let error): throw error
                // An owner that closes the store gives signs of life before it has heard who is there.
                case .progress: continue
                default: throw Wire.Malformed()
                }
            }
            return nil
        } catch let error as StalkError {
            throw error
        } catch {
            throw StalkError(
                .unsupported,
                "The owner of the store \(self.opening.path) speaks another protocol: use the same version of Stalk in both."
            )
        }
    }
}
