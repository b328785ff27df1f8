// The QUEUE argument: a name in the store, or one day the URL of a remote collector.

internal import StalkCore

/// Reads a QUEUE argument.
///
/// - Parameter text: The argument.
/// - Returns: The name of a queue in the store.
/// - Throws: ``StalkError`` with `unsupported` for a URL, since no adapter is built in, or with `invalidQueueName`.
func localQueueName(_ text: String) throws(StalkError) -> QueueName {
    if let colon = text.firstRange(of: "://") {
        throw StalkError(
            .unsupported,
            "The queue \(quoted(text)) is remote, and this build of stalk has no adapter for "
                + "\(text[..<colon.lowerBound]): give the name of a queue in the store."
        )
    }
    return try QueueName(text)
}
