// The care of a store: checking and mending it.

internal import StalkCore

extension LocalStore {
    /// Checks every byte of the log and of the index in a store that nobody has open; changes nothing.
    ///
    /// It runs in this process. The index's pages are checked one by one without LMDB first, and LMDB is only given a
    /// file in which nothing is wrong with them, since it can crash on damaged ones. The command `stalk verify` lets LMDB
    /// read a damaged file too, in a process of its own, and reports how that ends.
    ///
    /// - Parameters:
    ///   - path: The store's directory.
    ///   - progress: Called now and then with the messages checked and the messages in all.
    /// - Returns: What is whole and what is damaged.
    /// - Throws: ``StalkError``: ``StalkError/Code/storeBusy`` when somebody has it open,
    ///   ``StalkError/Code/noSuchStore``, ``StalkError/Code/notAStore``, ``StalkError/Code/newerFormat``.
    public static func verify(
        at path: String,
        progress: (@Sendable (Int, Int) -> Void)? = nil
    ) async throws -> VerifyReport {
        try await onOwnThread("stalk-verify") { () throws(StalkError) in
            try StoreVerification(path: path, progress: progress).run()
        }
    }

    /// Checks a store as ``verify(at:progress:)``, then lets LMDB read the index whatever its pages look like.
    ///
    /// That can crash the process: it is for a process that was started for nothing else.
    ///
    /// - Parameters:
    ///   - path: The store's directory.
    ///   - progress: Called now and then with the messages checked and the messages in all.
    ///   - onReport: Called with what was found before LMDB reads anything.
    ///   - onTable: Called with the name of the table that LMDB reads, and the rows of it that were read.
    package static func verifyInOwnProcess(
        at path: String,
        progress: @escaping @Sendable (Int, Int) -> Void,
        onReport: @escaping @Sendable (VerifyReport) -> Void,
        onTable: @escaping @Sendable (String, Int) -> Void
    ) async throws -> VerifyReport {
        try await onOwnThread("stalk-verify") { () throws(StalkError) in
            try StoreVerification(
                path: path,
                progress: progress,
                lmdbReadsDamage: true,
                onReport: onReport,
                onTable: onTable
            ).run()
        }
    }

    /// Says what is damaged in a store that nobody has open, and mends it when told to.
    ///
    /// What can't be read is taken out and kept in `damaged/`, with a description; nothing is thrown away. Messages that
    /// are whole stay. Afterwards the store is intact and opens with ``LocalStoreOptions/DamagePolicy/refuse``. A repair
    /// that is killed can be repeated; repairing an intact store changes nothing. `docs/operations.md` says what is done
    /// about which damage.
    ///
    /// A new index is made beside a damaged one, so that there must be room for it.
    ///
    /// - Parameters:
    ///   - path: The store's directory.
    ///   - apply: Whether to mend it. Without it not a byte is changed.
    ///   - progress: Called now and then with the messages read and the messages in all.
    /// - Returns: What is damaged, and what was or would be done about it.
    /// - Throws: ``StalkError``: ``StalkError/Code/storeBusy`` when somebody has it open,
    ///   ``StalkError/Code/noSuchStore``, ``StalkError/Code/notAStore``, ``StalkError/Code/newerFormat``,
    ///   ``StalkError/Code/storageFull`` when there is no room for the new index.
    @discardableResult
    public static func repair(
        at path: String,
        apply: Bool,
        progress: (@Sendable (Int, Int) -> Void)? = nil
    ) async throws -> RepairReport {
        try await onOwnThread("stalk-repair") { () throws(StalkError) in
            let repair = StoreRepair(path: path, progress: progress)
            return apply ? try repair.apply() : try repair.plan()
        }
    }
}
