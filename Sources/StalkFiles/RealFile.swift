// A file of a store on a real file system.

internal import CStalkSystem
internal import Glibc
internal import StalkCore

final class RealFile: StorageFile {
    private let descriptor: Descriptor
    private let path: String
    private let counters: ActivityCounters

    init(descriptor: consuming Descriptor, path: String, counters: ActivityCounters) {
        self.descriptor = descriptor
        self.path = path
        self.counters = counters
    }

    func size() throws(StalkError) -> Int {
        var info = stat()
        guard fstat(self.descriptor.number, &info) == 0 else { throw self.failed("fstat") }
        return Int(info.st_size)
    }

    func read(at offset: Int, count: Int) throws(StalkError) -> [UInt8] {
        guard count > 0 else { return [] }
        var failure: StalkError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            while filled < count {
                let result = retryingInterrupts {
                    pread(
                        self.descriptor.number,
                        buffer.baseAddress.map { $0 + filled },
                        count - filled,
                        off_t(offset + filled)
                    )
                }
                if result < 0 { failure = self.failed("pread") }
                if result <= 0 { return }
                filled += result
            }
        }
        if let failure { throw failure }
        return bytes
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StalkError) {
        var written = 0
        while written < bytes.count {
            let result = retryingInterrupts {
                pwrite(
                    self.descriptor.number,
                    bytes.baseAddress.map { $0 + written },
                    bytes.count - written,
                    off_t(offset + written)
                )
            }
            guard result > 0 else { throw self.failed("pwrite") }
            written += result
        }
        self.counters.noteWritten(written)
    }

    func sync() throws(StalkError) {
        guard retryingInterrupts({ CStalkSystem_fdatasync(self.descriptor.number) }) == 0 else {
            throw self.failed("fdatasync")
        }
        self.counters.noteSync()
    }

    func fillWithZeros(_ size: Int) throws(StalkError) {
        guard retryingInterrupts({ CStalkSystem_fallocate(self.descriptor.number, 0, off_t(size)) }) == 0 else {
            throw self.failed("fallocate")
        }
        // Blocks that were only reserved make each first write a change of metadata; written zeros don't.
        let zeros = [UInt8](repeating: 0, count: min(size, 1 << 20))
        var offset = 0
        while offset < size {
            try self.write([UInt8](zeros.prefix(size - offset)), at: offset)
            offset += zeros.count
        }
        guard retryingInterrupts({ fsync(self.descriptor.number) }) == 0 else { throw self.failed("fsync") }
        self.counters.noteSync()
    }

    func dropCache() throws(StalkError) {
        _ = CStalkSystem_dropCache(self.descriptor.number)
    }

    private func failed(_ call: String) -> StalkError {
        StalkError(systemCall: call, path: self.path, errno: errno)
    }
}
