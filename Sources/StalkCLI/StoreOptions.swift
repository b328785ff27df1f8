// Where the store is, and opening it for the length of a command.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

#if canImport(Glibc)
    internal import Glibc
#endif

/// The options that name the store.
struct StoreOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The directory of the store.",
            discussion: "Default: $STALK_STORE, else $XDG_STATE_HOME/stalk, else ~/.local/state/stalk.",
            valueName: "dir"
        )
    )
    var store: String?

    /// The directory of the store.
    ///
    /// - Throws: ``StalkError`` when nothing names one.
    func path() throws(StalkError) -> String {
        try Self.path(option: self.store) { name in getenv(name).map { String(cString: $0) } }
    }

    /// The directory of the store, from the option and the environment; an empty variable counts as unset.
    static func path(option: String?, environment: (String) -> String?) throws(StalkError) -> String {
        func variable(_ name: String) -> String? {
            environment(name).flatMap { $0.isEmpty ? nil : $0 }
        }
        if let option {
            guard !option.isEmpty else {
                throw StalkError(
                    .invalidArgument,
                    "The directory after --store is empty: name one, or leave --store out."
                )
            }
            return option
        }
        if let path = variable("STALK_STORE") { return path }
        // The XDG Base Directory Specification tells to ignore a path that is not absolute.
        if let path = variable("XDG_STATE_HOME"), path.hasPrefix("/") { return path + "/stalk" }
        if let home = variable("HOME") { return home + "/.local/state/stalk" }
        throw StalkError(.invalidArgument, "There is no home directory to keep the store in: name one with --store.")
    }

    /// Runs `body` with the directory of the store, and says what to do about it in this tool's words when there is none.
    func withPath<Value>(_ body: (String) async throws -> Value) async throws -> Value {
        let path = try self.path()
        do {
            return try await body(path)
        } catch let error as StalkError where error.code == .noSuchStore {
            throw StalkError(
                .noSuchStore,
                "There is no store at \(path): 'stalk put' makes one, --store and $STALK_STORE name another."
            )
        }
    }

    /// Opens the store, runs `body` and closes the store, also when `body` fails.
    ///
    /// - Parameters:
    ///   - creating: Whether to make a store where there is none.
    ///   - body: What to do with it.
    /// - Throws: What `body` throws, or ``StalkError``: `noSuchStore` when there is none and none is to be made.
    func withStore<Value>(
        creating: Bool = false,
        _ body: (LocalStore) async throws -> Value
    ) async throws -> Value {
        let store =
            if creating {
                try await LocalStore.open(at: self.path())
            } else {
                try await self.withPath { path in
                    try await LocalStore.open(at: path, options: LocalStoreOptions(createIfMissing: false))
                }
            }
        let value: Value
        do {
            value = try await body(store)
        } catch {
            try? await store.close()
            throw error
        }
        try await store.close()
        return value
    }
}

extension LocalStore {
    /// Refuses a queue that the store does not hold.
    func requireQueue(_ name: QueueName) async throws {
        guard try await !self.hasQueue(name) else { return }
        throw StalkError(
            .noSuchQueue,
            "The store has no queue \(quoted(name.rawValue)): 'stalk stats' lists what is there, 'stalk put' makes one."
        )
    }
}
