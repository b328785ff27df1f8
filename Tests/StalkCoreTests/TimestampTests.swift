import StalkCore
import Testing

@Suite struct TimestampTests {
    // The milliseconds are those of Python's datetime.
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (86_399_999, "1970-01-01T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (1_792_198_923_045, "2026-10-17T01:02:03.045Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-11_670_998_400_000, "1600-02-29T00:00:00.000Z"),
            (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] as [(Int64, String)]
    )
    func printsAsRFC3339(millis: Int64, text: String) {
        #expect(Timestamp(millisecondsSince1970: millis).description == text)
    }

    @Test func staysReadableOutsideOfFourDigitYears() {
        #expect(Timestamp(millisecondsSince1970: 253_402_300_800_000).description == "10000-01-01T00:00:00.000Z")
        #expect(Timestamp(millisecondsSince1970: -62_135_596_800_001).description == "0000-12-31T23:59:59.999Z")
        #expect(Timestamp(millisecondsSince1970: -62_167_219_200_001).description == "-0001-12-31T23:59:59.999Z")
        #expect(Timestamp(millisecondsSince1970: .max).description == "292278994-08-17T07:12:55.807Z")
        #expect(Timestamp(millisecondsSince1970: .min).description == "-292275055-05-16T16:47:04.192Z")
    }

    @Test func ordersByTime() {
        let (before, after) = (Timestamp(millisecondsSince1970: -1), Timestamp(millisecondsSince1970: 0))
        #expect(before < after)
        #expect(!(after < before))
        #expect(before == Timestamp(millisecondsSince1970: -1))
    }
}
