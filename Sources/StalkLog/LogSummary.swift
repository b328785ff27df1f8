// What reading the log gives: frames, where they stand, and what is wrong with it.

package import StalkCore

/// A whole frame, read back.
package struct Frame: Sendable {
    package var header: FrameHeader
    /// Its records, undecoded.
    package var payload: [UInt8]
    /// Where it stands.
    package var place: LogPlace

    package init(header: FrameHeader, payload: [UInt8], place: LogPlace) {
        self.header = header
        self.payload = payload
        self.place = place
    }

    /// Goes over the records.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged`` or ``StalkError/Code/newerFormat``, or what the
    ///   body throws.
    package func forEachRecord(_ body: (LogRecord) throws(StalkError) -> Void) throws(StalkError) {
        let result: Result<Void, StalkError> = self.payload.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            do throws(StalkError) {
                while reader.remaining > 0 {
                    let record: LogRecord
                    do throws(LogRecord.Unreadable) {
                        record = try LogRecord(reading: &reader)
                    } catch {
                        throw self.unreadable(error)
                    }
                    try body(record)
                }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func unreadable(_ why: LogRecord.Unreadable) -> StalkError {
        switch why {
        case .malformed:
            StalkError(.storeDamaged, "\(self.place): a record contradicts itself although its checksum holds.")
        case .unknown(let kind, let flags):
            StalkError(
                .newerFormat,
                "\(self.place): a record of kind \(kind) with flags \(flags) was written by a newer version of Stalk: "
                    + "open the store with that version. Nothing was changed."
            )
        }
    }
}

/// A place in the log.
package struct LogPlace: Hashable, Sendable, CustomStringConvertible {
    package var segment: UInt64
    package var offset: Int

    package init(segment: UInt64, offset: Int) {
        self.segment = segment
        self.offset = offset
    }

    package var description: String { "\(Segment.path(self.segment)) at byte \(self.offset)" }
}

/// Damage that no crash can cause.
package struct LogDamage: Hashable, Sendable {
    package var place: LogPlace
    /// How many bytes can't be read.
    package var bytes: Int
    package var what: String
}

/// What reading the log found besides its frames.
package struct LogSummary: Hashable, Sendable {
    /// The number of the last frame, or of the last one that LMDB holds.
    package var lastSequence: UInt64
    /// The highest number of any file of the log; 0 without one.
    package var lastSegment: UInt64
    /// The latest reading of the store's clock in any frame.
    package var storeTime: Int64
    package var frames = 0
    /// The segments that hold frames which LMDB lacks.
    package var liveSegments: Set<UInt64> = []
    /// Where the last frame ends, unless LMDB holds all of them.
    package var end: LogPlace?
    /// Bytes behind the last frame that a crash had left: half written, or whole behind one that is not.
    package var tornBytes = 0
    /// Damage that was passed over, with quarantine.
    package var damage: [LogDamage] = []
}
