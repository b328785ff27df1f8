// The dates of HTTP and of credentials.

internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

extension Timestamp {
    /// Reads the `Date` header of RFC 9110: `Sun, 06 Nov 1994 08:49:37 GMT`.
    init?(httpDate text: String) {
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let words = text.split(separator: " ")
        guard words.count == 6, words[5] == "GMT", let month = months.firstIndex(of: String(words[2])) else {
            return nil
        }
        self.init(year: words[3], month: String(month + 1)[...], day: words[1], time: words[4])
    }

    /// Reads the dates that credentials carry: `2026-11-23T12:00:00Z`, with a fraction or an offset perhaps.
    init?(iso8601 text: String) {
        let parts = text.split(separator: "T")
        guard parts.count == 2 else { return nil }
        let date = parts[0].split(separator: "-")
        guard date.count == 3 else { return nil }
        let time = parts[1].prefix { $0.isNumber || $0 == ":" }
        var zone = parts[1].dropFirst(time.count)
        if zone.first == "." { zone = zone.dropFirst().drop(while: \.isNumber) }
        self.init(year: date[0], month: date[1], day: date[2], time: time)
        if zone == "Z" { return }
        let sign: Int64 = zone.first == "-" ? 1 : -1
        let offset = zone.dropFirst().split(separator: ":")
        guard zone.first == "+" || zone.first == "-", offset.count == 2, let hours = Int64(offset[0]),
            let minutes = Int64(offset[1])
        else { return nil }
        self.millisecondsSince1970 += sign * (hours * 60 + minutes) * 60_000
    }

    private init?(year: Substring, month: Substring, day: Substring, time: Substring) {
        let clock = time.split(separator: ":").compactMap { Int64($0) }
        guard let year = Int64(year), let month = Int64(month), let day = Int64(day), (1...12).contains(month),
            (1...31).contains(day), (1970...9999).contains(year), clock.count == 3
        else { return nil }
        let seconds = clock[0] * 3600 + clock[1] * 60 + clock[2]
        self.init(millisecondsSince1970: (Self.days(year, month, day) * 86_400 + seconds) * 1000)
    }

    /// Howard Hinnant's `days_from_civil`, for years from 1970.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let year = month <= 2 ? year - 1 : year
        let era = year / 400
        let yearOfEra = year - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return era * 146_097 + dayOfEra - 719_468
    }

    /// Now, by the system's wall clock.
    static func system() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(millisecondsSince1970: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
    }
}
