// The bytes of one simulated file: what memory shows, what the disk holds, and what lies between the two.

internal import Glibc

/// The bytes of a file, in pages.
struct SimulatedContent: Sendable {
    static let pageBytes = 4096
    static let sectorBytes = 512

    /// 4096 bytes, or none for zeros.
    private typealias Page = [UInt8]

    /// A page as it was after a write that no sync has followed yet.
    private struct Version: Sendable {
        var serial: UInt64
        var page: Page
    }

    private struct Resize: Sendable {
        var serial: UInt64
        var size: Int
    }

    private var cached: [Page] = []
    private var durable: [Page] = []
    /// The pages that the disk may hold in any of these versions, oldest first.
    private var dirty: [Int: [Version]] = [:]
    /// The size that memory shows.
    private(set) var size = 0
    private var durableSize = 0
    private var resizes: [Resize] = []

    /// The numbers of what a power cut may lose.
    var unsyncedSerials: [UInt64] {
        self.dirty.values.flatMap { $0.map(\.serial) } + self.resizes.map(\.serial)
    }

    // MARK: What memory does

    func read(at offset: Int, count: Int) -> [UInt8] {
        let count = max(0, min(count, self.size - offset))
        guard count > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            while filled < count {
                let place = offset + filled
                let start = place % Self.pageBytes
                let length = min(Self.pageBytes - start, count - filled)
                let target = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[filled...])
                let index = place / Self.pageBytes
                if index < self.cached.count, !self.cached[index].isEmpty {
                    self.cached[index].withUnsafeBytes {
                        target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + length]))
                    }
                } else {
                    if let start = target.baseAddress { memset(start, 0, length) }
                }
                filled += length
            }
        }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: Int, serial: UInt64) {
        guard !bytes.isEmpty else { return }
        Self.put(bytes, at: offset, in: &self.cached)
        for index in offset / Self.pageBytes...(offset + bytes.count - 1) / Self.pageBytes {
            self.dirty[index, default: []].append(Version(serial: serial, page: self.cached[index]))
        }
        self.resize(to: max(self.size, offset + bytes.count), serial)
    }

    private static func put(_ bytes: UnsafeRawBufferPointer, at offset: Int, in pages: inout [Page]) {
        var written = 0
        while written < bytes.count {
            let place = offset + written
            let start = place % Self.pageBytes
            let length = min(Self.pageBytes - start, bytes.count - written)
            let piece = UnsafeRawBufferPointer(rebasing: bytes[written..<written + length])
            let index = place / Self.pageBytes
            while pages.count <= index { pages.append([]) }
            if pages[index].isEmpty { pages[index] = Page(repeating: 0, count: Self.pageBytes) }
            pages[index].withUnsafeMutableBytes { page in
                UnsafeMutableRawBufferPointer(rebasing: page[start..<start + length]).copyMemory(from: piece)
            }
            written += length
        }
    }

    mutating func fillWithZeros(_ size: Int, serial: UInt64) {
        for index in self.cached.indices where index * Self.pageBytes < size && !self.cached[index].isEmpty {
            let zeros = Page(repeating: 0, count: min(Self.pageBytes, size - index * Self.pageBytes))
            zeros.withUnsafeBytes { self.write($0, at: index * Self.pageBytes, serial: serial) }
        }
        self.resize(to: max(self.size, size), serial)
    }

    private mutating func resize(to size: Int, _ serial: UInt64) {
        guard size != self.size else { return }
        self.size = size
        self.resizes.append(Resize(serial: serial, size: size))
    }

    // MARK: What the disk does

    /// Brings everything to the disk.
    mutating func sync() {
        while self.durable.count < self.cached.count { self.durable.append([]) }
        // Clean pages are not written: after a failed sync they may differ from what the disk holds.
        for index in self.dirty.keys { self.durable[index] = self.cached[index] }
        self.dirty.removeAll(keepingCapacity: true)
        self.durableSize = self.size
        self.resizes = []
    }

    /// Takes all pages for written although none was, as ext4 does when writing them fails.
    mutating func forgetDirtyPages() {
        self.dirty.removeAll()
    }

    /// Lets memory show what the disk holds, except for what is still to be written.
    mutating func dropCache() {
        let former = self.cached
        self.cached = self.durable
        while self.cached.count < former.count { self.cached.append([]) }
        for index in self.dirty.keys { self.cached[index] = former[index] }
    }

    /// The file as the disk holds it after a power cut.
    func after(_ cut: inout PowerCut) -> SimulatedContent {
        var result = SimulatedContent()
        result.durable = self.durable
        for (index, versions) in self.dirty.sorted(by: { $0.key < $1.key }) {
            while result.durable.count <= index { result.durable.append([]) }
            result.durable[index] = Self.torn(result.durable[index], versions, &cut)
        }
        let survivors = cut.kept(of: self.resizes.lazy.map(\.serial))
        result.durableSize = survivors == 0 ? self.durableSize : self.resizes[survivors - 1].size
        result.cached = result.durable
        result.size = result.durableSize
        return result
    }

    private static func torn(_ durable: Page, _ versions: [Version], _ cut: inout PowerCut) -> Page {
        let serials = versions.lazy.map(\.serial)
        if cut.unitBytes == Self.pageBytes {
            let survivors = cut.kept(of: serials)
            return survivors == 0 ? durable : versions[survivors - 1].page
        }
        var page = durable.isEmpty ? Page(repeating: 0, count: Self.pageBytes) : durable
        page.withUnsafeMutableBytes { bytes in
            for start in stride(from: 0, to: Self.pageBytes, by: Self.sectorBytes) {
                let survivors = cut.kept(of: serials)
                guard survivors > 0 else { continue }
                let sector = start..<start + Self.sectorBytes
                versions[survivors - 1].page.withUnsafeBytes {
                    UnsafeMutableRawBufferPointer(rebasing: bytes[sector])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[sector]))
                }
            }
        }
        return page
    }

    // MARK: Damage

    /// Changes bytes in memory and on the disk at once, as no crash can.
    mutating func damage(at offset: Int, with bytes: [UInt8]) {
        bytes.withUnsafeBytes {
            Self.put($0, at: offset, in: &self.cached)
            Self.put($0, at: offset, in: &self.durable)
        }
    }

    /// Cuts the file off, in memory and on the disk at once.
    mutating func truncate(to size: Int) {
        self.size = min(self.size, size)
        self.cached.removeLast(self.cached.count - min(self.cached.count, self.size.dividedUp(by: Self.pageBytes)))
        let end = self.size % Self.pageBytes
        if let last = self.cached.indices.last, last == self.size / Self.pageBytes, !self.cached[last].isEmpty {
            self.cached[last].replaceSubrange(end..., with: repeatElement(0, count: Self.pageBytes - end))
        }
        self.durable = self.cached
        self.dirty = [:]
        self.durableSize = self.size
        self.resizes = []
    }
}

extension Int {
    fileprivate func dividedUp(by divisor: Int) -> Int { (self + divisor - 1) / divisor }
}
