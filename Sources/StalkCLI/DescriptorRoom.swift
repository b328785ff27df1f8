// Looks whether there are enough file descriptors before anything begins.

internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// The file descriptors that a command needs.
///
/// What runs below can't do without: Swift's runtime and the package that starts programs end the process when the system
/// refuses them one. So too few are refused here, in words, before anything is under way.
enum DescriptorRoom {
    /// What any command needs at most for itself: the store's files, the runtime's queues, standard streams.
    static let ofCommand = 52
    /// What the command needs that tells how many there are.
    static let ofDoctor = 16
    /// What a program that runs for a message needs at most, while it is started.
    static let ofProgram = 10

    /// Makes sure that so many can be opened, raising the limit within what is allowed.
    ///
    /// - Parameters:
    ///   - count: How many.
    ///   - advice: What to do besides raising the limit.
    /// - Throws: ``StalkError`` with `unavailable`.
    static func require(_ count: Int = Self.ofCommand, _ advice: String = "close some") throws(StalkError) {
        var free = Self.free(upTo: count)
        if free < count, Self.raiseLimit(by: count - free) { free = Self.free(upTo: count) }
        guard free < count else { return }
        throw StalkError(
            .unavailable,
            "\(count) file descriptors are needed, and only \(free) can be opened: raise the limit (ulimit -n), or \(advice). "
                + "Nothing was done."
        )
    }

    /// How many can be opened, up to a count.
    private static func free(upTo count: Int) -> Int {
        var opened: [CInt] = []
        while opened.count < count {
            let descriptor = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard descriptor >= 0 else { break }
            opened.append(descriptor)
        }
        for descriptor in opened { close(descriptor) }
        return opened.count
    }

    private static func raiseLimit(by count: Int) -> Bool {
        var limits = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits) == 0 else { return false }
        let wanted = limits.rlim_cur + rlim_t(count)
        guard wanted <= limits.rlim_max else { return false }
        limits.rlim_cur = wanted
        return setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits) == 0
    }
}
