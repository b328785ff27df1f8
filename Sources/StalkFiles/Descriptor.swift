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

/// A name's last component and the open directory that holds it, for the calls that can't be told to stay below one.
struct Place: ~Copyable {
    private let root: Int32
    private let subdirectory: Descriptor?
    let name: String

    /// Opens the subdirectory of a name, without following symbolic links.
    ///
    /// - Throws: ``StalkError`` for a name that is not a component, or a component below a subdirectory.
    init(of path: String, below root: Int32, shown: String) throws(StalkError) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." }) else {
            throw StalkError(systemCall: "openat2", path: shown, errno: EXDEV)
        }
        self.subdirectory = parts.count == 1 ? nil : try Self.open(String(parts[0]), below: root, shown: shown)
        self.root = root
        self.name = String(parts[parts.count - 1])
    }

    private static func open(_ name: String, below root: Int32, shown: String) throws(StalkError) -> Descriptor {
        try Descriptor(below: root, name, flags: O_RDONLY | O_DIRECTORY, mode: 0, shown: shown)
    }

    /// The directory's descriptor, which lives as long as the place.
    var directory: Int32 {
        switch self.subdirectory {
        case .some(let subdirectory): subdirectory.number
        case nil: self.root
        }
    }
}

/// Makes a system call again for as long as a signal interrupts it.
func retryingInterrupts<Number: SignedInteger>(_ call: () -> Number) -> Number {
    while true {
        let result = call()
        if result != -1 || errno != EINTR { return result }
    }
}
