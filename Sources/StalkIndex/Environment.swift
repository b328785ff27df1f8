// Keeps tables of checked values in LMDB, the checkpointed state of a store: the only module that knows LMDB.
internal import CLMDB
internal import CStalkSystem
internal import Glibc
package import StalkCore

/// The tables of one directory, in one memory-mapped LMDB file with transactions.
///
/// Every commit is synced before it is reported. Reads may come from any thread and see the last commit as it was when
/// they began. Writes are meant to come from one dedicated thread; those of several threads wait for each other.
/// All calls block, and no transaction leaves its closure: LMDB binds it to a thread, so it must never cross an `await`.
// SAFETY: `handle` is read under the map gate, shared or exclusive, and replaced only under its exclusive side;
// `failure` is touched only under the write gate. LMDB's environment itself is made for use by several threads.
package final class Environment: @unchecked Sendable {
    var handle: EnvironmentHandle?
    var failure: StalkError?
    let tables: [String: Table]
    let path: String

    /// Taken whole by a write, for all of its attempts.
    let writeGate = Gate()
    /// Shared by transactions, taken whole to replace the map, which must happen with no transaction open.
    let mapGate = Gate()

    /// Opens the tables of a directory.
    ///
    /// Before anything is mapped, the length of data.mdb is compared with what its meta pages say, and every page that LMDB
    /// uses is checked: LMDB trusts its pages, and can crash on a damaged one. In a file above 64 MiB the leaves are checked
    /// later, before LMDB follows them.
    ///
    /// - Parameters:
    ///   - path: A directory that exists; data.mdb and lock.mdb go into it, with mode 0600.
    ///   - mapBytes: The size of the map to begin with; it grows when it is full.
    ///   - tables: The names of all tables.
    ///   - createIfMissing: Whether to create the file and tables that are not there. Without it they must be there;
    ///     with it an empty file, which a crash during creation can leave behind, counts as missing.
    ///   - isReadOnly: Whether to change nothing at all, lock.mdb included; nobody may have the directory open to write.
    ///   - checkedAtOnce: The largest file whose pages are all checked at once, in bytes: 64 MiB take a tenth of a second.
    ///     `nil` to trust the file, for tests.
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeBusy`` when this process has the directory open already,
    ///   ``StalkError/Code/storeDamaged`` when the file is cut short or its meta pages are damaged,
    ///   ``StalkError/Code/newerFormat``, ``StalkError/Code/notAStore`` when the directory or file is not there,
    ///   ``StalkError/Code/permissionDenied``, ``StalkError/Code/storageFull`` and ``StalkError/Code/storageFailed``.
    package init(
        path: String,
        mapBytes: Int,
        tables: [String],
        createIfMissing: Bool,
        isReadOnly: Bool = false,
        checkedAtOnce: Int? = 64 << 20
    ) throws(StalkError) {
        let handle = try EnvironmentHandle(
            path: path,
            mapBytes: mapBytes,
            tableCount: tables.count,
            access: isReadOnly ? .readOnly : createIfMissing ? .createIfMissing : .existing,
            checkedAtOnce: checkedAtOnce
        )
        _ = try handle.checkReaders()
        self.tables = try handle.openTables(tables, create: createIfMissing)
        self.path = path
        self.handle = handle
    }

    deinit {
        self.close()
    }

    /// The table of this name, which must be one of those given to the initialiser.
    package func table(_ name: String) -> Table {
        guard let table = self.tables[name] else { preconditionFailure("The table \(name) was not opened.") }
        return table
    }

    /// Runs `body` on a snapshot.
    ///
    /// It must not call into this environment again: behind a waiting writer that would hang.
    ///
    /// - Throws: ``StalkError/Code/closed`` after ``close()``; ``StalkError/Code/unavailable`` when too many snapshots
    ///   are open; what `body` throws.
    package func read<R>(
        _ body: (borrowing ReadTransaction) throws(StalkError) -> R
    ) throws(StalkError) -> R {
        for mayRetry in [true, false] {
            let outcome = try self.mapGate.shared { () throws(StalkError) in try self.readOnce(body) }
            switch outcome {
            case .done(let result):
                return result
            case .refused(LMDBCode(rawValue: MDB_READERS_FULL)) where mayRetry:
                try self.checkReaders()
            case .refused(LMDBCode(rawValue: MDB_MAP_RESIZED)) where mayRetry:
                try self.adoptMap()
            case .refused(let code):
                throw .lmdb(code.rawValue, "read the index in \(self.path)")
            }
        }
        preconditionFailure("The second attempt returns or throws.")
    }

    /// Runs `body` in a write transaction: committed and synced when it returns, undone when it throws.
    ///
    /// When the map is too small, the transaction is undone, the map doubled, and `body` run again: what it changes
    /// outside of the transaction must bear that. `body` must not call into this environment.
    ///
    /// - Throws: What `body` throws; ``StalkError/Code/storageFull`` when the disk is full, after which later writes
    ///   may succeed; ``StalkError/Code/storageFailed`` when the disk failed, which every later write throws again;
    ///   ``StalkError/Code/closed`` after ``close()``.
    package func write<R>(
        _ body: (inout WriteTransaction) throws(StalkError) -> R
    ) throws(StalkError) -> R {
        try self.writeGate.exclusive { () throws(StalkError) -> R in
            if let failure = self.failure { throw failure }
            while true {
                let outcome = try self.mapGate.shared { () throws(StalkError) in try self.writeOnce(body) }
                switch outcome {
                case .done(let result): return result
                case .refused(LMDBCode(rawValue: MDB_MAP_FULL)): try self.growMap()
                case .refused(LMDBCode(rawValue: MDB_MAP_RESIZED)): try self.adoptMap()
                case .refused(let code): throw self.failed(code)
                }
            }
        }
    }

    /// Waits for the transactions under way, then closes; later calls throw ``StalkError/Code/closed``.
    ///
    /// Idempotent. Must not be called from inside ``read(_:)`` or ``write(_:)``.
    package func close() {
        do {
            try self.writeGate.exclusive { () throws(StalkError) in
                try self.mapGate.exclusive { () throws(StalkError) in self.handle = nil }
            }
        } catch {
            preconditionFailure("The index was closed from inside one of its transactions: \(error)")
        }
    }

    /// How much room the tables take, and who reads them.
    ///
    /// - Throws: ``StalkError/Code/closed`` after ``close()``.
    /// - Complexity: O(pages that are free), since LMDB keeps no count of them.
    package func statistics() throws(StalkError) -> EnvironmentStatistics {
        try self.withHandle { handle throws(StalkError) in try EnvironmentStatistics(of: handle) }
    }

    /// The bytes of data.mdb; 0 after ``close()``.
    package var fileBytes: Int {
        (try? self.withHandle { handle throws(StalkError) in handle.fileBytes }) ?? 0
    }

    /// How many transactions that changed something were committed in the life of the file; 0 after ``close()``.
    package var commitCount: UInt64 {
        (try? self.withHandle { handle throws(StalkError) in handle.commitCount }) ?? 0
    }

    /// Frees the reader slots that processes left behind when they died, which keep pages from being reused.
    ///
    /// - Returns: How many were freed.
    /// - Throws: ``StalkError/Code/closed`` after ``close()``.
    @discardableResult
    package func checkReaders() throws(StalkError) -> Int {
        try self.withHandle { handle throws(StalkError) in try handle.checkReaders() }
    }
}

extension Environment {
    private enum Outcome<R> {
        case done(R)
        /// LMDB did not begin or commit; the transaction is over.
        case refused(LMDBCode)
    }

    var openHandle: EnvironmentHandle {
        get throws(StalkError) {
            guard let handle = self.handle else {
                throw StalkError(.closed, "The index in \(self.path) is closed; open the store again.")
            }
            return handle
        }
    }

    func withHandle<R>(_ body: (EnvironmentHandle) throws(StalkError) -> R) throws(StalkError) -> R {
        try self.mapGate.shared { () throws(StalkError) in try body(try self.openHandle) }
    }

    /// A function of its own, so that the transaction has ended before the gate opens.
    private func readOnce<R>(
        _ body: (borrowing ReadTransaction) throws(StalkError) -> R
    ) throws(StalkError) -> Outcome<R> {
        let handle = try self.openHandle
        let transaction: ReadTransaction
        do throws(LMDBCode) {
            transaction = try ReadTransaction(handle.pointer, handle.pages)
        } catch {
            return .refused(error)
        }
        return .done(try body(transaction))
    }

    /// A function of its own, so that the transaction has ended before the gate opens.
    private func writeOnce<R>(
        _ body: (inout WriteTransaction) throws(StalkError) -> R
    ) throws(StalkError) -> Outcome<R> {
        let handle = try self.openHandle
        let thread = CStalkSystem_threadID()
        var transaction: WriteTransaction
        do throws(LMDBCode) {
            transaction = try WriteTransaction(handle.pointer, handle.pages)
        } catch {
            return .refused(error)
        }
        let result: R
        do throws(StalkError) {
            result = try body(&transaction)
        } catch {
            // What LMDB said counts, whatever the body made of it.
            if let failure = transaction.failure { return .refused(failure) }
            throw error
        }
        // Whatever the body made of it, what it wanted to change is not there.
        if let damage = transaction.damage { throw damage }
        precondition(thread == CStalkSystem_threadID(), "A write transaction must not change its thread.")
        do throws(LMDBCode) {
            try transaction.commit()
        } catch {
            return .refused(error)
        }
        return .done(result)
    }

    /// The error of a write that LMDB refused for good, kept for all later writes if the disk failed.
    private func failed(_ code: LMDBCode) -> StalkError {
        var error = StalkError.lmdb(code.rawValue, "write to the index in \(self.path)")
        guard error.code == .storageFailed else { return error }
        error.message += " Nothing more can be written until then."
        self.failure = error
        return error
    }

    private func growMap() throws(StalkError) {
        try self.checkReaders()
        try self.mapGate.exclusive { () throws(StalkError) in
            let (mapBytes, overflow) = try self.openHandle.mapBytes.multipliedReportingOverflow(by: 2)
            guard !overflow else { throw .lmdb(MDB_MAP_FULL, "write to the index in \(self.path)") }
            try self.replaceMap(mapBytes)
        }
    }

    /// Takes over the size that another process gave to the map: the store's lock forbids that, but LMDB allows it.
    private func adoptMap() throws(StalkError) {
        try self.mapGate.exclusive { () throws(StalkError) in try self.replaceMap(0) }
    }

    /// Replaces the map; to be called on the exclusive side of the map gate.
    private func replaceMap(_ mapBytes: Int) throws(StalkError) {
        let handle = try self.openHandle
        do {
            try handle.replaceMap(mapBytes)
        } catch {
            // LMDB gives up the old map before it takes the new one, so without it nothing can be read any more.
            if !handle.hasMap { self.handle = nil }
            throw error
        }
    }
}
