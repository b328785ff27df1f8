import Glibc
import StalkCore
import StalkFiles
import Testing

@Suite struct SystemCallErrorTests {
    @Test(
        "Each errno becomes the error that a person can act on",
        arguments: [
            (ENOSPC, .storageFull), (EDQUOT, .storageFull), (EFBIG, .storageFull),
            (EACCES, .permissionDenied), (EPERM, .permissionDenied), (EROFS, .permissionDenied),
            (ENAMETOOLONG, .pathTooLong),
            (EMFILE, .unavailable), (ENFILE, .unavailable),
            (ENOTDIR, .notAStore), (EISDIR, .notAStore), (ELOOP, .notAStore), (EXDEV, .notAStore),
            (ENOENT, .noSuchStore),
            (EIO, .storageFailed), (EBADF, .storageFailed), (EINVAL, .storageFailed), (ENODEV, .storageFailed),
        ] as [(Int32, StalkError.Code)]
    )
    func mapping(errno: Int32, code: StalkError.Code) {
        let error = StalkError(systemCall: "pwrite", path: "/store/log/7", errno: errno)
        #expect(error.code == code)
        #expect(error.message.hasPrefix("pwrite of /store/log/7 failed: \(String(cString: strerror(errno)))"))
        #expect(error.message.contains("(errno \(errno))"))
        // What happened is the first sentence, what to do the second.
        #expect(error.message.hasSuffix("."))
        #expect(error.message.split(separator: ". ").count >= 2)
    }
}
