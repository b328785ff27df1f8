// Unix sockets below a directory: how processes of one machine reach each other.

internal import CStalkSystem
internal import Glibc
package import StalkCore

/// One end of a connection; closed when it is released, and in children that are forked.
package final class LocalSocket: Sendable {
    /// The process at the other end, when the connection was made.
    package let peer: Int32
    /// The user at the other end.
    package let peerUser: UInt32
    /// For those who poll it beside others.
    package let number: Int32

    init?(owning number: Int32) {
        var (process, user) = (Int32(0), UInt32(0))
        guard CStalkSystem_peer(number, &process, &user) == 0, CStalkSystem_closeInChildren(number) == 0 else {
            close(number)
            return nil
        }
        (self.number, self.peer, self.peerUser) = (number, process, user)
    }

    deinit {
        CStalkSystem_keepInChildren(self.number)
        close(self.number)
    }

    /// What came of a transfer.
    package enum Transfer: Hashable, Sendable {
        case bytes(Int)
        /// Nothing now: poll again.
        case later
        /// The connection is over.
        case ended
    }

    /// Takes bytes that have arrived; never waits.
    package func receive(into buffer: UnsafeMutableRawBufferPointer) -> Transfer {
        let count = retryingInterrupts { CStalkSystem_receive(self.number, buffer.baseAddress, buffer.count) }
        if count > 0 { return .bytes(count) }
        return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? .later : .ended
    }

    /// Sends as much as goes now; never waits.
    package func send(_ bytes: UnsafeRawBufferPointer) -> Transfer {
        let count = retryingInterrupts { CStalkSystem_send(self.number, bytes.baseAddress, bytes.count) }
        if count >= 0 { return .bytes(count) }
        return errno == EAGAIN || errno == EWOULDBLOCK ? .later : .ended
    }

    /// Ends the connection for whoever waits for it at either end.
    package func end() {
        _ = shutdown(self.number, Int32(SHUT_RDWR))
    }
}

/// A socket that others connect to; closed when it is released, and in children that are forked.
package final class LocalListener: Sendable {
    /// For those who poll it beside others.
    package let number: Int32

    init?(owning number: Int32) {
        guard CStalkSystem_closeInChildren(number) == 0 else {
            close(number)
            return nil
        }
        self.number = number
    }

    deinit {
        CStalkSystem_keepInChildren(self.number)
        close(self.number)
    }

    /// The next one who wants to connect; `nil` when nobody does now, or when no descriptor is left for one.
    package func accept() -> LocalSocket? {
        let number = retryingInterrupts { CStalkSystem_acceptLocal(self.number) }
        return number < 0 ? nil : LocalSocket(owning: number)
    }
}

/// What to wait for at one descriptor.
package struct SocketWait {
    /// The descriptor.
    package var number: Int32
    package var reads: Bool
    package var writes: Bool
    /// Whether there is something to read, or the end of it.
    package private(set) var canRead = false
    package private(set) var canWrite = false

    package init(_ number: Int32, reads: Bool, writes: Bool = false) {
        (self.number, self.reads, self.writes) = (number, reads, writes)
    }

    /// Blocks until one of them can go on.
    ///
    /// - Parameters:
    ///   - waits: What to wait for; says afterwards what can go on.
    ///   - milliseconds: How long at most; negative for ever.
    package static func wait(for waits: inout [SocketWait], milliseconds: Int32) {
        var polls = waits.map { wait in
            pollfd(
                fd: wait.number,
                events: Int16((wait.reads ? POLLIN : 0) | (wait.writes ? POLLOUT : 0)),
                revents: 0
            )
        }
        guard poll(&polls, nfds_t(polls.count), milliseconds) > 0 else { return }
        for (position, poll) in polls.enumerated() {
            let isOver = Int32(poll.revents) & (POLLHUP | POLLERR | POLLNVAL) != 0
            waits[position].canRead = Int32(poll.revents) & POLLIN != 0 || isOver
            waits[position].canWrite = Int32(poll.revents) & POLLOUT != 0 || isOver
        }
    }
}

extension RealDirectory {
    /// Lets others connect below this directory.
    ///
    /// What another process left at the place is replaced, so its caller must be the only one who may listen there.
    ///
    /// - Parameter name: A name in a subdirectory that is there.
    package func listen(at name: String) throws(StalkError) -> LocalListener {
        let shown = "\(self.path)/\(name)"
        let place = try Place(of: name, below: self.descriptor.number, shown: shown)
        let temporary = "\(place.name).new"
        _ = unlinkat(place.directory, temporary, 0)
        let number = CStalkSystem_listenLocal(place.directory, temporary)
        guard number >= 0 else { throw StalkError(systemCall: "bind", path: shown, errno: errno) }
        guard let listener = LocalListener(owning: number) else { throw tooManySockets(shown) }
        guard renameat(place.directory, temporary, place.directory, place.name) == 0 else {
            throw StalkError(systemCall: "renameat", path: shown, errno: errno)
        }
        return listener
    }

    /// Connects to whoever listens at a place below this directory; `nil` when nobody does now.
    package func connect(to name: String) throws(StalkError) -> LocalSocket? {
        let shown = "\(self.path)/\(name)"
        do throws(StalkError) {
            let place = try Place(of: name, below: self.descriptor.number, shown: shown)
            return try Self.connect(to: place, shown: shown)
        } catch {
            // Nobody has ever listened there.
            guard error.code == .noSuchStore else { throw error }
            return nil
        }
    }

    private static func connect(to place: borrowing Place, shown: String) throws(StalkError) -> LocalSocket? {
        let number = retryingInterrupts { CStalkSystem_connectLocal(place.directory, place.name) }
        guard number >= 0 else {
            if [ENOENT, ECONNREFUSED, EAGAIN, ECONNRESET].contains(errno) { return nil }
            throw StalkError(systemCall: "connect", path: shown, errno: errno)
        }
        guard let socket = LocalSocket(owning: number) else { throw tooManySockets(shown) }
        return socket
    }

    /// Takes a lock that several may hold, for as long as it lives.
    ///
    /// - Parameter name: The file; it is made when it is missing.
    /// - Returns: The lock, or `nil` when somebody has the file for himself.
    package func lockShared(_ name: String) throws(StalkError) -> DirectoryLock? {
        let shown = "\(self.path)/\(name)"
        let descriptor = try self.lockFile(name)
        guard retryingInterrupts({ CStalkSystem_lockShared(descriptor.number) }) == 0 else {
            guard errno == EWOULDBLOCK else { throw StalkError(systemCall: "flock", path: shown, errno: errno) }
            return nil
        }
        return DirectoryLock(descriptor: descriptor)
    }

    /// Takes a lock on a file, made when it is missing, for itself alone, and leaves what is in the file.
    ///
    /// - Returns: `nil` when somebody has it.
    package func lockAlone(_ name: String) throws(StalkError) -> DirectoryLock? {
        let descriptor = try self.lockFile(name)
        do throws(StalkError) {
            return try self.lock(descriptor, shown: "\(self.path)/\(name)")
        } catch {
            guard error.code == .storeBusy else { throw error }
            return nil
        }
    }

    /// Whether anybody holds a lock on a file.
    package func isLocked(_ name: String) throws(StalkError) -> Bool {
        let shown = "\(self.path)/\(name)"
        let descriptor = try Descriptor(below: self.descriptor.number, name, flags: O_RDWR, mode: 0, shown: shown)
        guard retryingInterrupts({ CStalkSystem_lockExclusive(descriptor.number) }) == 0 else {
            guard errno == EWOULDBLOCK else { throw StalkError(systemCall: "flock", path: shown, errno: errno) }
            return true
        }
        return false
    }

    /// What a lock's owner noted in it; `nil` when it can't be read.
    package func lockNote(_ name: String) -> String? {
        guard
            let descriptor = try? Descriptor(below: self.descriptor.number, name, flags: O_RDONLY, mode: 0, shown: name)
        else { return nil }
        var text = [UInt8](repeating: 0, count: 64)
        let count = pread(descriptor.number, &text, text.count, 0)
        return String(decoding: text[..<max(count, 0)], as: UTF8.self)
    }
}

private func tooManySockets(_ path: String) -> StalkError {
    StalkError(.unavailable, "Too many connections are open in this process to make one at \(path): close some.")
}
