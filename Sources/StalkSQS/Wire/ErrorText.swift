// What a person reads when AWS refuses: what happened, and what to do.

internal import StalkCore

/// What was asked of whom, for the sentences of errors.
struct CallContext: Hashable, Sendable {
    /// The action as policies name it, for instance `sqs:SendMessage`.
    var action: String
    /// The queue's name or address.
    var queue: String
    var region: String
    /// The public half of who asked.
    var accessKeyID: String?
    /// How far the server's clock is ahead of this machine's.
    var clockOffset: Duration = .zero
}

extension ServiceError {
    /// The error in Stalk's words.
    func stalkError(_ context: CallContext) -> StalkError {
        let (code, text) = self.explanation(context)
        return StalkError(code, text, cause: ServiceAnswer(self))
    }

    private func explanation(_ context: CallContext) -> (StalkError.Code, String) {
        let queue = quoted(context.queue)
        let key = context.accessKeyID.map { " with the access key \($0)" } ?? ""
        switch self.code {
        case "QueueDoesNotExist", "NonExistentQueue":
            return (
                .noSuchQueue,
                "SQS has no queue \(queue) in \(context.region): create it, or name the region and account it is in."
            )
        case "QueueDeletedRecently":
            return (.unavailable, "The queue \(queue) was deleted a moment ago: SQS takes 60 seconds to forget it.")
        case "AccessDenied", "AccessDeniedException":
            return (
                .permissionDenied,
                "AWS does not allow \(context.action) on \(queue)\(key): allow it in the policy of that identity or "
                    + "of the queue."
            )
        case "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId":
            return (
                .permissionDenied,
                "AWS does not know the credentials\(key): check that they are of the right account and not deleted."
            )
        case "ExpiredToken", "ExpiredTokenException":
            return (
                .permissionDenied,
                "The credentials\(key) have expired: get new ones, for instance by signing in "
                    + "again."
            )
        case "ReceiptHandleIsInvalid", "MessageNotInflight":
            return (.staleReceipt, "SQS no longer takes this receipt of \(queue): the message may come again.")
        case "OverLimit":
            return (
                .unavailable,
                "SQS holds as many unfinished messages of \(queue) as it allows: finish some, then more can be taken."
            )
        case "BatchRequestTooLong", "InvalidMessageContents":
            return (.invalidArgument, "SQS refused a message to \(queue): \(self.message)")
        case "UnsupportedOperation", "InvalidAction", "AWS.SimpleQueueService.UnsupportedOperation":
            return (.unsupported, "SQS can't do \(context.action) on \(queue): \(self.message)")
        default:
            return self.explanationByKind(context)
        }
    }

    private func explanationByKind(_ context: CallContext) -> (StalkError.Code, String) {
        let queue = quoted(context.queue)
        switch self.kind {
        case .clock:
            let minutes = abs(context.clockOffset.components.seconds) / 60
            let off = minutes > 0 ? " by about \(minutes) minutes" : ""
            return (
                .unavailable,
                "The clock of this machine is off\(off): set it, AWS refuses what is signed at "
                    + "another time."
            )
        case .throttle:
            return (
                .throttled,
                "SQS asks for fewer requests to \(queue): it was tried again, try later or ask for "
                    + "more quota."
            )
        case .transient:
            return (.unavailable, "SQS failed at \(context.action) on \(queue) (HTTP \(self.status)): try again later.")
        case .credentials, .permanent:
            break
        }
        if self.message.contains("valid region") || [301, 302, 307, 308].contains(self.status) {
            return (
                .invalidArgument,
                "The queue \(queue) is not in \(context.region): name its region with ?region= or AWS_REGION."
            )
        }
        if ["SignatureDoesNotMatch", "InvalidSignatureException"].contains(self.code) {
            let key = context.accessKeyID.map { " of \($0)" } ?? ""
            return (.permissionDenied, "AWS does not accept the signature: the secret key\(key) is wrong.")
        }
        if self.code.hasPrefix("Kms") || self.code.hasPrefix("KMS") {
            return (
                .permissionDenied,
                "The key that encrypts \(queue) can't be used (\(self.code)): allow it in its policy, or enable it."
            )
        }
        let said = [self.code, self.message].filter { !$0.isEmpty }.joined(separator: ": ")
        return (
            .invalidArgument,
            "SQS refused \(context.action) on \(queue) (HTTP \(self.status)): "
                + "\(said.isEmpty ? "it gave no reason" : said)"
        )
    }
}

/// What the service answered, as the cause of an error.
struct ServiceAnswer: Error, Hashable, CustomStringConvertible {
    var description: String

    init(_ error: ServiceError) {
        self.description = "SQS answered \(error.status) \(error.code): \(error.message)".trimmingSpace
    }
}
