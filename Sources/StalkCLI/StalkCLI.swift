// The command `stalk` as a library, so that tests reach every part of it; the executable only calls ``CommandLineTool``.

internal import ArgumentParser
internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// The command line tool `stalk`.
public enum CommandLineTool {
    /// Runs the tool with the arguments of this process and ends the process with its exit code.
    ///
    /// Writing to a closed pipe becomes an error of the write instead of killing the process.
    public static func main() async -> Never {
        signal(SIGPIPE, SIG_IGN)
        do throws(StalkError) {
            // Before anything waits, for which the runtime needs some.
            let saysWhatIsShort = CommandLine.arguments.dropFirst().first == DoctorCommand.configuration.commandName
            try DescriptorRoom.require(saysWhatIsShort ? DescriptorRoom.ofDoctor : DescriptorRoom.ofCommand)
        } catch {
            exit(Self.report(error))
        }
        let code =
            switch Self.processArguments() {
            case .success(let arguments): await Self.run(arguments)
            case .failure(let error): Self.report(error)
            }
        exit(code)
    }

    /// Runs the tool with arguments and reports what went wrong on standard error.
    ///
    /// - Parameter arguments: The arguments, without the tool's name.
    /// - Returns: The exit code, as the command line contract lists it.
    public static func run(_ arguments: [String]) async -> Int32 {
        do {
            var command = try StalkCommand.parseAsRoot(arguments)
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
            return ExitStatus.success.rawValue
        } catch {
            return Self.report(error)
        }
    }

    /// The arguments of this process, refused where Swift would silently replace bytes that are not UTF-8.
    private static func processArguments() -> Result<[String], StalkError> {
        var arguments: [String] = []
        for index in 1..<max(1, Int(CommandLine.argc)) {
            guard let pointer = CommandLine.unsafeArgv[index] else { break }
            guard let argument = String(validatingCString: pointer) else {
                return .failure(
                    StalkError(
                        .invalidArgument,
                        "Argument \(index) is not UTF-8: give bytes of any kind on standard input or in a file instead."
                    )
                )
            }
            arguments.append(argument)
        }
        return .success(arguments)
    }

    private static func report(_ error: any Error) -> Int32 {
        let failure = CommandFailure(error)
        failure.text.map { StandardError.write($0, to: failure.status == .success ? STDOUT_FILENO : STDERR_FILENO) }
        return failure.status.rawValue
    }
}
