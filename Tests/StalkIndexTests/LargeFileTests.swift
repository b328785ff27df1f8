import Glibc
import StalkCore
import StalkTesting
import Testing

@testable import StalkIndex

/// A data.mdb above 64 MiB, opened as a store's is, with a bit flipped in each kind of page.
@Suite struct LargeFileTests {
    @Test(arguments: LargeFile.Kind.allCases)
    func flippedBitsNeverEndTheProcess(kind: LargeFile.Kind) async throws {
        let directory = TemporaryDirectory()
        defer { directory.remove() }
        try LargeFile.fill(directory)
        await #expect(processExitsWith: .success) { [path = directory.path as String, kind = kind as LargeFile.Kind] in
            let file = try LargeFile(path: path)
            var outcomes: [StalkError.Code?: Int] = [:]
            for number in 0..<40 {
                let flip = try file.flip(number, kind)
                outcomes[code { try file.use(near: flip.page, checkedAtOnce: 64 << 20) }, default: 0] += 1
                file.flip(flip)
            }
            print("\(kind): \(outcomes)")
            let expected: [StalkError.Code?] = [nil, .storeDamaged, .corruptValue, .newerFormat]
            #expect(outcomes.keys.allSatisfy { expected.contains($0) }, "\(outcomes)")
            #expect(outcomes[.storeDamaged] ?? 0 > 0, "\(outcomes)")
            #expect(code { try file.use(near: 2, checkedAtOnce: 64 << 20) } == nil, "the bits were not mended")
        }
    }

    /// The control: the same bits, when nobody looks.
    @Test func withoutGuardTheyEndTheProcess() async throws {
        let directory = TemporaryDirectory()
        defer { directory.remove() }
        try LargeFile.fill(directory)
        await #expect(processExitsWith: .failure) { [path = directory.path as String] in
            let file = try LargeFile(path: path)
            for kind in LargeFile.Kind.allCases {
                for number in 0..<40 {
                    let flip = try file.flip(number, kind)
                    _ = try? file.use(near: flip.page, checkedAtOnce: nil)
                    file.flip(flip)
                }
            }
            _exit(0)
        }
    }
}

/// The file of these tests, whose pages are told apart.
struct LargeFile {
    enum Kind: String, Codable, CaseIterable {
        case meta
        case branch
        case leaf
        case value
        case freePages
    }

    struct Flip {
        var page: Int
        var offset: Int
        var bit: UInt8
    }

    static let rows = 24_000

    private let path: String
    private let descriptor: CInt
    private var pages: [Kind: [Int]] = [.meta: [0, 1]]

    init(path: String) throws {
        self.path = path
        self.descriptor = open("\(path)/data.mdb", O_RDWR)
        try #require(self.descriptor >= 0)
        let metas = try (0..<2).map { try MetaPage(self.bytes(of: $0), index: $0) }
        let newest = try #require(metas.max { $0.transaction < $1.transaction })
        try #require(newest.neededBytes > 64 << 20)
        for number in 2..<Int(newest.lastPage) {
            let header = try self.bytes(of: number, count: 16)
            // What is left of pages that were freed looks alike, and does no harm.
            guard littleEndian(UInt64.self, in: header, at: 0) == number else { continue }
            let kinds: [UInt16: Kind] = [0x01: .branch, 0x02: .leaf, 0x04: .value]
            guard let kind = kinds[littleEndian(UInt16.self, in: header, at: 10)] else { continue }
            self.pages[kind, default: []].append(number)
        }
        self.pages[.freePages] = [Int(newest.freeRoot)]
    }

    static func value(_ index: Int) -> [UInt8] {
        // Those of a kilobyte stand on leaves, the others on pages of their own.
        key(index) + [UInt8](repeating: 0x62, count: index % 4 == 0 ? 1000 : 3000)
    }

    static func fill(_ directory: TemporaryDirectory) throws {
        let environment = try directory.environment(mapBytes: 256 << 20)
        let table = environment.table("messages")
        try environment.write { transaction throws(StalkError) in
            for index in 0..<Self.rows { try transaction.append(table, key(index), Self.value(index)) }
        }
        try environment.write { transaction throws(StalkError) in
            for index in stride(from: 0, to: Self.rows, by: 40) { try transaction.delete(table, key(index)) }
        }
        environment.close()
    }

    /// Flips a bit that LMDB goes by in a page of a kind, more often near its beginning.
    func flip(_ number: Int, _ kind: Kind) throws -> Flip {
        var generator = SeededGenerator(seed: UInt64(number))
        let page = try #require(self.pages[kind]?.randomElement(using: &generator))
        // Where the header ends, and what comes after it.
        let most = kind == .value ? [16] : kind == .meta ? [152] : [16, 40, 4096]
        let offset = Int.random(in: 0..<most[number % most.count], using: &generator)
        let flip = Flip(page: page, offset: offset, bit: UInt8.random(in: 0..<8, using: &generator))
        self.flip(flip)
        return flip
    }

    func flip(_ flip: Flip) {
        var byte: UInt8 = 0
        let offset = off_t(flip.page * 4096 + flip.offset)
        pread(self.descriptor, &byte, 1, offset)
        byte ^= 1 << flip.bit
        pwrite(self.descriptor, &byte, 1, offset)
    }

    /// Opens the file, reads and deletes what stands on a page and elsewhere, and takes the deletions back.
    func use(near page: Int, checkedAtOnce: Int?) throws {
        let environment = try Environment(
            path: self.path,
            mapBytes: 256 << 20,
            tables: ["messages", "ready"],
            createIfMissing: false,
            checkedAtOnce: checkedAtOnce
        )
        defer { environment.close() }
        let table = environment.table("messages")
        let middle = page * Self.rows / (self.pages.values.joined().max() ?? 1)
        let rows = max(0, middle - 100)..<min(Self.rows, middle + 100)
        try environment.read { transaction throws(StalkError) in
            for index in rows {
                let found = try transaction.get(table, key(index))
                #expect(found == nil || found == Self.value(index))
            }
            var count = 0
            try transaction.scan(table, from: key(rows.lowerBound)) { _, _ in
                count += 1
                return count < 500 ? .next : .stop
            }
            _ = try transaction.last(table)
        }
        let undone = code {
            try environment.write { transaction throws(StalkError) in
                for index in rows { try transaction.delete(table, key(index)) }
                try transaction.put(table, key(Self.rows), [1])
                throw StalkError(.closed, "Taken back.")
            }
        }
        if undone != .closed { throw StalkError(undone ?? .invalidArgument, "The write did not go through.") }
    }

    private func bytes(of page: Int, count: Int = 4096) throws -> [UInt8] {
        try #require(PageFile.read(self.descriptor, at: page * 4096, count: count))
    }
}
