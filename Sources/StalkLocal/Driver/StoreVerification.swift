// Checking every checksum of a store that nobody has open.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog

/// Reads a store from end to end and changes nothing.
struct StoreVerification {
    let path: String
    let progress: (@Sendable (Int, Int) -> Void)?

    /// Checks the store; blocks.
    func run() throws(StalkError) -> VerifyReport {
        let directory: RealDirectory
        do throws(StalkError) {
            directory = try RealDirectory(path: self.path, createIfMissing: false)
        } catch {
            throw error.code == .noSuchStore ? StoreOpening.noStore(at: self.path) : error
        }
        guard let marker = try StoreMarker.read(in: directory) else {
            throw StoreOpening.noStore(at: self.path)
        }
        let lock = try directory.lock(StoreOpening.lockName)
        defer { _ = lock }
        var report = VerifyReport(frames: 0, records: 0, messages: 0, tornBytes: 0, problems: [])
        let settled = self.verifyTables(marker, &report)
        try self.verifyLog(directory, marker, settled: settled, &report)
        return report
    }

    private func verifyTables(_ marker: StoreMarker, _ report: inout VerifyReport) -> UInt64 {
        do throws(StalkError) {
            let tables = try SettledTables(
                SettledTables.openLMDB(
                    path: "\(self.path)/\(StoreRecovery.indexDirectory)",
                    createIfMissing: false
                ),
                maxBodyBytes: 1 << 30
            )
            defer { tables.index.close() }
            let meta = try tables.readMeta()
            let total = try tables.messageCount()
            let (messages, problems) = try tables.verify { done in self.progress?(done, total) }
            report.messages = messages
            report.problems += problems
            if let meta, meta.store != marker.store {
                report.problems.append(
                    VerifyReport.Problem(file: "index/data.mdb", offset: nil, what: "it belongs to another store")
                )
            }
            return meta?.settledFrame ?? 0
        } catch {
            let isMissing = error.code == .noSuchStore || error.code == .notAStore
            report.problems.append(
                VerifyReport.Problem(
                    file: "index/data.mdb",
                    offset: nil,
                    what: isMissing ? "it is missing" : error.message
                )
            )
            return 0
        }
    }

    private func verifyLog(
        _ directory: RealDirectory,
        _ marker: StoreMarker,
        settled: UInt64,
        _ report: inout VerifyReport
    ) throws(StalkError) {
        if try directory.list(Segment.directory).isEmpty {
            report.problems.append(VerifyReport.Problem(file: "log", offset: nil, what: "it is missing or empty"))
        }
        let reader = LogReader(directory: directory, store: marker.store, settled: settled, fromDisk: false)
        var problems: [VerifyReport.Problem] = []
        var records = 0
        let summary = try reader.read { damage in
            problems.append(
                VerifyReport.Problem(
                    file: Segment.path(damage.place.segment),
                    offset: damage.place.offset,
                    what: "\(damage.what) \(damage.bytes) bytes are affected."
                )
            )
        } _: { frame throws(StalkError) in
            do throws(StalkError) {
                try frame.forEachRecord { _ in records += 1 }
            } catch {
                guard error.code == .storeDamaged else { throw error }
                problems.append(
                    VerifyReport.Problem(
                        file: Segment.path(frame.place.segment),
                        offset: frame.place.offset,
                        what: error.message
                    )
                )
            }
        }
        report.frames = summary.frames
        report.records = records
        report.tornBytes = summary.tornBytes
        report.problems += problems
    }
}
