import StalkCore
import StalkLog
import Testing

@testable import StalkLocal

@Suite struct PublishCallsTests {
    private func record(_ client: UInt64, _ call: UInt64, answeredBelow: UInt64 = 0) -> CallRecord {
        CallRecord(client: client, call: call, answeredBelow: answeredBelow, position: 0, first: call * 10, count: 2)
    }

    private func known(_ calls: PublishCalls, _ client: UInt64, _ call: UInt64) -> Int {
        var results = [Result<MessageID, StalkError>?](repeating: nil, count: 3)
        calls.recall(CallOrigin(client: client, call: call, answeredBelow: 0), into: &results)
        return results.count { $0 != nil }
    }

    @Test func onlyWhatMayBeRepeatedIsKept() {
        var calls = PublishCalls()
        for call in 1...5 as ClosedRange<UInt64> { calls.note(self.record(7, call)) }
        calls.note(self.record(8, 1))
        #expect(self.known(calls, 7, 3) == 2 && self.known(calls, 8, 1) == 2 && self.known(calls, 8, 2) == 0)
        calls.note(self.record(7, 6, answeredBelow: 4))
        #expect(self.known(calls, 7, 3) == 0 && self.known(calls, 7, 4) == 2 && calls.records.count == 4)
        calls.forget(7)
        #expect(calls.records == [self.record(8, 1)])
        calls.forget(8)
        #expect(calls.isEmpty)
    }

    @Test func clientsThatCalledLongAgoAreForgotten() {
        var calls = PublishCalls()
        for client in 1...2000 as ClosedRange<UInt64> { calls.note(self.record(client, 1)) }
        #expect(calls.records.count == PublishCalls.maxClients && self.known(calls, 2000, 1) == 2)
        #expect(self.known(calls, 2000 - UInt64(PublishCalls.maxClients), 1) == 0)
        // One that repeats nothing for a long time can't push its own calls out, but those of others.
        for call in 1...5000 as ClosedRange<UInt64> { calls.note(self.record(9999, call)) }
        #expect(calls.records.count == 5000 && self.known(calls, 9999, 1) == 2)
    }

    @Test func theyAreTheSameAfterACheckpoint() throws {
        var meta = StoreMeta(store: 5)
        meta.nextLease = 77
        for call in 1...5 as ClosedRange<UInt64> {
            for client in [3, 1, 2] as [UInt64] { meta.calls.note(self.record(client, call)) }
        }
        var writer = ByteWriter()
        meta.write(to: &writer)
        let read = try writer.bytes.withUnsafeBytes { bytes throws(StalkError) in try StoreMeta(reading: bytes) }
        #expect(read == meta)
    }
}
