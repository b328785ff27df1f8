import StalkTesting
import StalkZstd
import Testing

@Suite struct CompressibilityTests {
    @Test func fewOfManyFailuresAreTried() {
        var compressibility = Compressibility()
        var trials = 0
        for _ in 0..<1600 where compressibility.wantsTrial() {
            trials += 1
            compressibility.note(isCompressed: false)
        }
        let patience = Compressibility.patience
        #expect(trials == patience + (1600 - patience) / patience)
    }

    @Test func successBringsTrialsBackAtOnce() {
        var compressibility = Compressibility()
        for _ in 0..<1600 where compressibility.wantsTrial() { compressibility.note(isCompressed: false) }
        var untried = 0
        while !compressibility.wantsTrial() { untried += 1 }
        #expect(untried < Compressibility.patience)
        compressibility.note(isCompressed: true)
        for _ in 0..<Compressibility.patience {
            let wantsTrial = compressibility.wantsTrial()
            #expect(wantsTrial)
            compressibility.note(isCompressed: false)
        }
    }

    /// Every packed body comes back, and text is compressed again soon after random bytes.
    @Test func trafficMayChange() throws {
        let compressor = try Compressor()
        var compressibility = Compressibility()
        var envelopes: [[UInt8]?] = []
        for seed in 0..<200 as Range<UInt64> {
            // Small bodies are never compressed, and say nothing about the others.
            for bytes in [
                Samples.random(10, seed: seed), seed < 100 ? Samples.random(900, seed: seed) : Samples.text(900),
            ] {
                let envelope = compressor.packed(bytes, dictionary: nil, as: &compressibility)
                if let envelope { #expect(try body(of: envelope) == bytes) }
                envelopes.append(envelope)
            }
        }
        let compressed = envelopes.count { $0?[0] == 1 }
        #expect((100 - Compressibility.patience...100).contains(compressed), "\(compressed) of 100 texts")
    }
}
