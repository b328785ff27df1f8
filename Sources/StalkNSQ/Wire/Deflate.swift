// Raw deflate over zlib, as nsqd speaks it after IDENTIFY.

internal import CZlib
package import NIOCore

/// A stream of raw deflate in one direction; zlib's state must not move, so it lives behind a pointer.
package final class DeflateStream {
    package enum Direction {
        case compress(level: Int)
        case decompress
    }

    private static let chunkBytes = 1 << 16

    private let stream: UnsafeMutablePointer<z_stream>
    private let isCompressing: Bool

    package init(_ direction: Direction) throws(ProtocolViolation) {
        self.stream = .allocate(capacity: 1)
        self.stream.initialize(to: z_stream())
        let size = Int32(MemoryLayout<z_stream>.size)
        let result: Int32
        switch direction {
        case .compress(let level):
            self.isCompressing = true
            result = deflateInit2_(
                self.stream,
                Int32(level),
                Z_DEFLATED,
                -MAX_WBITS,
                8,
                Z_DEFAULT_STRATEGY,
                ZLIB_VERSION,
                size
            )
        case .decompress:
            self.isCompressing = false
            result = inflateInit2_(self.stream, -MAX_WBITS, ZLIB_VERSION, size)
        }
        guard result == Z_OK else { throw ProtocolViolation("zlib can't start: \(result)") }
    }

    deinit {
        if self.isCompressing { deflateEnd(self.stream) } else { inflateEnd(self.stream) }
        self.stream.deinitialize(count: 1)
        self.stream.deallocate()
    }

    /// Runs bytes through and hands the results over piece by piece, so that a small input that grows large is never in
    /// memory as a whole; compressed output is flushed, so that the peer can read all of it.
    package func process(
        _ input: ByteBuffer,
        _ consume: (ByteBuffer) throws(ProtocolViolation) -> Void
    ) throws(ProtocolViolation) {
        var bytes = Array(input.readableBytesView)
        var consumed = 0
        var output = [UInt8](repeating: 0, count: Self.chunkBytes)
        while true {
            let (read, written, code) = self.step(&bytes, from: consumed, into: &output)
            consumed += read
            if written > 0 { try consume(ByteBuffer(bytes: output[..<written])) }
            guard code == Z_OK || code == Z_BUF_ERROR else {
                throw ProtocolViolation("the compressed stream is broken: zlib says \(code)")
            }
            if consumed == bytes.count, written < output.count { return }
            if read == 0, written == 0 { return }
        }
    }

    private func step(
        _ input: inout [UInt8],
        from start: Int,
        into output: inout [UInt8]
    ) -> (read: Int, written: Int, code: Int32) {
        let (available, room) = (input.count - start, output.count)
        return input.withUnsafeMutableBufferPointer { input in
            output.withUnsafeMutableBufferPointer { output in
                self.stream.pointee.next_in = input.baseAddress.map { $0 + start }
                self.stream.pointee.avail_in = UInt32(available)
                self.stream.pointee.next_out = output.baseAddress
                self.stream.pointee.avail_out = UInt32(room)
                let code = self.isCompressing ? deflate(self.stream, Z_SYNC_FLUSH) : inflate(self.stream, Z_SYNC_FLUSH)
                let read = available - Int(self.stream.pointee.avail_in)
                return (read, room - Int(self.stream.pointee.avail_out), code)
            }
        }
    }
}
