// One owner, one close.

internal import CStalkSystem
internal import Glibc
internal import StalkCore

/// An open file descriptor; closed when its owner ends.
struct Descriptor: ~Copyable {
    let number: Int32

    init(owning number: Int32) {
        self.number = number
    }

    deinit {
        Glibc.close(self.number)
    }

    /// Opens a path below a directory without following symbolic links.
    init(below directory: Int32, _ name: String, flags: Int32, mode: mode_t, shown path: String) throws(StalkError) {
        let number = retryingInterrupts {
            CStalkSystem_openBeneath(directory, name, flags | O_CLOEXEC, mode)
        }
        guard number >= 0 else { throw StalkError(systemCall: "openat2", path: path, errno: errno) }
        self.number = number
    }
}

/// Makes a system call again for as long as a signal interrupts it.
func retryingInterrupts<Number: SignedInteger>(_ call: () -> Number) -> Number {
    while true {
        let result = call()
        if result != -1 || errno != EINTR { return result }
    }
}
