import Foundation
import StalkCore
import StalkFiles
import StalkTesting
import Testing

@testable import StalkLocal

/// What is wrong with a place is said, and a sound one is not blamed.
@Suite(.timeLimit(.minutes(10))) struct DoctorTests {
    private static let machine = MachineFacts(
        wall: 1_800_000_000_000,
        sinceBoot: 5000,
        bootID: "boot",
        lmdb: "0.9.24",
        zstd: "1.5.4"
    )

    /// The facts of this machine's own disk, made those of a sound place.
    private static func soundPlace() throws -> PlaceFacts {
        var place = try PlaceFacts(at: FileManager.default.temporaryDirectory.path, syncsFor: .zero)
        place.isThere = true
        place.mode = 0o700
        place.isOwn = true
        place.isWritable = true
        place.isReadOnly = false
        place.fileSystemType = 0xEF53
        place.freeBytes = 100 << 30
        place.freeFiles = 1_000_000
        place.openFilesMax = 1024
        place.fileBytesMax = nil
        place.hasOpenBeneath = true
        place.changedAt = Self.machine.wall
        place.syncTimes = .success(.init(count: 100, medianNanoseconds: 90_000, slowestNanoseconds: 1_000_000))
        return place
    }

    private static func diagnose(
        _ machine: MachineFacts = Self.machine,
        store: Result<Bool, StalkError> = .success(false),
        _ change: (inout PlaceFacts) -> Void = { _ in }
    ) throws -> [String: Diagnosis.Grade] {
        var place = try Self.soundPlace()
        change(&place)
        let diagnosis = Diagnosis(path: "/place", .success(place), store: store, machine)
        for finding in diagnosis.findings {
            #expect(!finding.what.isEmpty)
            #expect((finding.grade == .ok) == finding.advice.isEmpty, "\(finding)")
        }
        #expect(diagnosis.isFit == diagnosis.findings.allSatisfy { $0.grade != .bad })
        let blamed = diagnosis.findings.filter { $0.grade != .ok }
        return Dictionary(uniqueKeysWithValues: blamed.map { ($0.subject, $0.grade) })
    }

    @Test func soundPlaceIsNotBlamed() throws {
        #expect(try Self.diagnose().isEmpty)
        #expect(try Self.diagnose(store: .success(true)).isEmpty)
        #expect(try Self.diagnose { $0.isThere = false }.isEmpty)
        #expect(try Self.diagnose { $0.freeFiles = nil }.isEmpty)
        #expect(try Self.diagnose { $0.openFilesMax = nil }.isEmpty)
    }

    @Test func eachFaultIsNamed() throws {
        #expect(try Self.diagnose { $0.isDirectory = false } == ["directory": .bad])
        #expect(try Self.diagnose { $0.isReadOnly = true } == ["directory": .bad])
        #expect(try Self.diagnose { $0.isWritable = false } == ["directory": .bad])
        #expect(try Self.diagnose { $0.mode = 0o770 } == ["directory": .bad])
        #expect(try Self.diagnose { $0.mode = 0o755 } == ["directory": .warning])
        #expect(try Self.diagnose { $0.isOwn = false } == ["directory": .warning])
        #expect(try Self.diagnose { $0.fileSystemType = 0x6969 } == ["file system": .bad])
        #expect(try Self.diagnose { $0.fileSystemType = 0x0102_1994 } == ["file system": .bad])
        #expect(try Self.diagnose { $0.fileSystemType = 0x9123_683E } == ["file system": .warning])
        #expect(try Self.diagnose { $0.fileSystemType = 0x1234 } == ["file system": .warning])
        #expect(try Self.diagnose { $0.freeBytes = 1 << 20 } == ["space": .bad])
        #expect(try Self.diagnose { $0.freeBytes = 100 << 20 } == ["space": .warning])
        #expect(try Self.diagnose { $0.freeFiles = 3 } == ["inodes": .bad])
        #expect(try Self.diagnose { $0.openFilesMax = 20 } == ["open files": .bad])
        #expect(try Self.diagnose { $0.openFilesMax = 128 } == ["open files": .warning])
        #expect(try Self.diagnose { $0.fileBytesMax = 1 << 20 } == ["file size": .bad])
        #expect(try Self.diagnose { $0.fileBytesMax = 1 << 30 } == ["file size": .warning])
        #expect(try Self.diagnose { $0.hasOpenBeneath = false } == ["kernel": .bad])
        #expect(try Self.diagnose(store: .failure(StalkError(.notAStore, "x"))) == ["store": .bad])
    }

    @Test func clocksAndLibraries() throws {
        var machine = Self.machine
        machine.wall = 0
        #expect(try Self.diagnose(machine)["clock"] == .bad)
        machine = Self.machine
        machine.wall -= 3_600_000
        #expect(try Self.diagnose(machine) == ["clock": .warning])
        machine = Self.machine
        machine.bootID = ""
        #expect(try Self.diagnose(machine) == ["clock": .warning])
        machine = Self.machine
        machine.lmdb = "0.9.7"
        machine.zstd = "1.3.8"
        #expect(try Self.diagnose(machine) == ["liblmdb": .warning, "libzstd": .warning])
    }

    /// A sync that does nothing is faster than any device; one that fails is worse than a slow one.
    @Test func syncsAreJudgedByTheirTime() throws {
        func times(_ nanoseconds: Int64) -> Result<PlaceFacts.SyncTimes, StalkError> {
            .success(.init(count: 9, medianNanoseconds: nanoseconds, slowestNanoseconds: nanoseconds * 2))
        }
        #expect(try Self.diagnose { $0.syncTimes = times(2_000) } == ["sync": .warning])
        #expect(try Self.diagnose { $0.syncTimes = times(9_999) } == ["sync": .warning])
        #expect(try Self.diagnose { $0.syncTimes = times(10_000) }.isEmpty)
        #expect(try Self.diagnose { $0.syncTimes = times(8_000_000) }.isEmpty)
        #expect(try Self.diagnose { $0.syncTimes = times(50_000_000) } == ["sync": .warning])
        #expect(try Self.diagnose { $0.syncTimes = .failure(StalkError(.storageFailed, "EIO")) } == ["sync": .bad])
    }

    /// One that is not there yet, one with a store that is open, and a file: nothing is left behind.
    @Test func realPlaces() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let missing = try await LocalStore.diagnose(temporary.path + "/not/there")
        #expect(missing.findings.first { $0.subject == "directory" }?.what.contains("can be made in") == true)
        #expect(!FileManager.default.fileExists(atPath: temporary.path))

        let store = try await temporary.open()
        let before = try everything(in: temporary.path).filter { $0.key != "." }
        let open = try await LocalStore.diagnose(temporary.path)
        #expect(open.findings.first { $0.subject == "store" }?.what.contains("there is a store") == true)
        #expect(open.findings.first { $0.subject == "directory" }?.grade == .ok)
        #expect(try everything(in: temporary.path).filter { $0.key != "." } == before)
        try await store.close()

        let file = try await LocalStore.diagnose(temporary.path + "/STALK")
        #expect(!file.isFit)
    }

    /// The control of the sync times: in memory there is nothing to sync, and it shows.
    @Test func memoryIsTold() async throws {
        let place = try PlaceFacts(at: "/dev/shm", syncsFor: .milliseconds(20))
        guard case .memory = place.fileSystem, let times = try? place.syncTimes.get() else {
            print("SKIPPED: /dev/shm is no tmpfs here, so syncs in memory can't be timed.")
            return
        }
        let disk = try PlaceFacts(at: FileManager.default.temporaryDirectory.path, syncsFor: .milliseconds(20))
        guard case .local = disk.fileSystem else { return }
        #expect(try times.medianNanoseconds < disk.syncTimes.get().medianNanoseconds)
        #expect(try await !LocalStore.diagnose("/dev/shm").isFit)
    }
}
