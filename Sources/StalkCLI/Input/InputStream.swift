// Reading a file or standard input, so that a waiting read can be called off.

internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A file or standard input, read from its beginning to its end.
final class InputStream: Sendable {
    /// The size of the file in bytes, where it has one.
    let size: Int?
    /// Whether a person types it.
    var isTerminal: Bool { Terminal.isTerminal(self.descriptor) }
    private let descriptor: Int32
    private let closesDescriptor: Bool
    /// A pipe whose write end ends a waiting read.
    private let wake: (read: Int32, write: Int32)
    private let lane = BlockingLane(label: "stalk.input")

    /// Opens a file, or takes standard input.
    ///
    /// - Parameter path: The file; `nil` or `-` is standard input.
    /// - Throws: ``StalkError`` when it can't be opened.
    convenience init(path: String?) throws(StalkError) {
        guard let path, path != "-" else {
            try self.init(descriptor: STDIN_FILENO, closing: false)
            return
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            let code = errno
            throw StalkError(
                code == ENOENT ? .invalidArgument : .permissionDenied,
                "Can't read the file \(quoted(path)): \(errorText(code))."
            )
        }
        try self.init(descriptor: descriptor, closing: true)
    }

    /// Takes an open descriptor.
    init(descriptor: Int32, closing: Bool) throws(StalkError) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            let code = errno
            if closing { close(descriptor) }
            throw StalkError(.interrupted, "Can't make a pipe: \(errorText(code)).")
        }
        self.wake = (ends[0], ends[1])
        self.descriptor = descriptor
        self.closesDescriptor = closing
        var status = stat()
        let isFile = fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
        self.size = isFile ? Int(status.st_size) : nil
    }

    deinit {
        close(self.wake.read)
        close(self.wake.write)
        if self.closesDescriptor { close(self.descriptor) }
    }

    /// Waits for bytes and returns those that are there.
    ///
    /// - Parameter max: The most bytes.
    /// - Returns: At least one byte, or none at the end.
    /// - Throws: `CancellationError` when the task is cancelled, also while it waits; ``StalkError`` when the read failed.
    func read(upTo max: Int) async throws -> [UInt8] {
        try Task.checkCancellation()
        let (bytes, code) = await withTaskCancellationHandler {
            await self.lane.run { self.readNow(upTo: max) }
        } onCancel: {
            var byte: UInt8 = 0
            _ = Glibc.write(self.wake.write, &byte, 1)
        }
        guard code != ECANCELED else { throw CancellationError() }
        guard code == 0 else {
            throw StalkError(.interrupted, "Can't read the input: \(errorText(code)).")
        }
        return bytes
    }

    private func readNow(upTo max: Int) -> (bytes: [UInt8], code: Int32) {
        while true {
            var pollers = [
                pollfd(fd: self.wake.read, events: Int16(POLLIN), revents: 0),
                pollfd(fd: self.descriptor, events: Int16(POLLIN), revents: 0),
            ]
            guard poll(&pollers, nfds_t(pollers.count), -1) >= 0 || errno == EINTR else { return ([], errno) }
            if pollers[0].revents != 0 { return ([], ECANCELED) }
            guard pollers[1].revents != 0 else { continue }
            var code: Int32 = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: max) { buffer, count in
                let result = Glibc.read(self.descriptor, buffer.baseAddress, max)
                code = result < 0 ? errno : 0
                count = Swift.max(result, 0)
            }
            if code != EINTR && code != EAGAIN { return (bytes, code) }
        }
    }
}
