// The root of the command tree, and what every command shares.

internal import ArgumentParser
internal import StalkCore

struct StalkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stalk",
        abstract: "Durable message queues in a directory: no broker runs.",
        discussion: """
            A message that was published is on disk, and stays until it is acknowledged.

              stalk put mail --lines < addresses.txt     publish one message per line
              stalk work mail -j 4 -- ./send.sh          run a command for each of them
              stalk stats                                see what is left

            Queues live in a store, which is the directory given by --store, else $STALK_STORE, else \
            $XDG_STATE_HOME/stalk, else ~/.local/state/stalk. The first 'put' makes the store and the queue.

            Exit codes: 0 done, 1 other failure, 2 wrong usage, 3 no such queue or message, 4 store busy, 5 disk or \
            quota full, 6 damaged store.
            """,
        version: "0.1.0",
        subcommands: [
            PutCommand.self, GetCommand.self, WorkCommand.self, StatsCommand.self, PeekCommand.self, ShowCommand.self,
            KickCommand.self, RedriveCommand.self, MoveCommand.self, DeleteCommand.self, PurgeCommand.self,
            ForwardCommand.self, PauseCommand.self, ResumeCommand.self, ServeCommand.self, TopCommand.self,
            VerifyCommand.self, RepairCommand.self, BackupCommand.self, CompactCommand.self, DoctorCommand.self,
            BenchCommand.self, TortureCommand.self,
            // Children of other commands; not for people.
            TortureLoadCommand.self, TortureCheckCommand.self, VerifyReaderCommand.self,
        ]
    )

    /// Here too, so that `--store` may also stand before the command's name.
    @OptionGroup var storeOptions: StoreOptions
}

/// A duration such as `5s`, as an option's value.
func parseDuration(_ text: String) throws -> Duration {
    do {
        return try Duration(stalk: text)
    } catch {
        throw ValidationError(error.message)
    }
}

/// A whole number that is not below a smallest one.
func parseCount(_ text: String, atLeast smallest: Int) throws -> Int {
    guard let number = Int(text), number >= smallest else {
        throw ValidationError("Give a whole number, at least \(smallest).")
    }
    return number
}
