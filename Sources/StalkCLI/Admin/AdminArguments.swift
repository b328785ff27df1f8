// What commands that serve or ask over HTTP share.

internal import ArgumentParser
internal import FoundationEssentials
internal import StalkAdmin
internal import StalkCore
internal import StalkLocal

#if canImport(Glibc)
    internal import Glibc
#endif

/// The option that names a token.
struct TokenOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A file with the token that callers must know; needed where other machines can reach the address.",
            discussion: "Default: $STALK_TOKEN. A token on the command line could be read by everybody on the machine.",
            valueName: "file"
        )
    )
    var tokenFile: String?

    /// The token, without white space around it.
    func token() throws(StalkError) -> String? {
        guard let file = self.tokenFile else {
            return getenv("STALK_TOKEN").map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
        }
        do {
            let text = try String(contentsOfFile: file, encoding: .utf8)
            return String(text.drop(while: \.isWhitespace).prefix { !$0.isWhitespace })
        } catch {
            throw StalkError(.invalidArgument, "Can't read the token in \(quoted(file)).", cause: error)
        }
    }
}

/// Runs `body` beside a server, once that listens; without options, runs `body` alone.
///
/// The server ends with `body`. What the server throws, such as that its port is taken, stops `body`.
func withAdminServer<Value: Sendable>(
    _ options: AdminOptions?,
    collectors: [AdminCollector],
    failovers: [AdminFailover] = [],
    store: LocalStore?,
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    guard let options else { return try await body() }
    let (listening, isListening) = AsyncThrowingStream.makeStream(of: Never.self, throwing: (any Error).self)
    let server = AdminServer(options: options, collectors: collectors, failovers: failovers, store: store) { address in
        StandardError.note("Serving http://\(address)/")
        isListening.finish()
    }
    return try await withCompanion {
        do {
            try await server.run()
        } catch {
            // Whoever waits for it to listen is not to begin.
            isListening.finish(throwing: error)
            throw error
        }
    } _: {
        for try await _ in listening {}
        return try await body()
    }
}

/// An address, as an option's value.
func parseAdminAddress(_ text: String) throws -> AdminAddress {
    do {
        return try AdminAddress(text)
    } catch {
        throw ValidationError(error.message)
    }
}
