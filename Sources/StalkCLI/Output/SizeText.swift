// Sizes as people write and read them.

internal import StalkCore

/// Reads a size: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`.
///
/// - Parameter text: For instance `64KiB` or `10MB`.
/// - Returns: The size in bytes.
/// - Throws: ``StalkError`` with `invalidArgument` when the unit is missing or unknown, or the number too large.
func parseSize(_ text: String) throws(StalkError) -> Int {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let unit = String(text.dropFirst(digits.count))
    guard let number = Int(digits), let factor = sizeUnits.first(where: { $0.name == unit })?.bytes else {
        let hint = !digits.isEmpty && unit.isEmpty ? "it needs a unit" : "it is not a size"
        throw StalkError(
            .invalidArgument,
            "Can't read \(quoted(text)): \(hint). Write for instance 512B, 64KiB or 10MB."
        )
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: factor)
    guard !overflow else { throw StalkError(.invalidArgument, "The size \(quoted(text)) is too large.") }
    return bytes
}

/// A size for a person: three digits or so, in powers of 1024.
func sizeText(_ bytes: Int) -> String {
    guard bytes >= 1024 else { return "\(bytes) B" }
    var (value, unit) = (Double(bytes) / 1024, 0)
    let units = ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1024, unit < units.count - 1 {
        value /= 1024
        unit += 1
    }
    let tenths = Int((value * 10).rounded())
    return tenths < 1000 ? "\(tenths / 10).\(tenths % 10) \(units[unit])" : "\((tenths + 5) / 10) \(units[unit])"
}

private let sizeUnits: [(name: String, bytes: Int)] = [
    ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40),
    ("kB", 1000), ("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
]
