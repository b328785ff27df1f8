// Who asks AWS, without telling it to anybody else.

public import StalkCore

/// An access key of AWS, its secret, and until when it holds.
///
/// Printing one shows the access key's id and nothing else.
public struct Credentials: Hashable, Sendable {
    /// The public half.
    public var accessKeyID: String
    /// The secret half.
    public var secretAccessKey: String
    /// What belongs to temporary credentials besides.
    public var sessionToken: String?
    /// When they stop to hold; `nil` for ones that don't.
    public var expiration: Timestamp?

    /// Makes credentials.
    ///
    /// - Parameters:
    ///   - accessKeyID: The public half.
    ///   - secretAccessKey: The secret half.
    ///   - sessionToken: What belongs to temporary credentials besides.
    ///   - expiration: When they stop to hold.
    public init(
        accessKeyID: String,
        secretAccessKey: String,
        sessionToken: String? = nil,
        expiration: Timestamp? = nil
    ) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
        self.expiration = expiration
    }
}

extension Credentials: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The access key's id; the secrets are left out.
    public var description: String {
        "Credentials(\(self.accessKeyID)\(self.expiration.map { ", until \($0)" } ?? ""))"
    }

    /// The same as ``description``.
    public var debugDescription: String { self.description }

    /// Nothing that `dump` could show.
    public var customMirror: Mirror { Mirror(self, children: ["accessKeyID": self.accessKeyID]) }
}
