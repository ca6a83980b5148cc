// SPDX-License-Identifier: Apache-2.0
//
// What an operation makes the guest do, and what its row is divided by.

import GuestPrograms
import Testing

@testable import Benchmark

@Suite("Operations")
struct OperationTests {
    @Test(
        "A name gives the operation that has it",
        arguments: ["store", "load", "store-load", "mixed", "burst-1", "burst-64", "burst-1000"])
    func names(_ name: String) throws {
        let operation = try #require(Operation(name))
        #expect("\(operation)" == name)
    }

    @Test("Other words are no names", arguments: ["", "stores", "burst", "burst-", "burst-0", "burst-1001", "burst-x"])
    func badNames(_ name: String) {
        #expect(Operation(name) == nil)
    }

    @Test("Stores are one burst, which its fence ends")
    func stores() {
        let work = Operation.store.work(count: 1000, width: .four, bus: .memory)
        #expect(work.program == .storeBursts(.four))
        #expect(work.full == .init(count: 1, window: 1000, storesPerFence: 1000))
        #expect(work.empty == .init(count: 1, window: 0))
        #expect(work.accesses == 1000)
        #expect(work.stores == 1000)
    }

    @Test("What is subtracted from bursts has as many fences", arguments: [1, 8, 64, 1000])
    func bursts(_ size: Int) {
        let work = Operation.burst(size).work(count: 1000, width: .two, bus: .port)
        #expect(work.program == .storeBursts(.two, on: .port))
        #expect(work.full.count == work.empty.count)
        #expect(work.accesses == work.full.count * size)
        #expect(work.accesses <= 1000 && work.accesses > 1000 - size)
    }

    @Test("A burst longer than the count is still one")
    func longBurst() {
        #expect(Operation.burst(1000).work(count: 10, width: .four, bus: .memory).accesses == 1000)
    }

    @Test("Pairs are two accesses, half of them stores", arguments: [1, 2, 999, 1000])
    func pairs(_ count: Int) {
        let work = Operation.storeLoad.work(count: count, width: .eight, bus: .memory)
        #expect(work.accesses == 2 * work.full.count)
        #expect(work.stores == work.full.count)
        #expect(work.accesses >= count)
    }

    @Test("Only single loads and stores are timed")
    func timed() throws {
        let loads = try #require(
            Operation.load.timedWork(count: 5, interval: 70, width: .four, bus: .memory))
        #expect(loads.program == .timedLoads(.four))
        #expect(loads.full == .init(count: 5, window: 70, storesPerFence: 0))
        let stores = try #require(Operation.store.timedWork(count: 5, interval: 0, width: .one, bus: .port))
        #expect(stores.program == .timedStores(.one, on: .port))
        #expect(stores.full.storesPerFence == 5)
        for operation in [Operation.burst(8), .storeLoad, .mixed] {
            #expect(operation.timedWork(count: 5, interval: 0, width: .four, bus: .memory) == nil)
        }
    }
}
