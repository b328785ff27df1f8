// Blocking reads and writes of the standard streams, kept off the cooperative thread pool.

internal import Dispatch
internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// Runs blocking calls one after another on a thread that may block.
struct BlockingLane: Sendable {
    private let queue: DispatchQueue

    init(label: String) {
        self.queue = DispatchQueue(label: label)
    }

    /// Runs `work` after everything handed in before it, and returns what it returns.
    func run<Value: Sendable>(_ work: @escaping @Sendable () -> Value) async -> Value {
        await withCheckedContinuation { continuation in
            self.queue.async { continuation.resume(returning: work()) }
        }
    }
}

/// A descriptor that bytes are written to in order, each write whole.
struct OutputStream: Sendable {
    /// Standard output: data, and nothing else.
    static let standardOutput = OutputStream(descriptor: STDOUT_FILENO, label: "stalk.stdout")
    /// Standard error, for commands whose output passes through.
    static let standardError = OutputStream(descriptor: STDERR_FILENO, label: "stalk.stderr")

    private let descriptor: Int32
    private let lane: BlockingLane

    init(descriptor: Int32, label: String) {
        self.descriptor = descriptor
        self.lane = BlockingLane(label: label)
    }

    /// Writes all bytes and returns when the operating system has them.
    ///
    /// - Parameter bytes: The bytes.
    /// - Throws: ``OutputClosed`` when nobody reads them any more; ``StalkError`` when the write failed.
    func write(_ bytes: [UInt8]) async throws {
        guard !bytes.isEmpty else { return }
        let (descriptor, code) = (
            self.descriptor, await self.lane.run { [descriptor] in writeAll(bytes, to: descriptor) }
        )
        switch code {
        case 0: return
        case EPIPE: throw OutputClosed()
        default:
            throw StalkError(
                .interrupted,
                "Can't write to \(descriptor == STDOUT_FILENO ? "standard output" : "standard error"): "
                    + "\(errorText(code))."
            )
        }
    }

    /// Writes text and returns when the operating system has it.
    ///
    /// - Parameter text: The text, with its newlines.
    /// - Throws: As ``write(_:)-([UInt8])``.
    func write(_ text: String) async throws {
        try await self.write(Array(text.utf8))
    }
}

/// Short notes for a person, written at once.
enum StandardError {
    /// Writes text; a note that nobody can read is no failure.
    static func write(_ text: String, to descriptor: Int32 = STDERR_FILENO) {
        _ = writeAll(Array(text.utf8), to: descriptor)
    }

    /// Writes one line that begins with the tool's name.
    static func note(_ sentence: String) {
        Self.write("stalk: \(sentence)\n")
    }
}

/// What the operating system calls an error number.
func errorText(_ code: Int32) -> String {
    String(cString: strerror(code))
}

/// Writes all bytes and returns 0, or the error number.
private func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
    bytes.withUnsafeBytes { buffer in
        var rest = buffer[...]
        while !rest.isEmpty {
            let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count >= 0 {
                rest = rest.dropFirst(count)
                continue
            }
            switch errno {
            case EINTR: continue
            case EAGAIN:
                // Somebody who shares the descriptor made it non-blocking.
                var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&poller, 1, -1)
            case let code: return code
            }
        }
        return 0
    }
}
