// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "stalk",
    products: [
        .library(name: "Stalk", targets: ["Stalk"]),
        .library(name: "StalkAdmin", targets: ["StalkAdmin"]),
        .library(name: "StalkFailover", targets: ["StalkFailover"]),
        .library(name: "StalkJSON", targets: ["StalkJSON"]),
        .library(name: "StalkNSQ", targets: ["StalkNSQ"]),
        .library(name: "StalkSQS", targets: ["StalkSQS"]),
        .library(name: "StalkTesting", targets: ["StalkTesting"]),
        .executable(name: "stalk", targets: ["StalkTool"]),
        // For Benchmarks/ only: a package of its own can import products alone. No promise of stability.
        .library(name: "_StalkCore", targets: ["StalkCore"]),
        .library(name: "_StalkFiles", targets: ["StalkFiles"]),
        .library(name: "_StalkIndex", targets: ["StalkIndex"]),
        .library(name: "_StalkLog", targets: ["StalkLog"]),
        .library(name: "_StalkWheel", targets: ["StalkWheel"]),
        .library(name: "_StalkZstd", targets: ["StalkZstd"]),
        // For Tests/Fuzzing/ only, likewise.
        .library(name: "_StalkCLI", targets: ["StalkCLI"]),
        .library(name: "_StalkLocal", targets: ["StalkLocal"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-distributed-tracing.git", from: "1.7.3"),
        .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics.git", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.6"),
        .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/async-http-client.git", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess.git", from: "1.0.2"),
    ],
    targets: [
        // C: the distribution's libraries, and the few calls that no Swift package wraps.
        .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .target(name: "CStalkSystem"),

        // The vocabulary that everything shares.
        .target(name: "StalkCore"),
        .target(name: "StalkWheel"),

        // The local engine, bottom to top.
        .target(name: "StalkPlatform", dependencies: ["CStalkSystem", "StalkCore"]),
        .target(name: "StalkFiles", dependencies: ["CStalkSystem", "StalkCore"]),
        .target(name: "StalkLog", dependencies: ["CStalkSystem", "StalkCore", "StalkFiles"]),
        .target(name: "StalkZstd", dependencies: ["CZstd", "StalkCore"]),
        .target(name: "StalkIndex", dependencies: ["CLMDB", "CStalkSystem", "StalkCore"]),
        .target(
            name: "StalkLocal",
            dependencies: [
                "StalkCore", "StalkFiles", "StalkIndex", "StalkLog", "StalkPlatform", "StalkWheel",
                "StalkZstd",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "HeapModule", package: "swift-collections"),
            ]
        ),

        // On top of any collector.
        .target(
            name: "StalkWorker",
            dependencies: [
                "StalkCore",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "CoreMetrics", package: "swift-metrics"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
            ]
        ),
        .target(
            name: "StalkJSON",
            dependencies: ["StalkCore", "StalkWorker", .product(name: "Logging", package: "swift-log")]
        ),
        .target(name: "StalkTesting", dependencies: ["StalkCore", "StalkFiles", "StalkPlatform"]),
        .target(name: "Stalk", dependencies: ["StalkCore", "StalkLocal", "StalkWorker"]),

        // Adapters: each with its own dependencies, none on the engine or another adapter.
        .target(
            name: "StalkNSQ",
            dependencies: [
                "CZlib", "StalkCore",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]
        ),
        .target(
            name: "StalkSQS",
            dependencies: [
                "StalkCore",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ]
        ),

        // A remote in front, the local engine behind.
        .target(
            name: "StalkFailover",
            dependencies: [
                "StalkCore", "StalkFiles", "StalkLocal", "StalkPlatform", "StalkWorker",
                .product(name: "CoreMetrics", package: "swift-metrics"),
                .product(name: "Logging", package: "swift-log"),
            ]
        ),

        // Control over HTTP; nothing else needs a web server.
        .target(
            name: "StalkAdmin",
            dependencies: [
                "StalkCore", "StalkFailover", "StalkLocal", "StalkWorker",
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]
        ),

        // The command.
        .target(
            name: "StalkCLI",
            dependencies: [
                "StalkAdmin", "StalkCore", "StalkFailover", "StalkFiles", "StalkLocal", "StalkLog", "StalkNSQ",
                "StalkPlatform", "StalkSQS",
                "StalkWorker",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ]
        ),
        .executableTarget(name: "StalkTool", dependencies: ["StalkCLI"]),

        .testTarget(name: "StalkCoreTests", dependencies: ["StalkCore", "StalkTesting"]),
        .testTarget(name: "StalkWheelTests", dependencies: ["StalkTesting", "StalkWheel"]),
        .testTarget(name: "StalkPlatformTests", dependencies: ["StalkCore", "StalkPlatform", "StalkTesting"]),
        .testTarget(name: "StalkFilesTests", dependencies: ["StalkCore", "StalkFiles", "StalkTesting"]),
        .testTarget(name: "StalkLogTests", dependencies: ["StalkCore", "StalkFiles", "StalkLog", "StalkTesting"]),
        .testTarget(name: "StalkZstdTests", dependencies: ["StalkCore", "StalkTesting", "StalkZstd"]),
        .testTarget(name: "StalkIndexTests", dependencies: ["StalkCore", "StalkIndex", "StalkTesting"]),
        .testTarget(
            name: "StalkLocalTests",
            dependencies: [
                "StalkCore", "StalkFiles", "StalkIndex", "StalkLocal", "StalkLog", "StalkPlatform", "StalkTesting",
                "StalkWheel",
            ],
            exclude: ["Golden"]
        ),
        .testTarget(
            name: "StalkSimulationTests",
            dependencies: [
                "StalkCore", "StalkFiles", "StalkIndex", "StalkLocal", "StalkLog", "StalkPlatform", "StalkTesting",
            ]
        ),
        .testTarget(
            name: "StalkWorkerTests",
            dependencies: [
                "StalkCore", "StalkTesting", "StalkWorker",
                .product(name: "CoreMetrics", package: "swift-metrics"),
                .product(name: "InMemoryLogging", package: "swift-log"),
                .product(name: "InMemoryTracing", package: "swift-distributed-tracing"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
                .product(name: "ServiceLifecycleTestKit", package: "swift-service-lifecycle"),
            ]
        ),
        .testTarget(
            name: "StalkAdminTests",
            dependencies: [
                "StalkAdmin", "StalkCore", "StalkFailover", "StalkLocal", "StalkTesting", "StalkWorker",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ]
        ),
        .testTarget(
            name: "StalkFailoverTests",
            dependencies: [
                "StalkCore", "StalkFailover", "StalkLocal", "StalkPlatform", "StalkTesting", "StalkTool", "StalkWheel",
                "StalkWorker",
                .product(name: "CoreMetrics", package: "swift-metrics"),
                .product(name: "InMemoryLogging", package: "swift-log"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ]
        ),
        .testTarget(name: "StalkJSONTests", dependencies: ["StalkCore", "StalkJSON", "StalkTesting", "StalkWorker"]),
        .testTarget(
            name: "StalkNSQTests",
            dependencies: [
                "StalkCLI", "StalkCore", "StalkNSQ", "StalkTesting", "StalkTool", "StalkWorker",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ],
            exclude: ["Oracle", "Transcripts"]
        ),
        .testTarget(
            name: "StalkSQSTests",
            dependencies: [
                "StalkCore", "StalkFailover", "StalkLocal", "StalkSQS", "StalkTesting", "StalkTool", "StalkWorker",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ],
            exclude: ["Oracle/real_server.py", "Oracle/sign_with_botocore.py"]
        ),
        .testTarget(name: "StalkTestingTests", dependencies: ["StalkCore", "StalkTesting"]),
        .testTarget(name: "StalkTests", dependencies: ["Stalk"]),
        // The fuzzers of Tests/Fuzzing/ over the inputs that were kept; that package builds the same for libFuzzer.
        .testTarget(
            name: "FuzzingTests",
            dependencies: [
                "StalkCLI", "StalkCore", "StalkFiles", "StalkIndex", "StalkLocal", "StalkLog", "StalkNSQ",
                "StalkTesting", "StalkZstd",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            path: "Tests/Fuzzing/Sources",
            exclude: ["Driver"]
        ),
        .testTarget(
            name: "StalkCLITests",
            dependencies: [
                "StalkAdmin", "StalkCLI", "StalkCore", "StalkFiles", "StalkLog", "StalkTool",
                .product(name: "Subprocess", package: "swift-subprocess"),
            ]
        ),
    ]
)

for target in package.targets where target.type != .system && target.name != "CStalkSystem" {
    target.swiftSettings = [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    ]
}
