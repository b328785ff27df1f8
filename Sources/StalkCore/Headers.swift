// Named text that travels with a message.

/// The headers of a message: an ordered list of names and values, where a name stands at most once.
///
/// Names are 1 to 200 bytes of `[A-Za-z0-9._-]` and compare without regard to case; values are any Unicode text,
/// newlines included. Names that begin with `Stalk-` belong to Stalk.
public struct Headers: Hashable, Sendable {
    /// One header.
    public struct Field: Hashable, Sendable {
        /// The name, as it was given.
        public var name: String
        /// The value.
        public var value: String
    }

    /// The most headers of a message.
    public static var maxCount: Int { 256 }

    /// The largest size of all headers of a message together, in bytes of UTF-8.
    public static var maxBytes: Int { 65_536 }

    /// The headers in the order in which they were first set.
    public private(set) var fields: [Field]

    /// Makes an empty list.
    public init() {
        self.fields = []
    }

    /// Takes fields that were checked when they were stored.
    package init(stored fields: [Field]) {
        self.fields = fields
    }

    /// Whether there is none.
    public var isEmpty: Bool { self.fields.isEmpty }

    /// The size of all names and values, in bytes of UTF-8.
    public var byteCount: Int {
        self.fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
    }

    /// The value under a name; setting `nil` removes it.
    public subscript(name: String) -> String? {
        get {
            self.fields.first { Self.isSameName($0.name, name) }?.value
        }
        set {
            let position = self.fields.firstIndex { Self.isSameName($0.name, name) }
            switch (position, newValue) {
            case (let position?, let value?): self.fields[position].value = value
            case (let position?, nil): self.fields.remove(at: position)
            case (nil, let value?): self.fields.append(Field(name: name, value: value))
            case (nil, nil): break
            }
        }
    }

    private static func isSameName(_ left: String, _ right: String) -> Bool {
        left == right || left.lowercased() == right.lowercased()
    }

    /// Checks names and size.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument``, naming the header and the byte, or with
    ///   ``StalkError/Code/bodyTooLarge``, naming both sizes.
    public func validate() throws(StalkError) {
        for field in self.fields {
            do {
                _ = try QueueName(field.name)
            } catch {
                throw StalkError(
                    .invalidArgument,
                    "The header name \(quoted(field.name)) is not allowed: use 1 to 200 bytes of [A-Za-z0-9._-], "
                        + "not starting with '.' or '-'."
                )
            }
        }
        guard self.fields.count <= Self.maxCount else {
            throw StalkError(
                .invalidArgument,
                "The message has \(self.fields.count) headers, at most \(Self.maxCount) are allowed: put data in the body."
            )
        }
        guard self.byteCount <= Self.maxBytes else {
            throw StalkError(
                .bodyTooLarge,
                "The headers are \(self.byteCount) bytes, the limit is \(Self.maxBytes): put large data in the body."
            )
        }
    }
}

extension Headers: ExpressibleByDictionaryLiteral {
    /// Makes headers from a literal; of a name that stands twice, the last value holds.
    public init(dictionaryLiteral elements: (String, String)...) {
        self.init()
        for (name, value) in elements { self[name] = value }
    }
}

extension Headers: Sequence {
    /// Goes over the headers in order.
    public func makeIterator() -> IndexingIterator<[Field]> {
        self.fields.makeIterator()
    }
}
