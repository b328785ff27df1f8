internal import Glibc
public import StalkCore
internal import StalkFiles

/// A kind of call that a ``SimulatedDisk`` counts and can let fail.
public enum DiskOperation: Hashable, Sendable, CaseIterable {
    /// Opening or creating a file.
    case open
    /// Listing a directory.
    case list
    /// Making a directory.
    case makeDirectory
    /// Renaming a file.
    case rename
    /// Removing a file.
    case remove
    /// Making the names in a directory durable.
    case syncDirectory
    /// Asking for a file's size.
    case size
    /// Reading from a file.
    case read
    /// Writing to a file.
    case write
    /// Making a file's data durable.
    case sync
    /// Filling a new file with zeros.
    case fillWithZeros
    /// Dropping a file from memory.
    case dropCache
}

/// A failure that a ``SimulatedDisk`` is told to have.
public struct DiskFault: Sendable {
    /// Which calls fail.
    public var operation: DiskOperation
    /// Which of them fails first, counted from 1 for the next one.
    public var call: Int
    /// What it throws.
    public var error: StalkError
    /// Whether all later calls of the kind fail as well.
    public var isLasting: Bool
    /// How many bytes of a failing write, or of a failing fill, reach memory nevertheless.
    public var reachedBytes: Int
    /// Only calls on files of this directory count; `nil` for all calls.
    public var directory: String?

    /// Describes a failure.
    ///
    /// - Parameters:
    ///   - operation: Which calls fail.
    ///   - call: Which of them fails first, counted from 1 for the next one.
    ///   - error: What it throws.
    ///   - isLasting: Whether all later calls of the kind fail as well.
    ///   - reachedBytes: How many bytes of a failing write, or of a failing fill, reach memory nevertheless.
    ///   - directory: Only calls on files of this directory count; `nil` for all calls.
    public init(
        _ operation: DiskOperation,
        call: Int = 1,
        error: StalkError = .deviceFailed,
        isLasting: Bool = false,
        reachedBytes: Int = 0,
        directory: String? = nil
    ) {
        self.operation = operation
        self.call = call
        self.error = error
        self.isLasting = isLasting
        self.reachedBytes = reachedBytes
        self.directory = directory
    }
}

extension StalkError {
    /// What a call throws when the device fails (EIO).
    public static var deviceFailed: StalkError {
        StalkError(systemCall: "a call", path: "the simulated disk", errno: EIO)
    }

    /// What a call throws when the disk is full (ENOSPC).
    public static var diskFull: StalkError {
        StalkError(systemCall: "a call", path: "the simulated disk", errno: ENOSPC)
    }
}
