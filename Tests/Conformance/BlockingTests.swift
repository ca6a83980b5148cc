// SPDX-License-Identifier: Apache-2.0
//
// The rules B1 and B3, and what B2 shows within one process: what a waiting vCPU holds up, and how long it waits.

import GuestPrograms
import KVM
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Blocking")
struct BlockingTests {
    /// How long it takes to add a memory slot while a load is unanswered.
    private func addingSlotWhileLoadWaits(timeout: Duration) throws -> Duration {
        try ForwardedGuest.run(timeout: timeout) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 1)
            let memory = try GuestMemory(at: 0x1_0000_0000, count: 1 << 20)
            let start = now()
            try guest.guest.machine.setMemory(memory, slot: 7)
            let elapsed = now() - start
            // Held or left, the load gets its answer, if that is still wanted.
            do throws(Errno) { try emulation.reply(requests[0], 1) } catch { #expect(error == .stale) }
            try guest.finish(load)
            return elapsed
        }
    }

    private func duration(of body: () throws -> Void) rethrows -> Duration {
        let start = now()
        try body()
        return now() - start
    }

    @Test("B1: adding a memory slot while a load is unanswered takes under 100 ms")
    func memorySlotUnaffected() throws {
        let elapsed = try shortest { try addingSlotWhileLoadWaits(timeout: .seconds(60)) }
        #expect(elapsed < Effort.patience(.milliseconds(100)), "took \(elapsed)")
    }

    @Test("B1: it fails to with the section held, which is what the rule is for")
    func memorySlotStallsWithSectionHeld() throws {
        let elapsed = try ModuleUnderTest.withTestBuild(["hold_srcu=1"]) {
            try addingSlotWhileLoadWaits(timeout: .seconds(6))
        }
        #expect(elapsed > .seconds(1), "took \(elapsed)")
    }

    @Test("B1: a range moves and a vCPU is made while a load is unanswered, each under 100 ms")
    func busAndVCPUsUnaffected() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 1)
            var address: UInt64 = 0xe000_0000
            let moving = try shortest {
                address += 0x1000
                return try duration {
                    try guest.control.setRange(0, to: GuestRange(.memory, at: address, length: 0x1000))
                }
            }
            let removing = try shortest {
                try guest.control.setRange(0, to: GuestRange(.memory, at: address, length: 0x1000))
                return try duration { try guest.control.removeRange(0) }
            }
            var id: UInt32 = 0
            let making = try shortest {
                id += 1
                return try duration { _ = try guest.guest.machine.makeVirtualCPU(id: id) }
            }
            for elapsed in [moving, removing, making] { #expect(elapsed < Effort.patience(.milliseconds(100))) }
            // The range is gone, and with it the handler's kvm_io_device: the access completes all the same.
            try emulation.reply(requests[0], 0x600d)
            #expect(try guest.finish(load) == 0x600d)
            #expect(guest.exits.isEmpty)
        }
    }

    @Test("B2: a signal that is not fatal ends no wait")
    func otherSignals() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 1)
            for _ in 0..<20 { guest.interrupt(0) }
            try guest.expectWaiting(load)
            try emulation.reply(requests[0], 5)
            #expect(try guest.finish(load) == 5)
            let more = try emulation.poll(milliseconds: 0)
            #expect(!more.contains(.readable), "the access was made twice")
        }
    }

    @Test("B3: a load that times out reads all-ones, its request is retired, and the device goes on")
    func loadTimesOut() throws {
        try ForwardedGuest.run(timeout: .seconds(2)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let start = now()
            let load = try guest.begin(.deviceLoad())
            let late = try emulation.take(exactly: 1)
            #expect(try guest.finish(load) == 0xffff_ffff)
            #expect(now() - start >= .seconds(2))
            #expect(throws: Errno.stale) { try emulation.reply(late[0], 7) }
            // Once: it has its reply now.
            #expect(throws: Errno.invalidArgument) { try emulation.reply(late[0], 7) }
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["timeouts"] == 1)
            #expect(counters["late_replies"] == 1)
            #expect(counters["invalid_replies"] == 1)
            #expect(counters["all_ones"] == 1)

            try guest.control.setTimeout(.seconds(60))
            let next = try guest.begin(.deviceLoad())
            try emulation.reply(try emulation.take(exactly: 1)[0], 8)
            #expect(try guest.finish(next) == 8)
        }
    }

    @Test("B3: a load nobody has read when it times out is never delivered")
    func unreadLoadTimesOut() throws {
        try ForwardedGuest.run(timeout: .milliseconds(100)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(try guest.perform(.deviceLoad(8)) == UInt64.max)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
        }
    }

    @Test("B3: a process that hangs costs a guest one timeout, not one an access")
    func oneTimeoutForAll() throws {
        try ForwardedGuest.run(timeout: .seconds(1)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            for _ in 0..<20 { #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff) }
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["timeouts"] == 1)
            #expect(counters["all_ones"] == 21)
            // A read, though it finds nothing, shows that the process lives: from here on loads wait for it.
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
            try guest.control.setTimeout(.seconds(60))
            let load = try guest.begin(.deviceLoad())
            try emulation.reply(try emulation.take(exactly: 1)[0], 3)
            #expect(try guest.finish(load) == 3)
        }
    }

    @Test("B3: a process that waits in read() all the while is no hung one")
    func waitingReaderIsAlive() throws {
        // Long enough for the reader to wait by then, on a slow machine too.
        try ForwardedGuest.run(timeout: .seconds(6)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            // One thread has a request and hangs; another waits for the next.
            let hung = try guest.begin(.deviceLoad())
            let late = try emulation.take(exactly: 1)
            let copy = Box(try emulation.duplicate())
            let reader = try BackgroundTask { try copy.value.takeNow(1) }
            defer { reader.interrupt() }
            #expect(try guest.finish(hung) == 0xffff_ffff)
            try guest.control.setTimeout(.seconds(20))
            let load = try guest.begin(.deviceLoad())
            try #require(eventually { reader.hasEnded }, "the reader was given nothing")
            let requests = try reader.join()
            #expect(requests.count == 1)
            try emulation.reply(requests[0], 9)
            #expect(try guest.finish(load) == 9)
            #expect(throws: Errno.stale) { try emulation.reply(late[0]) }
        }
    }

    @Test("B3: a store that waits for space is dropped when it times out, and no other")
    func storeTimesOut() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(timeout: .milliseconds(200)) { guest in
                let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                for value in 1...2 { try guest.perform(.deviceStore(UInt128(value))) }
                let start = now()
                try guest.perform(.deviceStore(3))
                #expect(now() - start >= .milliseconds(200))
                // From here on at once.
                for value in 4...13 { try guest.perform(.deviceStore(UInt128(value))) }
                let counters = try DebugCounters.ofNewestDevice()
                #expect(counters["timeouts"] == 1)
                #expect(counters["dropped"] == 11)

                let stores = try emulation.takeNow()
                #expect(stores.map(\.data) == [1, 2])
                try emulation.acknowledge(stores)
                try guest.perform(.deviceStore(20))
                let after = try emulation.takeNow()
                #expect(after.map(\.data) == [20])
                try emulation.acknowledge(after)
            }
        }
    }

    @Test("B3: a load whose older stores are not replied to times out with all-ones")
    func loadTimesOutBehindStore() throws {
        try ForwardedGuest.run(timeout: .seconds(2)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 2)
            try emulation.reply(requests[1], 0x77)
            #expect(try guest.finish(load) == 0xffff_ffff)
            #expect(try DebugCounters.ofNewestDevice()["timeouts"] == 1)
            // The store is still owed and accepted; then all is as before.
            try emulation.reply(requests[0])
            try guest.control.setTimeout(.seconds(60))
            let next = try guest.begin(.deviceLoad())
            try emulation.reply(try emulation.take(exactly: 1)[0], 0x88)
            #expect(try guest.finish(next) == 0x88)
        }
    }

    @Test("TIMEOUT 0 is no limit, and a new limit counts for the accesses that come after")
    func noLimit() throws {
        try ForwardedGuest.run(timeout: nil) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 1)
            try guest.control.setTimeout(.milliseconds(10))
            try guest.expectWaiting(load)
            try emulation.reply(requests[0], 4)
            #expect(try guest.finish(load) == 4)
        }
    }
}
