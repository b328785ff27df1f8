// Deduplication that survives the process: for consumers of queues whose publishers may send twice.

public import StalkCore
public import StalkWorker

extension Middleware {
    /// Acknowledges a message without running it when one with the same `Stalk-Id` was acknowledged before.
    ///
    /// The id is stored before the message is acknowledged, so that a copy is known after a restart too. A handler that
    /// was killed between its effect and the end of this runs again: for that the effect itself must be idempotent. A
    /// message whose twin runs at this moment waits for how that ends.
    ///
    /// - Parameters:
    ///   - ids: Where ids are remembered; call ``RememberedIDs/load()`` first.
    ///   - key: The id of a delivery; `nil` for one that is always run. Unless stated, the header `Stalk-Id`, else the
    ///     delivery's own id.
    public static func deduplicate(
        in ids: RememberedIDs,
        _ key: @escaping @Sendable (Delivery) -> String? = {
            $0.headers["Stalk-Id"] ?? $0.id.rawValue
        }
    ) -> Middleware {
        let oneAtATime = Middleware.perKey(limit: 1, key)
        return Middleware { delivery, next in
            guard let id = key(delivery) else { return try await next(delivery) }
            return try await oneAtATime.around { delivery in
                if ids.disposition(of: id) != nil { return .acknowledge }
                let disposition = try await next(delivery)
                switch disposition {
                case .acknowledge, .acknowledgeAndPublish: try await ids.insert([(id, .acknowledge)])
                case .retry, .deadLetter, .release: break
                }
                return disposition
            }(delivery)
        }
    }
}
