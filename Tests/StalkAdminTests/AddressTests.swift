import StalkAdmin
import StalkCore
import Testing

/// Where the control listens, as people write it.
@Suite struct AddressTests {
    @Test(arguments: [
        ("127.0.0.1:8080", "127.0.0.1", 8080, true), (":8080", "127.0.0.1", 8080, true),
        ("8080", "127.0.0.1", 8080, true),
        ("localhost", "localhost", 1323, true), ("0.0.0.0:1", "0.0.0.0", 1, false), ("[::1]:99", "::1", 99, true),
        ("[::1]", "::1", 1323, true), ("::1", "::1", 1323, true), ("::", "::", 1323, false),
        ("127.9.9.9:0", "127.9.9.9", 0, true), ("127.evil.example:80", "127.evil.example", 80, false),
        ("localhost.example:80", "localhost.example", 80, false), ("10.0.0.1", "10.0.0.1", 1323, false),
    ])
    func isRead(text: String, host: String, port: Int, isLoopback: Bool) throws {
        let address = try AdminAddress(text)
        #expect(address == AdminAddress(host: host, port: port))
        #expect(address.isLoopback == isLoopback)
        #expect(try AdminAddress(address.description) == address)
    }

    @Test(arguments: ["", ":", "host:", "host:99999", "host:-1", "host:x", "[::1", "[::1]99", "a b", "http://host:1"])
    func nonsenseIsRefused(text: String) throws {
        let error = #expect(throws: StalkError.self) { try AdminAddress(text) }
        #expect(error?.code == .invalidArgument)
    }

    @Test func defaultIsTheOriginalsPortOnThisMachine() {
        #expect(AdminAddress().description == "127.0.0.1:1323")
    }
}
