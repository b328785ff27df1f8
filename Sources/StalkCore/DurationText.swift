// Durations as people write them, and as counters keep them.

extension Duration {
    /// The duration in whole milliseconds, rounded up, so that nothing is ever early; clamped to what 64 bits hold.
    package var wholeMillisecondsRoundedUp: Int64 {
        // First, since `components` traps where the seconds need more than 64 bits.
        guard self < .milliseconds(Int64.max) else { return .max }
        guard self > .milliseconds(Int64.min) else { return .min }
        let (seconds, attoseconds) = self.components
        let perMilli: Int64 = 1_000_000_000_000_000
        let (whole, rest) = attoseconds.quotientAndRemainder(dividingBy: perMilli)
        return seconds * 1000 + whole + (rest > 0 ? 1 : 0)
    }

    /// Reads a duration as the command line writes it: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
    ///
    /// - Parameter text: For instance `500ms`, `5s`, `2m`, `3h` or `7d`.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument`` when the unit is missing or unknown or the number
    ///   is not a whole one, with ``StalkError/Code/delayOutOfRange`` when it is too large to count.
    public init(stalk text: String) throws(StalkError) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let unit = text.dropFirst(digits.count)
        let millisPerUnit: Int64? =
            switch unit {
            case "ms": 1
            case "s": 1000
            case "m": 60_000
            case "h": 3_600_000
            case "d": 86_400_000
            default: nil
            }
        guard !digits.isEmpty, let millisPerUnit else {
            let hint = !digits.isEmpty && unit.isEmpty ? "it needs a unit" : "it is not a duration"
            throw StalkError(
                .invalidArgument,
                "Can't read \(quoted(text)): \(hint). Write for instance 500ms, 5s, 2m, 3h or 7d."
            )
        }
        guard let (millis, overflow) = Int64(digits)?.multipliedReportingOverflow(by: millisPerUnit), !overflow else {
            throw StalkError(
                .delayOutOfRange,
                "The duration \(quoted(text)) is too long: at most ten years make sense."
            )
        }
        self = .milliseconds(millis)
    }

    /// The duration in the largest unit that divides it, as ``init(stalk:)`` reads it.
    public var stalkText: String {
        let millis = self.wholeMillisecondsRoundedUp
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] as [(String, Int64)]
        where millis != 0 && millis % size == 0 {
            return "\(millis / size)\(unit)"
        }
        return "\(millis)ms"
    }
}
