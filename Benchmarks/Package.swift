// swift-tools-version: 6.1
import PackageDescription

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
    ]
)

for target in package.targets where target.name != "CCounters" {
    target.swiftSettings = [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    ]
}
