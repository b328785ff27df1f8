// What gathers for the next group commit.

internal import StalkCore
internal import StalkLog

/// A caller that waits until its records are safe.
struct DurabilityWaiter: Sendable {
    var level: Durability
    var reply: @Sendable (Result<Void, StalkError>) -> Void
}

/// Records that will be written together, and who waits for them.
struct StagedFrame: Sendable {
    /// The frame, its header still free.
    var bytes: ByteWriter
    /// The messages published in it: their numbers follow each other.
    var published: Range<UInt64> = 0..<0
    var waiters: [DurabilityWaiter] = []
    var needsSync = false
    /// Set when the frame is sealed.
    var sequence: UInt64 = 0
    var storeTime: Int64 = 0
    /// The segment to go on in, when the last one has no room left.
    var nextSegment: Segment?

    init(reusing memory: consuming [UInt8] = []) {
        self.bytes = ByteWriter(reusing: memory)
        self.bytes.writeZeros(FrameHeader.byteCount)
    }

    /// Whether there is nothing to write and nobody waits.
    var isEmpty: Bool { self.bytes.count == FrameHeader.byteCount && self.waiters.isEmpty }

    mutating func notePublished(_ sequence: UInt64) {
        self.published = self.published.isEmpty ? sequence..<sequence + 1 : self.published.lowerBound..<sequence + 1
    }
}

/// The room that the log has left, counted when records are staged, so that writing them can't fail for want of it.
struct LogRoom: Sendable {
    let segmentBytes: Int
    /// Publishing leaves a frame at this size; finishing may go on.
    let softFrameBytes: Int
    /// What is left of the active segment behind the frames that were sealed.
    var remaining: Int
    /// Prepared segments, the next one first.
    var spares: [Segment] = []

    init(segmentBytes: Int) {
        self.segmentBytes = segmentBytes
        self.softFrameBytes = min(4 << 20, segmentBytes / 2)
        self.remaining = segmentBytes
    }

    /// Whether a frame of this size can be written.
    func admits(frameBytes: Int) -> Bool {
        guard frameBytes + 8 <= self.segmentBytes else { return false }
        return frameBytes + 8 <= self.remaining || !self.spares.isEmpty
    }

    /// Whether publishing may fill the frame to this size and leave enough for finishing on a full disk: a prepared segment,
    /// or else a quarter of the active one.
    func admitsPublishing(frameBytes: Int) -> Bool {
        guard frameBytes + 8 <= self.segmentBytes else { return false }
        let kept = self.spares.isEmpty ? self.segmentBytes / 4 : 0
        return frameBytes + 8 + kept <= self.remaining || self.spares.count > 1
    }

    /// Takes the room of a frame.
    ///
    /// - Returns: The segment to go on in, when the active one has no room left.
    mutating func consume(frameBytes: Int) -> Segment? {
        let padded = (frameBytes + 7) & ~7
        if padded <= self.remaining {
            self.remaining -= padded
            return nil
        }
        let next = self.spares.removeFirst()
        self.remaining = self.segmentBytes - padded
        return next
    }
}

/// Messages that wait to be published, in whole or in part.
struct PendingPublish: Sendable {
    var queue: QueueName
    var messages: [Message]
    /// When they were published, by the wall clock.
    var publishedAt: Int64
    /// For each message its id, why it was refused, or nothing yet.
    var results: [Result<MessageID, StalkError>?]
    /// The first message that is not staged yet.
    var next = 0
    /// The call of another process that this is, which may be repeated.
    var origin: CallOrigin?
    var durability: Durability
    var reply: @Sendable (Result<[Result<MessageID, StalkError>], StalkError>) -> Void
}
