internal import CZstd

/// The library that compresses.
package enum ZstdLibrary {
    /// The version of libzstd that runs, as in "1.5.4".
    package static var version: String {
        ZSTD_versionString().map { String(cString: $0) } ?? ""
    }
}
