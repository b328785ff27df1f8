// Addresses of NSQ: nsq://HOST:PORT/TOPIC and nsq+lookupd://HOST:PORT/TOPIC.

internal import FoundationEssentials
internal import StalkCore
internal import StalkNSQ

extension QueueArgument {
    /// What may stand in an address of NSQ, for the help.
    static let nsqForm = "nsq[+lookupd]://HOST:PORT/TOPIC[?channel=C]"

    /// Reads an address of NSQ; without a host it is what `NSQ_HOST` names, or this machine.
    ///
    /// - Parameters:
    ///   - text: `HOST:PORT[,HOST:PORT…]/TOPIC[?option=value&…]`, the scheme taken off.
    ///   - isLookupd: Whether the hosts are nsqlookupds.
    ///   - environment: Where `NSQ_HOST` is looked up.
    /// - Throws: ``StalkError`` saying what is wrong with it.
    static func nsq(
        _ text: Substring,
        isLookupd: Bool,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws(StalkError) -> QueueArgument {
        let parts = text.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let place = parts[0].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard place.count == 2, !place[1].isEmpty else {
            throw StalkError(
                .invalidArgument,
                "The address \(quoted(String(text))) names no topic: write \(Self.nsqForm)."
            )
        }
        let named = environment[NSQConfiguration.hostVariable].flatMap { $0.isEmpty ? nil : $0 } ?? "127.0.0.1"
        let hosts = place[0].isEmpty && !isLookupd ? named[...] : place[0]
        var addresses: [NSQAddress] = []
        for host in hosts.split(separator: ",", omittingEmptySubsequences: false) {
            addresses.append(try NSQAddress(String(host), defaultPort: isLookupd ? 4161 : 4150))
        }
        var configuration = NSQConfiguration(topic: String(place[1]))
        if isLookupd { configuration.lookupds = addresses } else { configuration.nsqds = addresses }
        for option in parts.count > 1 ? parts[1].split(separator: "&") : [] {
            try Self.set(option, in: &configuration)
        }
        return .nsq(configuration)
    }

    private static func set(_ option: Substring, in configuration: inout NSQConfiguration) throws(StalkError) {
        let pair = option.split(separator: "=", maxSplits: 1)
        guard pair.count == 2, let value = Self.withoutPercents(pair[1]) else {
            throw StalkError(.invalidArgument, "Can't read \(quoted(String(option))) in the address: write name=value.")
        }
        switch (pair[0], value) {
        case ("channel", _): configuration.channel = value
        case ("envelope", "on"): configuration.envelope = true
        case ("tls", "on"): configuration.tls = configuration.tls ?? NSQTLS()
        case ("ca", _): configuration.tls = Self.tls(configuration) { $0.authorityFile = value }
        case ("cert", _): configuration.tls = Self.tls(configuration) { $0.certificateFile = value }
        case ("key", _): configuration.tls = Self.tls(configuration) { $0.privateKeyFile = value }
        case ("deflate", _) where Int(value) != nil: configuration.deflateLevel = Int(value)
        default:
            throw StalkError(
                .invalidArgument,
                "An address of NSQ has no option \(quoted(String(option))): there are channel=C, envelope=on, tls=on, "
                    + "ca=FILE, cert=FILE, key=FILE and deflate=LEVEL."
            )
        }
    }

    private static func tls(_ configuration: NSQConfiguration, _ change: (inout NSQTLS) -> Void) -> NSQTLS {
        var tls = configuration.tls ?? NSQTLS()
        change(&tls)
        return tls
    }
}

/// Opens a topic of NSQ, runs `body` and closes it, also when `body` fails: what is not finished goes back then.
func withNSQ<Value>(
    _ configuration: NSQConfiguration,
    _ body: (NSQCollector) async throws -> Value
) async throws -> Value {
    let collector = try NSQCollector(configuration)
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
