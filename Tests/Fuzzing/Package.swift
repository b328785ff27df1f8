// swift-tools-version: 6.1
import PackageDescription

// A package of its own: what is built for libFuzzer is built with its flags, and nobody who uses Stalk builds it.
// `tools/fuzz` builds and runs it.
let package = Package(
    name: "stalk-fuzzing",
    dependencies: [
        .package(name: "stalk", path: "../.."),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
    ],
    targets: [
        .executableTarget(
            name: "Fuzzing",
            dependencies: [
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "StalkNSQ", package: "stalk"),
                .product(name: "StalkTesting", package: "stalk"),
                .product(name: "_StalkCLI", package: "stalk"),
                .product(name: "_StalkLocal", package: "stalk"),
            ],
            path: "Sources",
            exclude: ["Replay"]
        )
    ]
)

for target in package.targets {
    target.swiftSettings = [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    ]
}
