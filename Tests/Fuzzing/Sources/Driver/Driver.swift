// The program that libFuzzer drives: SwiftPM names its entry point after the target, so this stands there.

import Glibc

/// The fuzzer that $STALK_FUZZER names.
private let fuzzer: any Fuzzer = {
    let name = getenv("STALK_FUZZER").map { String(cString: $0) } ?? ""
    guard let fuzzer = allFuzzers.first(where: { $0.name == name }) else {
        print("Set STALK_FUZZER to one of: \(allFuzzers.map(\.name).joined(separator: " "))")
        exit(2)
    }
    return fuzzer
}()

/// Whether $STALK_FUZZ_PLANTED asks for the planted bug, which a fuzzer that is worth its time finds.
private let isPlanted = getenv("STALK_FUZZ_PLANTED") != nil

@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

private func runOne(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    if let complaint = fuzzer.complaint(about: input, isPlanted: isPlanted) {
        // libFuzzer keeps the input of a run that does not return.
        fatalError("\(fuzzer.name): \(complaint)")
    }
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt { runOne(start, count) }

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    if getenv("STALK_FUZZ_LIST") != nil {
        for fuzzer in allFuzzers { print(fuzzer.name) }
        exit(0)
    }
    _ = fuzzer.name
    return 0
}

@_cdecl("Fuzzing_main")
func fuzzingMain(
    _ count: CInt,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
) -> CInt {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments) { start, count in runOne(start, count) }
}
