// Plain text for a person: tables, times, counts, and bytes that can't harm a terminal.

internal import StalkCore
internal import StalkPlatform

/// A table of columns that line up; the last column may be ragged.
struct TextTable {
    enum Alignment {
        case left
        case right
    }

    private let alignments: [Alignment]
    private var rows: [[String]]

    init(_ columns: [(title: String, alignment: Alignment)]) {
        self.alignments = columns.map(\.alignment)
        self.rows = [columns.map(\.title)]
    }

    /// Adds a row; it has as many cells as there are columns.
    mutating func add(_ cells: [String]) {
        self.rows.append(cells)
    }

    /// The table's lines, without spaces at their ends.
    var text: String {
        let widths = self.alignments.indices.map { column in self.rows.map { $0[column].count }.max() ?? 0 }
        return self.rows.map { row in
            let cells = row.indices.map { column in
                let padding = String(repeating: " ", count: widths[column] - row[column].count)
                return self.alignments[column] == .left ? row[column] + padding : padding + row[column]
            }
            let line = cells.joined(separator: "  ")
            return line.prefix(upTo: line.lastIndex { $0 != " " }.map(line.index(after:)) ?? line.startIndex) + "\n"
        }.joined()
    }
}

/// A number and its noun: `1 message`, `2 messages`.
func counted(_ number: Int, _ noun: String) -> String {
    "\(number) \(noun)\(number == 1 ? "" : "s")"
}

/// A duration for a person, in its two largest units.
func ageText(milliseconds: Int64) -> String {
    let seconds = milliseconds / 1000
    return switch seconds {
    case ..<1: "\(milliseconds)ms"
    case ..<60: "\(seconds)s"
    case ..<3600: "\(seconds / 60)m \(seconds % 60)s"
    case ..<86_400: "\(seconds / 3600)h \(seconds / 60 % 60)m"
    default: "\(seconds / 86_400)d \(seconds / 3600 % 24)h"
    }
}

/// How far away a moment is: `in 5s`, `3m 2s ago`.
func relativeText(_ moment: Timestamp, now: Timestamp) -> String {
    let distance = moment.millisecondsSince1970 - now.millisecondsSince1970
    return distance > 0 ? "in \(ageText(milliseconds: distance))" : "\(ageText(milliseconds: -distance)) ago"
}

/// Bytes as text that a terminal can show, cut to a width: control characters are escaped, bad UTF-8 is replaced.
///
/// - Parameters:
///   - bytes: The bytes; only as many are looked at as can be shown.
///   - width: The most characters.
func shownText(_ bytes: [UInt8], width: Int) -> String {
    let text = String(decoding: bytes.prefix(width * 4), as: UTF8.self)
    let shown = printable(text, keepingNewlines: false)
    let isWhole = shown.count <= width && bytes.count <= width * 4
    return isWhole ? shown : shown.prefix(Swift.max(width - 1, 0)) + "…"
}

/// Text without what could move a terminal's cursor or change its colours.
func printable(_ text: String, keepingNewlines: Bool) -> String {
    var shown = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\n" where keepingNewlines, "\t" where keepingNewlines: shown.append(scalar)
        case "\n": shown.append(contentsOf: "\\n".unicodeScalars)
        case "\t": shown.append(contentsOf: "\\t".unicodeScalars)
        case "\r": shown.append(contentsOf: "\\r".unicodeScalars)
        case _ where scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format:
            shown.append(contentsOf: "\\u{\(String(scalar.value, radix: 16))}".unicodeScalars)
        default: shown.append(scalar)
        }
    }
    return String(shown)
}

extension Timestamp {
    /// What the wall clock shows.
    static var now: Timestamp { SystemStoreClock().wallTime() }
}
