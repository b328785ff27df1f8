// The care of a store: checking it.

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
}
