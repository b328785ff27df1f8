/// Runs `body` beside a companion, which is cancelled when `body` has ended.
///
/// - Parameters:
///   - companion: What runs beside; when it throws, `body` is cancelled and that is thrown.
///   - body: What counts.
func withCompanion<Value: Sendable>(
    _ companion: @escaping @Sendable () async throws -> Void,
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
        group.addTask {
            try await companion()
            return nil
        }
        group.addTask { try await body() }
        defer { group.cancelAll() }
        while let value = try await group.next() {
            if let value { return value }
        }
        throw CancellationError()
    }
}
