internal import CZstd

/// An error code of libzstd.
struct ZstdError: Error, CustomStringConvertible {
    let description: String

    /// Nil when `result` is not an error.
    init?(_ result: Int) {
        guard ZSTD_isError(result) != 0 else { return nil }
        self.description = ZSTD_getErrorName(result).map { name in "zstd: \(String(cString: name))" } ?? "zstd"
    }
}
