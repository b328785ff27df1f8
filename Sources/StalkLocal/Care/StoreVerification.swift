// Checking every byte of a store that nobody has open.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex

/// Reads a store from end to end and changes nothing.
struct StoreVerification {
    let path: String
    let progress: (@Sendable (Int, Int) -> Void)?
    /// Whether LMDB reads the index too when its pages are damaged, which can crash the process.
    var lmdbReadsDamage = false
    /// Called with what was found before LMDB reads anything.
    var onReport: (@Sendable (VerifyReport) -> Void)?
    /// Called with the table that LMDB reads, and the rows of it that were read.
    var onTable: (@Sendable (String, Int) -> Void)?

    /// Checks the store; blocks.
    func run() throws(StalkError) -> VerifyReport {
        let directory = try Self.open(self.path)
        let lock = try directory.lockUnchanged(StoreOpening.lockName)
        defer { _ = lock }
        let progress = self.progress
        let examination = try StoreExamination(directory) { done, total in progress?(done, total) }
        var report = examination.report
        self.onReport?(report)
        guard !examination.index.isMissing, examination.index.isStructureSound || self.lmdbReadsDamage else {
            return report
        }
        do throws(StalkError) {
            try self.readByLMDB()
        } catch {
            // What the pages say already is not said twice.
            guard examination.index.isStructureSound else { return report }
            report.problems.append(
                VerifyReport.Problem(file: IndexExamination.file, offset: nil, what: error.message)
            )
        }
        return report
    }

    static func open(_ path: String) throws(StalkError) -> RealDirectory {
        do throws(StalkError) {
            return try RealDirectory(path: path, createIfMissing: false)
        } catch {
            throw error.code == .noSuchStore ? StoreOpening.noStore(at: path) : error
        }
    }

    /// Lets LMDB itself read every value of every table.
    private func readByLMDB() throws(StalkError) {
        let index = try Environment(
            path: "\(self.path)/\(StoreRecovery.indexDirectory)",
            mapBytes: 1 << 30,
            tables: SettledTables.names,
            createIfMissing: false,
            isReadOnly: true
        )
        defer { index.close() }
        for name in SettledTables.names {
            self.onTable?(name, 0)
            var rows = 0
            let count = {
                rows += 1
                if rows.isMultiple(of: 1024) { self.onTable?(name, rows) }
                return ScanStep.next
            }
            try index.read { transaction throws(StalkError) in
                try transaction.scan(index.table(name)) { _, _ in
                    count()
                } onCorrupt: { _, _ in
                    count()
                }
            }
        }
    }
}
