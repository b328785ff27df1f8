// Where requests go: the region's endpoint, or one that was configured.

internal import StalkCore

/// A parsed `http://` or `https://` address.
struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    var scheme: String
    /// As it stands in the address; IPv6 in brackets.
    var host: String
    var port: Int?
    /// Begins with `/`.
    var path: String

    /// Reads an address.
    ///
    /// - Parameter text: For instance `https://sqs.eu-west-1.amazonaws.com` or `http://localhost:9324/path`.
    /// - Throws: ``StalkError`` with `invalidArgument`.
    init(_ text: String) throws(StalkError) {
        let failure = StalkError(
            .invalidArgument,
            "\(quoted(text)) is no endpoint: write for instance https://sqs.eu-west-1.amazonaws.com or "
                + "http://localhost:9324."
        )
        guard let separator = text.firstRange(of: "://") else { throw failure }
        self.scheme = text[..<separator.lowerBound].lowercased()
        let rest = text[separator.upperBound...]
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        self.path = slash == rest.endIndex ? "/" : String(rest[slash...].prefix { $0 != "?" && $0 != "#" })
        var host = rest[..<slash]
        guard ["http", "https"].contains(self.scheme), !host.contains("@") else { throw failure }
        if let colon = host.lastIndex(of: ":"), host.last != "]" {
            guard let port = Int(host[host.index(after: colon)...]), (1...65_535).contains(port) else { throw failure }
            self.port = port
            host = host[..<colon]
        }
        guard !host.isEmpty else { throw failure }
        self.host = String(host)
    }

    /// The endpoint of SQS, or of another service, in a region.
    ///
    /// - Parameters:
    ///   - service: `sqs`, `sts`, `portal.sso`.
    ///   - region: For instance `eu-west-1`.
    ///   - isFIPS: Whether to use the endpoints with validated cryptography.
    ///   - isDualStack: Whether to use the endpoints that also speak IPv6.
    /// - Throws: ``StalkError`` with `invalidArgument` for a region whose name can't be one.
    init(
        service: String,
        region: String,
        isFIPS: Bool = false,
        isDualStack: Bool = false
    ) throws(StalkError) {
        let isName = region.utf8.allSatisfy {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D
        }
        guard !region.isEmpty, isName, region.first != "-", region.last != "-" else {
            throw StalkError(.invalidArgument, "\(quoted(region)) is no region: write for instance eu-west-1.")
        }
        let partition = Self.partitions.last { region.hasPrefix($0.prefix) } ?? Self.partitions[0]
        let name = isFIPS ? "\(service)-fips" : service
        self.scheme = "https"
        self.host = "\(name).\(region).\(isDualStack ? partition.dualStackSuffix : partition.suffix)"
        self.path = "/"
    }

    /// The region that an AWS host name carries.
    var region: String? {
        let labels = self.host.split(separator: ".")
        let isAWS = Self.partitions.contains { partition in
            self.host.hasSuffix("." + partition.suffix) || self.host.hasSuffix("." + partition.dualStackSuffix)
        }
        guard isAWS, labels.count >= 4 else { return nil }
        // `sqs.eu-west-1.amazonaws.com`, `sqs-fips.…`, and the old `eu-west-1.queue.amazonaws.com`.
        return labels[0].hasPrefix("sqs") ? String(labels[1]) : labels[1] == "queue" ? String(labels[0]) : nil
    }

    /// The value of the `Host` header: the default port is left out, as clients do.
    var authority: String {
        guard let port = self.port, port != (self.scheme == "https" ? 443 : 80) else { return self.host }
        return "\(self.host):\(port)"
    }

    /// The address as text.
    var description: String { "\(self.scheme)://\(self.authority)\(self.path)" }

    /// By the beginning of the region's name; the first one is for all others.
    private static let partitions: [(prefix: String, suffix: String, dualStackSuffix: String)] = [
        ("", "amazonaws.com", "api.aws"),
        ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        ("us-gov-", "amazonaws.com", "api.aws"),
        ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
        ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
        ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ]
}
