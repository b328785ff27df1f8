// Certificates for the tests of TLS, made anew by openssl in each run: no key lies in the repository.

internal import Foundation

/// A file of the authority ("ca.pem"), of the server or of the client ("server.pem", "server.key", …).
func certificate(_ name: String) -> String {
    "\(TestCertificates.directory)/\(name)"
}

private enum TestCertificates {
    private static let script = """
        set -e
        new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$1" -keyout "$1.key" "${@:2}"; }
        new ca -x509 -days 2 -out ca.pem
        for name in server client; do
            new $name -out $name.csr
            echo "subjectAltName=DNS:localhost,IP:127.0.0.1" > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done
        """

    /// Made when it is first asked for, and removed when the tests end.
    ///
    /// Without openssl it stays empty, and the tests of TLS fail.
    static let directory: String = {
        let directory = FileManager.default.temporaryDirectory.appending(path: "stalk-nsq-tls-\(UUID().uuidString)")
        let openssl = Process()
        openssl.executableURL = URL(fileURLWithPath: "/bin/bash")
        openssl.arguments = ["-c", Self.script]
        openssl.currentDirectoryURL = directory
        openssl.standardError = FileHandle.nullDevice
        openssl.standardOutput = FileHandle.nullDevice
        do {
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            try openssl.run()
            openssl.waitUntilExit()
        } catch {
            print("openssl could not be run: \(error)")
        }
        atexit { try? FileManager.default.removeItem(atPath: TestCertificates.directory) }
        return directory.path
    }()
}
