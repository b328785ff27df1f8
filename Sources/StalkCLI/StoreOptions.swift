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

    /// Opens the store, runs `body` and closes the store, also when `body` fails.
    ///
    /// - Parameters:
    ///   - creating: Whether to make a store where there is none.
    ///   - body: What to do with it.
    /// - Throws: What `body` throws, or ``StalkError``: `noSuchQueue` when there is no store and none is to be made.
    func withStore<Value>(
        creating: Bool = false,
        _ body: (LocalStore) async throws -> Value
    ) async throws -> Value {
        let path = try self.path()
        if !creating { try Self.requireStore(at: path) }
        let store = try await LocalStore.open(at: path, options: LocalStoreOptions(createIfMissing: creating))
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

    /// Refuses a path where nothing is.
    static func requireStore(at path: String) throws(StalkError) {
        guard access(path, F_OK) != 0, errno == ENOENT || errno == ENOTDIR else { return }
        throw StalkError(
            .noSuchQueue,
            "There is no store at \(path): 'stalk put' makes one, --store and $STALK_STORE name another."
        )
    }
}

extension LocalStore {
    /// Refuses a queue that the store does not hold.
    func requireQueue(_ name: QueueName) throws(StalkError) {
        guard !self.hasQueue(name) else { return }
        throw StalkError(
            .noSuchQueue,
            "The store has no queue \(quoted(name.rawValue)): 'stalk stats' lists what is there, 'stalk put' makes one."
        )
    }
}
