// The one error type of every target: what happened, what to do, why, and where.

/// An error of Stalk: a code to switch on, a sentence that says what happened and what to do, its cause and its place.
public struct StalkError: Error, Sendable {
    /// What kind of failure this is.
    ///
    /// New codes may be added: switch with a default.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Value: String {
            case invalidArgument, invalidQueueName, bodyTooLarge, delayOutOfRange, unsupported
            case noSuchQueue, noSuchMessage, messageLeased, staleReceipt, foreignReceipt
            case storageFull, storageFailed, storeBusy, storeDamaged, newerFormat, notAStore, noSuchStore,
                networkFileSystem
            case permissionDenied, pathTooLong, addressInUse, closed, unavailable, throttled, corruptValue, interrupted
        }

        private let value: Value

        private init(_ value: Value) {
            self.value = value
        }

        /// The code with a name, as ``description`` gives it; `nil` when no code of this version has it.
        package init?(named name: String) {
            guard let value = Value(rawValue: name) else { return nil }
            self.value = value
        }

        /// The code's name, as written in Swift.
        public var description: String { self.value.rawValue }

        /// An argument has no meaning: a negative delay, a lease of zero, a batch over the limit.
        public static var invalidArgument: Code { Code(.invalidArgument) }
        /// A queue name breaks the naming rule; the message names the byte.
        public static var invalidQueueName: Code { Code(.invalidQueueName) }
        /// A body (or its headers) is over the limit; nothing was written.
        public static var bodyTooLarge: Code { Code(.bodyTooLarge) }
        /// A delay is negative or longer than the collector can keep.
        public static var delayOutOfRange: Code { Code(.delayOutOfRange) }
        /// The collector can't do this; its capabilities say so.
        public static var unsupported: Code { Code(.unsupported) }
        /// The store holds no queue of this name.
        public static var noSuchQueue: Code { Code(.noSuchQueue) }
        /// The store holds no message with this id.
        public static var noSuchMessage: Code { Code(.noSuchMessage) }
        /// Somebody works on the message, so it can't be changed by hand.
        public static var messageLeased: Code { Code(.messageLeased) }
        /// The receipt's lease is over: the message may have gone to somebody else.
        public static var staleReceipt: Code { Code(.staleReceipt) }
        /// The receipt was issued by another store or collector.
        public static var foreignReceipt: Code { Code(.foreignReceipt) }
        /// The disk or a quota is full; what is stored stays, and finishing messages still works.
        public static var storageFull: Code { Code(.storageFull) }
        /// A write or sync failed: the store accepts nothing more until it is opened again.
        public static var storageFailed: Code { Code(.storageFailed) }
        /// Another process owns the store.
        public static var storeBusy: Code { Code(.storeBusy) }
        /// The store holds damage that no crash can cause; nothing was changed.
        public static var storeDamaged: Code { Code(.storeDamaged) }
        /// The store was written by a newer version; nothing was changed.
        public static var newerFormat: Code { Code(.newerFormat) }
        /// The place is a file, or a directory of another program.
        public static var notAStore: Code { Code(.notAStore) }
        /// There is no store at this place, and it was not to be made.
        public static var noSuchStore: Code { Code(.noSuchStore) }
        /// The place is on a network file system, where locks and syncs can't be trusted.
        public static var networkFileSystem: Code { Code(.networkFileSystem) }
        /// The operating system refused access.
        public static var permissionDenied: Code { Code(.permissionDenied) }
        /// A path is longer than the system allows.
        public static var pathTooLong: Code { Code(.pathTooLong) }
        /// Somebody else listens at the address.
        public static var addressInUse: Code { Code(.addressInUse) }
        /// The store or collector was closed.
        public static var closed: Code { Code(.closed) }
        /// The backend can't be reached now; trying again later can help.
        public static var unavailable: Code { Code(.unavailable) }
        /// The backend works and asks for less: trying again more slowly helps.
        public static var throttled: Code { Code(.throttled) }
        /// One stored value failed its checksum; it is set aside and the rest goes on.
        public static var corruptValue: Code { Code(.corruptValue) }
        /// The call was cut short; its message says how far it came.
        public static var interrupted: Code { Code(.interrupted) }
    }

    /// Where in the source the error was made.
    public struct Location: Hashable, Sendable {
        /// The file, as `Module/File.swift`.
        public var file: String
        /// The line, from 1.
        public var line: Int
    }

    /// The kind of failure.
    public var code: Code
    /// What happened and what to do about it: one or two sentences for a person.
    public var message: String
    /// The error underneath, if there is one.
    public var cause: (any Error)?
    /// Where in the source the error was made.
    public var location: Location

    /// Makes an error.
    ///
    /// - Parameters:
    ///   - code: The kind of failure.
    ///   - message: What happened and what to do about it.
    ///   - cause: The error underneath.
    ///   - file: The file it is made in.
    ///   - line: The line it is made on.
    public init(
        _ code: Code,
        _ message: String,
        cause: (any Error)? = nil,
        file: String = #fileID,
        line: Int = #line
    ) {
        self.code = code
        self.message = message
        self.cause = cause
        self.location = Location(file: file, line: line)
    }
}

extension StalkError: CustomStringConvertible {
    /// The code and the message, and what caused it.
    public var description: String {
        let head = "\(self.code): \(self.message)"
        guard let cause = self.cause else { return head }
        return "\(head) (cause: \(cause))"
    }

    /// The description with the place it came from, for logs and bug reports.
    public var detailedDescription: String {
        "\(self.description) [\(self.location.file):\(self.location.line)]"
    }
}
