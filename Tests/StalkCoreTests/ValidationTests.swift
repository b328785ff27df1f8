import StalkCore
import Testing

private let capabilities = CollectorCapabilities(
    maxBodyBytes: 10,
    maxDelay: .seconds(60),
    maxLease: .seconds(3600),
    maxBatch: 100,
    ordering: .firstInFirstOut,
    leaseExtension: true,
    atomicPublish: true,
    uncountedRelease: true,
    durableDelay: true
)

@Suite struct MessageValidationTests {
    @Test func acceptsUpToEveryLimit() throws {
        try Message("").validate(for: capabilities)
        try Message("0123456789", headers: ["a": "b"], delay: .seconds(60)).validate(for: capabilities)
        try Message("x", delay: .nanoseconds(1)).validate(for: capabilities)
    }

    @Test func refusesALongBodyWithBothSizes() throws {
        let error = try stalkError { try Message("0123456789a").validate(for: capabilities) }
        #expect(error.code == .bodyTooLarge)
        #expect(error.message.contains("11 bytes"))
        #expect(error.message.contains("10"))
        #expect(try stalkError { try Message("€€€€").validate(for: capabilities) }.code == .bodyTooLarge)
    }

    @Test func refusesBadHeaders() throws {
        let name = try stalkError { try Message("", headers: ["a b": ""]).validate(for: capabilities) }
        #expect(name.code == .invalidArgument)
        let long: Headers = ["a": String(repeating: "b", count: Headers.maxBytes)]
        #expect(try stalkError { try Message("", headers: long).validate(for: capabilities) }.code == .bodyTooLarge)
    }

    @Test(
        arguments: [
            .nanoseconds(-1), .seconds(-60), .seconds(60) + .nanoseconds(1), Message.maxDelay, .seconds(Int64.max) * 2,
            .seconds(Int64.min) * 2,
        ] as [Duration]
    )
    func refusesADelayOutOfRange(delay: Duration) throws {
        let error = try stalkError { try Message("", delay: delay).validate(for: capabilities) }
        #expect(error.code == .delayOutOfRange)
    }

    @Test func namesTheDelayAndTheLongestOne() throws {
        let message = try stalkError { try Message("", delay: .seconds(120)).validate(for: capabilities) }.message
        #expect(message.contains("2m"))
        #expect(message.contains("1m"))
    }
}

@Suite struct TakeRequestValidationTests {
    @Test func acceptsUpToEveryLimit() throws {
        try TakeRequest().validate(for: capabilities)
        try TakeRequest(max: 1, wait: .zero, lease: .nanoseconds(1)).validate(for: capabilities)
        try TakeRequest(max: 100, wait: .seconds(Int64.max), lease: .seconds(3600)).validate(for: capabilities)
    }

    @Test(arguments: [
        TakeRequest(max: 0), TakeRequest(max: -1), TakeRequest(wait: .nanoseconds(-1)), TakeRequest(lease: .zero),
        TakeRequest(lease: .seconds(-1)), TakeRequest(lease: .seconds(3600) + .nanoseconds(1)),
        TakeRequest(lease: .seconds(Int64.max) * 2),
    ])
    func refuses(request: TakeRequest) throws {
        #expect(try stalkError { try request.validate(for: capabilities) }.code == .invalidArgument)
    }

    @Test func namesTheValueAndItsLimit() throws {
        let none = try stalkError { try TakeRequest(max: -3).validate(for: capabilities) }
        #expect(none.message.contains("-3"))
        let long = try stalkError { try TakeRequest(lease: .seconds(7200)).validate(for: capabilities) }
        #expect(long.message.contains("2h"))
        #expect(long.message.contains("1h"))
    }
}
