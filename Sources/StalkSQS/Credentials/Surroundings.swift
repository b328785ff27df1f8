// What the outside world is to settings and credentials: variables, files, HTTP, programs, the clock.

internal import StalkCore

/// A plain HTTP request to a place that gives out credentials.
struct HTTPFetch: Hashable, Sendable {
    var method = "GET"
    var url: String
    var headers: [String: String] = [:]
    var body: [UInt8] = []
    var timeout: Duration
}

/// Where settings and credentials are looked for; tests put their own in its place.
struct Surroundings: Sendable {
    /// An environment variable; an empty one counts as unset.
    var variable: @Sendable (String) -> String?
    /// The bytes of a file; `nil` when it is not there.
    var readFile: @Sendable (String) async throws -> [UInt8]?
    /// An HTTP request; throws where there is no answer.
    var fetch: @Sendable (HTTPFetch) async throws -> (status: Int, body: [UInt8])
    /// The standard output of a program, by its words; throws when it fails.
    var run: @Sendable ([String]) async throws -> [UInt8]
    /// The wall clock.
    var now: @Sendable () -> Timestamp

    /// A path with `~` replaced.
    func expanded(_ path: String) -> String {
        guard path == "~" || path.hasPrefix("~/"), let home = self.variable("HOME") else { return path }
        return home + path.dropFirst()
    }

    /// The text of a file; `nil` when it is not there.
    func text(ofFile path: String) async throws -> String? {
        try await self.readFile(self.expanded(path)).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Whether a variable says yes.
    func isSet(_ name: String) -> Bool { self.variable(name)?.lowercased() == "true" }
}
