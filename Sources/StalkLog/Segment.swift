// A segment is one file of the log, preallocated, used from its beginning, and used again under a new number.

internal import StalkCore
package import StalkFiles

/// An open segment of the log.
package struct Segment: Sendable {
    /// Where segments stand in a store.
    package static var directory: String { "log" }

    /// Sizes of segments are multiples of this.
    package static var sizeUnit: Int { 4096 }

    /// Its number; numbers ascend and are never used twice.
    package var number: UInt64
    package var file: any StorageFile

    package init(number: UInt64, file: any StorageFile) {
        self.number = number
        self.file = file
    }

    /// The path of a segment in a store: sixteen hexadecimal digits, so that names sort by number.
    package static func path(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return "\(Self.directory)/\(String(repeating: "0", count: 16 - digits.count))\(digits).log"
    }

    /// The number in the name of a segment, or `nil` for another file.
    package static func number(inName name: String) -> UInt64? {
        guard name.utf8.count == 20, name.hasSuffix(".log"), let number = UInt64(name.dropLast(4), radix: 16),
            Self.path(number) == "\(Self.directory)/\(name)"
        else { return nil }
        return number
    }
}
