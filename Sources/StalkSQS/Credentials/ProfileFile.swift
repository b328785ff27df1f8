// The files ~/.aws/config and ~/.aws/credentials.

/// The sections of a configuration file, each a set of settings; some settings hold settings of their own.
struct ProfileFile: Hashable, Sendable {
    /// The settings of one section, nested ones as `sqs.endpoint_url`.
    typealias Section = [String: String]

    private(set) var sections: [String: Section] = [:]

    init() {}

    /// Reads a file; lines that make no sense are passed over, as AWS's own tools do.
    init(_ text: String) {
        var section: String?
        var parent: String?
        for line in text.split(whereSeparator: \.isNewline) {
            let isIndented = line.first?.isWhitespace == true
            let content = String(line).trimmingSpace
            guard !content.isEmpty, content.first != "#", content.first != ";" else { continue }
            if !isIndented, content.first == "[", let end = content.firstIndex(of: "]") {
                let name = content[content.index(after: content.startIndex)..<end]
                section = name.split(whereSeparator: \.isWhitespace).joined(separator: " ")
                parent = nil
                continue
            }
            guard let section, let equals = content.firstIndex(of: "=") else { continue }
            let key = String(content[..<equals]).trimmingSpace.lowercased()
            let value = Self.withoutComment(String(content[content.index(after: equals)...]).trimmingSpace)
            if isIndented, let parent {
                self.sections[section, default: [:]]["\(parent).\(key)"] = value
            } else {
                self.sections[section, default: [:]][key] = value
                parent = value.isEmpty ? key : nil
            }
        }
    }

    private static func withoutComment(_ value: String) -> String {
        guard let comment = value.firstRange(of: " #") ?? value.firstRange(of: " ;") else { return value }
        return String(value[..<comment.lowerBound]).trimmingSpace
    }
}

/// Both files together.
struct Profiles: Hashable, Sendable {
    /// `[profile name]`, `[sso-session name]`, `[services name]`.
    var config = ProfileFile()
    /// `[name]`.
    var credentials = ProfileFile()

    /// What the config file says of a profile.
    func config(_ name: String) -> ProfileFile.Section? {
        self.config.sections["profile \(name)"] ?? (name == "default" ? self.config.sections["default"] : nil)
    }

    /// What the credentials file says of a profile.
    func credentials(_ name: String) -> ProfileFile.Section? { self.credentials.sections[name] }

    /// What both say; the credentials file wins.
    func merged(_ name: String) -> ProfileFile.Section? {
        let (config, credentials) = (self.config(name), self.credentials(name))
        guard config != nil || credentials != nil else { return nil }
        return (config ?? [:]).merging(credentials ?? [:]) { $1 }
    }

    /// A section of shared settings, such as `sso-session name`.
    func shared(_ kind: String, _ name: String) -> ProfileFile.Section? { self.config.sections["\(kind) \(name)"] }

    /// Reads both files from where the surroundings say they are.
    static func load(_ surroundings: Surroundings) async throws -> Profiles {
        let config = surroundings.variable("AWS_CONFIG_FILE") ?? "~/.aws/config"
        let credentials = surroundings.variable("AWS_SHARED_CREDENTIALS_FILE") ?? "~/.aws/credentials"
        return Profiles(
            config: try await surroundings.text(ofFile: config).map { ProfileFile($0) } ?? ProfileFile(),
            credentials: try await surroundings.text(ofFile: credentials).map { ProfileFile($0) } ?? ProfileFile()
        )
    }
}
