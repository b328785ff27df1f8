// The QUEUE argument: a name in the store, or the address of a remote collector.

internal import StalkCore
internal import StalkNSQ
internal import StalkSQS

/// Where a QUEUE argument leads.
enum QueueArgument {
    /// A queue in the store.
    case local(QueueName)
    /// A queue of Amazon SQS, by name or by its own address.
    case sqs(String, SQSConfiguration)
    /// A topic of NSQ.
    case nsq(NSQConfiguration)

    /// Reads a QUEUE argument.
    ///
    /// - Parameter text: A name, `sqs://NAME[?region=R&endpoint=URL&account=ID]`, or an SQS queue's own `https://` address.
    /// - Throws: ``StalkError`` with `unsupported` for another kind of address, or saying what is wrong with it.
    init(_ text: String) throws(StalkError) {
        guard let separator = text.firstRange(of: "://") else {
            self = .local(try QueueName(text))
            return
        }
        switch text[..<separator.lowerBound] {
        case "https", "http":
            self = .sqs(text, SQSConfiguration())
        case "sqs":
            self = try Self.sqs(String(text[separator.upperBound...]))
        case "nsq", "nsq+lookupd":
            let isLookupd = text[..<separator.lowerBound] != "nsq"
            self = try Self.nsq(text[separator.upperBound...], isLookupd: isLookupd)
        case let scheme:
            throw StalkError(
                .unsupported,
                "The queue \(quoted(text)) is remote, and this build of stalk has no adapter for \(scheme): "
                    + "give the name of a queue in the store, sqs://NAME or nsq://HOST:PORT/TOPIC."
            )
        }
    }

    private static func sqs(_ text: String) throws(StalkError) -> QueueArgument {
        let parts = text.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let name = try QueueName(String(parts[0]))
        var configuration = SQSConfiguration()
        for option in parts.count > 1 ? parts[1].split(separator: "&") : [] {
            let pair = option.split(separator: "=", maxSplits: 1)
            guard pair.count == 2, let value = Self.withoutPercents(pair[1]) else {
                throw StalkError(
                    .invalidArgument,
                    "Can't read \(quoted(String(option))) in sqs://\(text): write name=value."
                )
            }
            switch pair[0] {
            case "region": configuration.region = value
            case "endpoint": configuration.endpoint = value
            case "account": configuration.account = value
            default:
                throw StalkError(
                    .invalidArgument,
                    "sqs:// knows no option \(quoted(String(pair[0]))): there are region, endpoint and account."
                )
            }
        }
        return .sqs(name.rawValue, configuration)
    }

    /// The text with `%3A` and its like replaced; `nil` for what is no text then.
    static func withoutPercents(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else { return nil }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// Reads a QUEUE argument of a command that works in the store alone.
///
/// - Parameter text: The argument.
/// - Returns: The name of a queue in the store.
/// - Throws: ``StalkError`` with `unsupported` for an address, or with `invalidQueueName`.
func localQueueName(_ text: String) throws(StalkError) -> QueueName {
    guard case .local(let name) = try QueueArgument(text) else {
        throw StalkError(
            .unsupported,
            "The queue \(quoted(text)) is remote, and only put, get, work and forward go there: "
                + "give the name of a queue in the store."
        )
    }
    return name
}

/// Opens a queue of SQS, runs `body` and closes it, also when `body` fails: what was received ahead goes back then.
func withSQS<Value>(
    _ name: String,
    _ configuration: SQSConfiguration,
    _ body: (SQSCollector) async throws -> Value
) async throws -> Value {
    let collector = try await SQSCollector.open(name, configuration: configuration)
    let value: Value
    do {
        value = try await body(collector)
    } catch {
        await collector.close()
        throw error
    }
    await collector.close()
    return value
}
