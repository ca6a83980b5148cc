// SPDX-License-Identifier: Apache-2.0
//
// The rules F2 to F4 and the policy ABORT: what is owed, what is bounded, and what a process that goes away leaves.

import GuestPrograms
import KVM
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Failure")
struct FailureTests {
    @Test("F2: a store is acknowledged by its reply, never by its read")
    func readIsNoReply() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let store = try emulation.take(exactly: 1)
            let load = try guest.begin(.deviceLoad())
            try emulation.reply(try emulation.take(exactly: 1)[0], 2)
            try guest.expectWaiting(load)
            try emulation.acknowledge(store)
            #expect(try guest.finish(load) == 2)
        }
    }

    @Test("F3: a process that reads and never replies stops being given requests, until it replies")
    func owedRepliesAreBounded() throws {
        try ModuleUnderTest.withQueueDepth(4) {
            try ForwardedGuest.run { guest in
                let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                for value in 0..<4 { try guest.perform(.deviceStore(UInt128(value))) }
                let owed = try emulation.takeNow()
                #expect(owed.count == 4)
                for value in 4..<8 { try guest.perform(.deviceStore(UInt128(value))) }
                #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
                #expect(try emulation.poll(milliseconds: 0) == .writable)
                try emulation.reply(owed[2])
                #expect(try emulation.poll(milliseconds: 0) == [.readable, .writable])
                #expect(try emulation.takeNow().map(\.data) == [4])
                #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
            }
        }
    }

    @Test("F3: a reader that waits because it owes too much is woken by a reply")
    func owingReaderIsWoken() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value))) }
                let owed = try emulation.take(exactly: 2)
                try guest.perform(.deviceStore(2))
                let copy = Box(try emulation.duplicate())
                let reader = try BackgroundTask { try copy.value.takeNow() }
                #expect(!eventually(within: .milliseconds(100)) { reader.hasEnded })
                try emulation.reply(owed[0])
                #expect(try reader.join().map(\.data) == [2])
            }
        }
    }

    @Test("ABORT: without an emulation descriptor loads read all-ones and stores are dropped, at once, both counted")
    func nobodyThere() throws {
        try ForwardedGuest.run { guest in
            #expect(try guest.perform(.deviceLoad(1)) == 0xff)
            #expect(try guest.perform(.deviceLoad(8)) == UInt64.max)
            for value in 0..<1000 { try guest.perform(.deviceStore(UInt128(value))) }
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["all_ones"] == 2)
            #expect(counters["dropped"] == 1000)
            #expect(counters["requests"] == 0)
            #expect(guest.exits.isEmpty)
        }
    }

    @Test("ABORT: the last close completes every wait, and the next descriptor begins empty")
    func closeCompletesAll() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(vcpus: 4) { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                // One load read, one load unread, a store without space, a load whose store is not replied to.
                let read = try guest.begin(.deviceLoad(4, 0x10), on: 0)
                let readRequest = try emulation.take(exactly: 1)
                try guest.perform(.deviceStore(1), on: 3)
                let behind = try guest.begin(.deviceLoad(4, 0x30), on: 3)
                let unread = try guest.begin(.deviceLoad(4, 0x20), on: 1)
                try guest.perform(.deviceStore(2), on: 2)
                let waiting = try guest.begin(.deviceStore(3), on: 2)
                for (vcpu, ticket) in [read, unread, waiting, behind].enumerated() {
                    try guest.expectWaiting(ticket, on: UInt32(vcpu))
                }
                close(emulation)
                #expect(try guest.finish(read, on: 0) == 0xffff_ffff)
                #expect(try guest.finish(unread, on: 1) == 0xffff_ffff)
                try guest.finish(waiting, on: 2)
                #expect(try guest.finish(behind, on: 3) == 0xffff_ffff)

                let next = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                #expect(throws: Errno.resourceTemporarilyUnavailable) { try next.takeNow() }
                #expect(throws: Errno.invalidArgument) { try next.reply(readRequest[0]) }
                // vCPU 3 has no store outstanding any more.
                let load = try guest.begin(.deviceLoad(), on: 3)
                try next.reply(try next.take(exactly: 1)[0], 6)
                #expect(try guest.finish(load, on: 3) == 6)
            }
        }
    }

    @Test("F4: closing while four vCPUs load and store, again and again, hangs nobody")
    func closeUnderLoad() throws {
        try ModuleUnderTest.load()
        let machine = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 4)
        let control = try ControlDescriptor(in: machine.machine)
        try control.setTimeout(.seconds(60))
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        let programs = try (0..<UInt32(4)).map { vcpu in
            try machine.start(
                .storeLoadPairs(.four), .init(target: ForwardedGuest.base, count: 3000), on: vcpu)
        }
        var rounds = 0
        while !programs.allSatisfy(\.hasEnded) {
            let emulation = try control.makeEmulationDescriptor(nonBlocking: true)
            for turn in 0..<20 {
                guard let requests = try? emulation.takeNow() else { continue }
                // Some are replied to, in the wrong order, and some never.
                for request in requests.reversed().dropFirst(turn % 3) { try? emulation.reply(request, 1) }
            }
            rounds += 1
        }
        for program in programs { _ = try program.join() }
        #expect(rounds > 1)
    }
}
