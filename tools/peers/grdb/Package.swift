// swift-tools-version: 6.1
import PackageDescription

// A package of its own: only who compares with GRDB resolves it.
let package = Package(
    name: "grdb-client",
    dependencies: [.package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0")],
    targets: [
        .executableTarget(
            name: "grdb-client",
            dependencies: [.product(name: "GRDB", package: "GRDB.swift")],
            path: "Sources",
            swiftSettings: [.swiftLanguageMode(.v6)]
        )
    ]
)
