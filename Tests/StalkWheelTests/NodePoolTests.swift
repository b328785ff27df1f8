import Testing

@testable import StalkWheel

@Suite struct NodePoolTests {
    @Test func freeNodesAreUsedAgain() {
        var wheel = TimingWheel(now: 0)
        for round in 0..<1000 as Range<Int64> {
            wheel.set(1, at: round + 1)
            wheel.cancel(wheel.set(2, at: round + 500))
            _ = wheel.keys(to: round + 1)
        }
        #expect(wheel.nodes.nodeCount == 2)
    }

    @Test func aLargeWheelThatRunsEmptyGivesItsMemoryBack() {
        var wheel = TimingWheel(now: 0)
        let handles = (0...NodePool.keptCount).map { wheel.set(UInt64($0), at: Int64($0 % 100)) }
        #expect(wheel.nodes.nodeCount == handles.count)
        #expect(wheel.keys(to: 100).count == handles.count)
        #expect(wheel.nodes.nodeCount == 0)
        #expect(!handles.contains { wheel.cancel($0) })
        // New nodes at the old places.
        let later = (0..<10).map { wheel.set($0, at: 200) }
        #expect(!handles.contains { wheel.cancel($0) })
        #expect(!later.contains { !wheel.cancel($0) })
    }

    @Test func aSmallWheelThatRunsEmptyKeepsItsNodes() {
        var wheel = TimingWheel(now: 0)
        for key in 0..<100 as Range<UInt64> { wheel.set(key, at: 1) }
        #expect(wheel.keys(to: 1).count == 100)
        #expect(wheel.nodes.nodeCount == 100)
    }

    @Test func aNodeWhoseGenerationsAreUsedUpIsLeftUnused() {
        var pool = NodePool(firstGeneration: .max - 3)
        let uses = (0..<4 as Range<UInt64>).map { key in
            let index = pool.take(tag: 0, key: key, deadline: 0)
            let handle = TimingWheel.Handle(index: index, generation: pool[index].generation)
            #expect(pool.isCurrent(handle))
            pool.giveBack(index)
            #expect(!pool.isCurrent(handle))
            return handle
        }
        #expect(uses.map(\.index) == [0, 0, 1, 1])
        #expect(Set(uses).count == 4)
        #expect(pool.count == 0)
    }
}
