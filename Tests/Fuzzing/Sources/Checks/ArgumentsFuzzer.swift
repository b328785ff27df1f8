// What people type: arguments, and the small languages in them.

import ArgumentParser

@testable import StalkCLI
@testable import StalkCore

/// Parses arguments, each ended by a NUL byte; nothing is run.
///
/// An input without one is a single value, which is parsed
/// some hundred times as fast as a command line.
struct ArgumentsFuzzer: Fuzzer {
    private static let argumentsMax = 32

    var name: String { "arguments" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        let arguments = input.split(separator: 0).prefix(Self.argumentsMax)
            .map { String(decoding: $0, as: UTF8.self) }
        for argument in arguments {
            if let complaint = Self.values(argument, isPlanted) { return complaint }
        }
        // The planted bug is one of values; command lines would take its time.
        guard input.contains(0), !isPlanted else { return nil }
        do {
            return Self.command(try StalkCommand.parseAsRoot(arguments))
        } catch {
            let failure = CommandFailure(error)
            let isHelp = failure.status == .success
            return failure.status == .wrongUsage || isHelp ? nil : "\(arguments) ends with the status \(failure.status)"
        }
    }

    /// What was parsed must be within what the options say of themselves.
    private static func command(_ command: any ParsableCommand) -> String? {
        switch command {
        case let put as PutCommand:
            guard put.delay >= .zero else { return "a delay of \(put.delay)" }
        case let get as GetCommand:
            guard get.max >= 0, get.wait >= .zero else { return "at most \(get.max), waiting \(get.wait)" }
        case let work as WorkCommand:
            guard work.jobs >= 1, work.maxAttempts ?? 1 >= 1, !work.command.isEmpty else { return "\(work)" }
            guard let policy = try? work.retryPolicy() else { return nil }
            guard (try? RetryPolicy(text: policy.description)) == policy else { return "\(policy) came back changed" }
        default: break
        }
        return nil
    }

    private static func values(_ text: String, _ isPlanted: Bool) -> String? {
        if isPlanted, text.hasSuffix("d"), let days = Int16(text.dropLast()) {
            // The planted bug counts minutes without looking at the limit.
            let minutes = days &* 1440
            guard minutes / 1440 == days else { return "\(text) is \(minutes) minutes" }
        }
        if let duration = try? Duration(stalk: text) {
            let again = try? Duration(stalk: duration.stalkText)
            guard again == duration, duration >= .zero else {
                return "\(text) is \(duration), or \(duration.stalkText)"
            }
        }
        if let name = try? QueueName(text) {
            guard name.rawValue == text, (1...200).contains(text.utf8.count), !text.hasPrefix("-"),
                text.utf8.allSatisfy({ byte in byte > 0x2C && byte < 0x7B })
            else { return "the queue name \(text) was taken" }
        }
        let receipt = Receipt(text)
        guard receipt.description == text, Receipt(receipt.description) == receipt else {
            return "the receipt \(text) came back as \(receipt)"
        }
        if let policy = try? RetryPolicy(text: text) {
            guard (try? RetryPolicy(text: policy.description)) == policy else { return "the policy \(text) changed" }
        }
        if let header = try? PutCommand.parseHeader(text) {
            guard "\(header.name)=\(header.value)" == text else { return "the header \(text) came out as \(header)" }
        }
        return nil
    }
}
