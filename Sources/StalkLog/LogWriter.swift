// Appending frames: one write and one sync for everybody who waits.

package import StalkCore
internal import StalkFiles

/// Appends sealed frames to the active segment.
///
/// It belongs to the writer thread. The first write or sync that fails is the last one that is tried: on ext4 and XFS a
/// second fdatasync after an EIO returns 0 while the disk holds the old bytes.
package struct LogWriter: Sendable {
    private let store: UInt64
    private var active: Segment
    private var offset: Int
    /// The last frame that is known to be synced.
    package private(set) var syncedThrough: UInt64
    /// The last frame that was written.
    package private(set) var writtenThrough: UInt64
    private var failure: StalkError?

    /// Begins in a segment, as a rule at the start of a fresh one.
    ///
    /// - Parameters:
    ///   - store: The store's number.
    ///   - segment: A preallocated segment.
    ///   - offset: Where to begin; nothing that could be taken for a frame may stand behind it.
    ///   - last: The last frame of the log so far; it must be synced.
    package init(store: UInt64, segment: Segment, at offset: Int = 0, after last: UInt64) {
        self.store = store
        self.active = segment
        self.offset = offset
        self.syncedThrough = last
        self.writtenThrough = last
    }

    /// Seals a frame and writes it.
    ///
    /// - Parameters:
    ///   - frame: The frame, its first 64 bytes free.
    ///   - sequence: Its number, one after the last.
    ///   - storeTime: The store's clock, in milliseconds.
    ///   - next: The segment to go on in, when the active one has no room left.
    /// - Throws: ``StalkError``; after that, every call throws the same.
    package mutating func append(
        _ frame: inout [UInt8],
        sequence: UInt64,
        storeTime: Int64,
        rollingTo next: Segment?
    ) throws(StalkError) {
        if let failure = self.failure { throw failure }
        precondition(sequence == self.writtenThrough + 1, "frames are numbered without gaps")
        if let next {
            // What stands in the segment that is left must not depend on a sync of the next one.
            try self.sync()
            self.active = next
            self.offset = 0
        }
        let header = FrameHeader(
            payloadBytes: frame.count - FrameHeader.byteCount,
            segment: self.active.number,
            sequence: sequence,
            syncedThrough: self.syncedThrough,
            storeTime: storeTime,
            store: self.store
        )
        header.seal(&frame)
        do throws(StalkError) {
            try self.active.file.write(frame, at: self.offset)
        } catch {
            throw self.fail(error)
        }
        self.offset += header.paddedBytes
        self.writtenThrough = sequence
    }

    /// Returns once everything that was appended survives a power cut.
    ///
    /// - Throws: ``StalkError``; after that, every call throws the same.
    package mutating func sync() throws(StalkError) {
        if let failure = self.failure { throw failure }
        guard self.syncedThrough < self.writtenThrough else { return }
        do throws(StalkError) {
            try self.active.file.sync()
        } catch {
            throw self.fail(error)
        }
        self.syncedThrough = self.writtenThrough
    }

    private mutating func fail(_ cause: StalkError) -> StalkError {
        let failure = StalkError(
            .storageFailed,
            "Writing the log failed, so the store accepts nothing more: what was acknowledged is safe. "
                + "Check the disk, then open the store again.",
            cause: cause
        )
        self.failure = failure
        return failure
    }
}
