public import StalkCore

/// Where the control listens: a host and a port.
public struct AdminAddress: Hashable, Sendable, CustomStringConvertible {
    /// The port when none is given.
    public static var defaultPort: Int { 1323 }

    /// A host name or an IP address.
    public var host: String
    /// The port; 0 lets the system choose one.
    public var port: Int

    /// Makes an address; by default one that only this machine reaches.
    public init(host: String = "127.0.0.1", port: Int = AdminAddress.defaultPort) {
        self.host = host
        self.port = port
    }

    /// Reads `HOST:PORT`, `HOST`, `:PORT` or `PORT`; an IPv6 address with a port stands in brackets.
    ///
    /// - Parameter text: The address.
    /// - Throws: ``StalkCore/StalkError`` with `invalidArgument`.
    public init(_ text: String) throws(StalkError) {
        let bad = StalkError(
            .invalidArgument,
            "Can't listen at \(quoted(text)): write HOST:PORT, :PORT or PORT, as in 127.0.0.1:1323."
        )
        func port(_ text: some StringProtocol) throws(StalkError) -> Int {
            guard let port = UInt16(text) else { throw bad }
            return Int(port)
        }
        self.init()
        if let port = UInt16(text) {
            self.port = Int(port)
        } else if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            self.host = String(text[text.index(after: text.startIndex)..<end])
            let rest = text[text.index(after: end)...]
            if !rest.isEmpty {
                guard rest.hasPrefix(":") else { throw bad }
                self.port = try port(rest.dropFirst())
            }
        } else {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            switch parts.count {
            case 1: self.host = text
            case 2:
                if !parts[0].isEmpty { self.host = String(parts[0]) }
                self.port = try port(parts[1])
            // Only an IPv6 address holds more than one colon; without brackets it has no port.
            default: self.host = text
            }
        }
        guard !self.host.isEmpty, self.host.utf8.allSatisfy(Self.mayStandInHost) else { throw bad }
    }

    private static func mayStandInHost(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: ":"),
            UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// Whether only this machine reaches it.
    public var isLoopback: Bool { Self.isLoopback(self.host) }

    static func isLoopback(_ host: some StringProtocol) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        let isIPv4 = parts.count == 4 && parts.allSatisfy { UInt8($0) != nil }
        return host.lowercased() == "localhost" || host == "::1" || isIPv4 && parts[0] == "127"
    }

    /// The address as it stands in a URL.
    public var description: String {
        "\(self.host.contains(":") ? "[\(self.host)]" : self.host):\(self.port)"
    }
}
