import Glibc
import StalkCore
import Testing

@testable import StalkIndex

/// What LMDB's codes mean to people; LMDB's own numbers are part of its interface (lmdb.h).
@Suite struct LMDBErrorTests {
    private static let codes: [(status: CInt, code: StalkError.Code)] = [
        (-30796, .storeDamaged), (-30797, .storeDamaged), (-30793, .storeDamaged), (-30784, .storeDamaged),
        (-30782, .storeDamaged), (-30794, .newerFormat), (-30792, .storageFull), (-30795, .storageFailed),
        (-30785, .storeBusy), (-30781, .invalidArgument), (-30790, .unavailable), (-30788, .unavailable),
        (ENOSPC, .storageFull), (EDQUOT, .storageFull), (EFBIG, .storageFull), (EIO, .storageFailed),
        (EACCES, .permissionDenied), (EROFS, .permissionDenied), (ENOENT, .notAStore), (EISDIR, .notAStore),
        (ENAMETOOLONG, .pathTooLong),
        (EBUSY, .storeBusy), (EMFILE, .unavailable), (ENOMEM, .unavailable), (EXDEV, .storageFailed),
    ]

    @Test(arguments: Self.codes)
    func everyCodeSaysWhatToDo(status: CInt, code: StalkError.Code) {
        let error = StalkError.lmdb(status, "try it")
        #expect(error.code == code)
        #expect(error.message.hasPrefix("Can't try it: "))
        #expect(error.message.count > 30)
        // Who looks into the cause finds LMDB's own words and number.
        let cause = error.cause.map { "\($0)" } ?? ""
        #expect(cause.contains("(\(status))"))
    }

    /// A full disk whose room came back at once looks like this: nothing else tells it from a failed one.
    @Test func writeThatWasCutShortIsNoFailedDisk() {
        for systemError in [0, EINTR] {
            let code = LMDBCode(commit: EIO, systemError: systemError)
            #expect(StalkError.lmdb(code.rawValue, "try it").code == .storageFull)
        }
        for (status, systemError) in [(EIO, EIO), (EIO, EINVAL), (ENOSPC, ENOSPC), (-30796, 0)] as [(CInt, CInt)] {
            #expect(LMDBCode(commit: status, systemError: systemError).rawValue == status)
        }
    }

    @Test func dataFileThatIsNoFileIsRefused() throws {
        let directory = TemporaryDirectory()
        try #require(mkfifo(directory.dataFile, 0o600) == 0)
        #expect(throws: StalkError.self) { _ = try directory.environment() }
        unlink(directory.dataFile)
        try #require(mkdir(directory.dataFile, 0o700) == 0)
        #expect(throws: StalkError.self) { _ = try directory.environment() }
        rmdir(directory.dataFile)
    }
}
