import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

@Suite struct LocalConformanceTests {
    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func localQueueKeeps(check: CollectorCheck) async throws {
        let harness = try await LocalHarness()
        let outcome = try await CollectorConformance(harness).run(check)
        let needsLess: Set<CollectorCheck> = [.missingExtensionIsRefused, .missingAtomicPublishIsRefused]
        #expect((outcome == .passed) != needsLess.contains(check), "\(outcome)")
        try await harness.close()
    }
}
