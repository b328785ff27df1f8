// swift-tools-version: 6.1
import Foundation
import PackageDescription

/// Compiles a target under the name under which SwiftPM compiles the main package, so that it sees what has `package`
/// access there.
///
/// SwiftPM makes that name of the name of the checkout's directory. With `packageAccess` it would give the name of this
/// package behind it, and the last one counts.
let asStalk: [String] = {
    let directory = URL(fileURLWithPath: Context.packageDirectory).deletingLastPathComponent().lastPathComponent
    let identity = directory.lowercased()
    let allowed = { (letter: Character) in letter.isLetter || letter.isNumber || letter == "_" }
    let name = String(identity.map { allowed($0) ? $0 : "_" })
    let mangled = name.first?.isNumber == true ? "_" + name.dropFirst() : name
    return ["-package-name", mangled]
}()

// A package of its own, so that nobody who uses Stalk resolves the benchmark tool.
let package = Package(
    name: "stalk-benchmarks",
    dependencies: [
        .package(name: "stalk", path: ".."),
        // Without traits: the tool's own interposers are not needed, CCounters counts what is gated.
        .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
    ],
    targets: [
        .target(name: "CCounters", path: "CCounters"),
        .target(
            name: "BenchmarkSupport",
            dependencies: ["CCounters", .product(name: "Benchmark", package: "benchmark")],
            path: "Support"
        ),
        .executableTarget(
            name: "Engine",
            dependencies: [
                "BenchmarkSupport",
                .product(name: "Benchmark", package: "benchmark"),
                .product(name: "Stalk", package: "stalk"),
            ],
            path: "Engine",
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
        .executableTarget(
            name: "Wheel",
            dependencies: [
                "BenchmarkSupport",
                .product(name: "Benchmark", package: "benchmark"),
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "_StalkWheel", package: "stalk"),
            ],
            path: "Wheel",
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
        .executableTarget(
            name: "Log",
            dependencies: [
                "BenchmarkSupport",
                .product(name: "Benchmark", package: "benchmark"),
                .product(name: "_StalkCore", package: "stalk"),
                .product(name: "_StalkFiles", package: "stalk"),
                .product(name: "_StalkLog", package: "stalk"),
            ],
            path: "Log",
            packageAccess: false,
            swiftSettings: [.unsafeFlags(asStalk)],
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
        .executableTarget(
            name: "GroupCommit",
            dependencies: [
                "BenchmarkSupport",
                .product(name: "Benchmark", package: "benchmark"),
                .product(name: "_StalkCore", package: "stalk"),
                .product(name: "_StalkFiles", package: "stalk"),
                .product(name: "_StalkLog", package: "stalk"),
            ],
            path: "GroupCommit",
            packageAccess: false,
            swiftSettings: [.unsafeFlags(asStalk)],
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
        .executableTarget(
            name: "Index",
            dependencies: [
                "BenchmarkSupport",
                .product(name: "Benchmark", package: "benchmark"),
                .product(name: "_StalkCore", package: "stalk"),
                .product(name: "_StalkIndex", package: "stalk"),
            ],
            path: "Index",
            packageAccess: false,
            swiftSettings: [.unsafeFlags(asStalk)],
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
        .executableTarget(
            name: "Codec",
            dependencies: [
                "BenchmarkSupport",
                .product(name: "Benchmark", package: "benchmark"),
                .product(name: "_StalkCore", package: "stalk"),
                .product(name: "_StalkZstd", package: "stalk"),
            ],
            path: "Codec",
            packageAccess: false,
            swiftSettings: [.unsafeFlags(asStalk)],
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
    ]
)

for target in package.targets where target.name != "CCounters" {
    target.swiftSettings =
        (target.swiftSettings ?? []) + [
            .swiftLanguageMode(.v6),
            .enableUpcomingFeature("ExistentialAny"),
            .enableUpcomingFeature("InternalImportsByDefault"),
            .enableUpcomingFeature("MemberImportVisibility"),
            .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
        ]
}
