import StalkCore
import StalkFiles
import StalkLog
import StalkTesting
import Testing

@Suite struct LogWriterTests {
    @Test("A writer says what is written and what is synced")
    func positions() throws {
        var log = try ScriptedLog()
        #expect(log.writer.writtenThrough == 0)
        try log.append(frames: 2, sync: false)
        #expect(log.writer.writtenThrough == 2)
        #expect(log.writer.syncedThrough == 0)
        try log.append()
        #expect(log.writer.syncedThrough == 3)
    }

    @Test("Going on in another segment syncs the one that is left")
    func rollSyncs() throws {
        var log = try ScriptedLog()
        try log.append(frames: 2, sync: false)
        try log.roll()
        try log.append(sync: false)
        #expect(log.writer.syncedThrough == 2)
        for seed in 0..<50 as Range<UInt64> {
            let disk = log.disk.crash(seed: seed)
            let reader = LogReader(directory: disk, store: ScriptedLog.store, settled: 0, fromDisk: true)
            #expect(try reader.read(onDamage: { _ in }, { _ in }).lastSequence >= 2)
        }
    }

    @Test("Nothing to sync is no call")
    func idleSync() throws {
        var log = try ScriptedLog()
        try log.append()
        let calls = log.disk.calls(of: .sync)
        try log.sync()
        #expect(log.disk.calls(of: .sync) == calls)
    }

    @Test(
        "The first failed call is the last one that is tried",
        arguments: [
            DiskFault(.write), DiskFault(.write, error: .diskFull, reachedBytes: 700), DiskFault(.sync),
            DiskFault(.sync, error: .diskFull), DiskFault(.write, call: 3), DiskFault(.sync, call: 3),
            DiskFault(.write, isLasting: true), DiskFault(.sync, isLasting: true),
        ]
    )
    func poison(fault: DiskFault) throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        log.disk.inject(fault)
        var acknowledged: UInt64 = 3
        let first = #expect(throws: StalkError.self) {
            for _ in 0..<10 {
                try log.append()
                acknowledged = log.writer.syncedThrough
            }
        }
        #expect(first?.code == .storageFailed)
        #expect((first?.cause as? StalkError)?.code == fault.error.code)

        // The device works again, or the fault lasts: the writer does not try.
        let calls = [DiskOperation.write, .sync].map(log.disk.calls)
        for _ in 0..<3 {
            for error in [
                #expect(throws: StalkError.self) { try log.append(sync: false) },
                #expect(throws: StalkError.self) { try log.sync() },
            ] {
                #expect(error?.code == .storageFailed)
                #expect((error?.cause as? StalkError)?.code == fault.error.code)
            }
        }
        #expect([DiskOperation.write, .sync].map(log.disk.calls) == calls)
        #expect(log.writer.syncedThrough == acknowledged)

        for seed in 0..<20 as Range<UInt64> {
            for disk in [log.disk.crash(seed: seed), log.disk.kill()] {
                let reader = LogReader(directory: disk, store: ScriptedLog.store, settled: 0, fromDisk: true)
                #expect(try reader.read(onDamage: { _ in }, { _ in }).lastSequence >= acknowledged)
            }
        }
    }

    @Test("A sync that fails while going on in another segment poisons as well")
    func poisonWhileRolling() throws {
        var log = try ScriptedLog()
        try log.append()
        try log.append(sync: false)
        try log.roll()
        log.disk.inject(DiskFault(.sync))
        #expect(throws: StalkError.self) { try log.append() }
        #expect(throws: StalkError.self) { try log.sync() }
        #expect(log.writer.syncedThrough == 1)
        #expect(log.writer.writtenThrough == 2)
    }

    @Test(
        "A call that fails anywhere in a log's life costs nothing that was acknowledged",
        arguments: [DiskOperation.open, .rename, .remove, .syncDirectory, .write, .sync, .fillWithZeros, .read],
        [true, false]
    )
    func failAnywhere(operation: DiskOperation, isLasting: Bool) throws {
        var states = 0
        for seed in 0..<3 as Range<UInt64> {
            var first = LogRun(seed: seed)
            let disk = SimulatedDisk()
            try first.live(on: disk, steps: 30)
            let whole = disk.kill()
            var second = first
            try second.live(on: whole, steps: 30)
            for call in stride(from: 1, through: whole.calls(of: operation), by: 1) {
                let victim = disk.kill()
                victim.inject(
                    DiskFault(
                        operation,
                        call: call,
                        error: call.isMultiple(of: 2) ? .deviceFailed : .diskFull,
                        isLasting: isLasting,
                        reachedBytes: 600
                    )
                )
                var run = first
                #expect(throws: StalkError.self) { try run.live(on: victim, steps: 30) }
                for (index, after) in [victim.kill(), victim.crash(seed: seed), victim.crash(seed: ~seed)].enumerated()
                {
                    let violation = run.recover(after).violation
                    states += 1
                    #expect(violation == nil, "seed \(seed), call \(call), end \(index)")
                }
            }
        }
        #expect(states > 0)
    }
}
