// SPDX-License-Identifier: Apache-2.0
//
// ON_CLOSE: what accesses get while no emulation descriptor is open, under each policy; and the rule F1, step by step.

import CKVMUser
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import Synchronization
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("On close")
struct OnCloseTests {
    // MARK: The call

    @Test("INFO has the feature bit of ON_CLOSE")
    func feature() throws {
        try ForwardedGuest.run { guest in
            let information = try guest.control.information()
            #expect(information.features.contains(.onClose))
        }
    }

    @Test(
        "ON_CLOSE: an unknown policy and padding are EINVAL, and the policy stays",
        arguments: [(3, 0), (UInt32.max, 0), (0, 1), (2, 1), (1, UInt32.max)] as [(UInt32, UInt32)])
    func badArgument(policy: UInt32, pad: UInt32) throws {
        try expectRefusal(.invalidArgument) { descriptor in
            var raw = kvm_dev_user_on_close(policy: policy, pad: pad)
            try descriptor.ioctl(CKVMUSER_ON_CLOSE, &raw)
        }
    }

    @Test(
        "ON_CLOSE: a bad pointer is EFAULT, and the policy stays", arguments: [0, 8, 0xffff_8000_0000_0000, UInt.max])
    func badPointer(pointer: UInt) throws {
        try expectRefusal(.badAddress) { descriptor in try descriptor.ioctl(CKVMUSER_ON_CLOSE, pointer) }
    }

    /// Expects that a call fails and that the policy EXIT, set before, still counts.
    private func expectRefusal(_ errno: Errno, _ call: (borrowing OwnedDescriptor) throws -> Void) throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .exit)
            #expect(throws: errno) { try call(guest.control.descriptor) }
            try guest.perform(.deviceStore(1))
            #expect(guest.exits.count == 1)
        }
    }

    // MARK: ABORT

    @Test("ABORT: set again after another policy, it is as it was in the beginning")
    func abortAgain() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            try guest.control.setOnClose(policy: .abort)
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            for value in 0..<1000 { try guest.perform(.deviceStore(UInt128(value))) }
            try expectCounters(["all_ones": 1, "dropped": 1000, "requests": 0, "exits": 0])
            #expect(guest.exits.isEmpty)
        }
    }

    // MARK: HOLD

    @Test("HOLD: before the first descriptor accesses wait for it, and come in order and unmarked (O1)")
    func heldBeforeTheFirst() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            try guest.control.setOnClose(policy: .hold)
            try guest.perform(.deviceStore(1), on: 0)
            try guest.perform(.deviceStore(2), on: 1)
            let load = try guest.begin(.deviceLoad(4, 8), on: 0)
            try guest.expectWaiting(load, on: 0)
            try guest.perform(.deviceStore(3), on: 1)

            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(try emulation.poll(milliseconds: 0) == [.readable, .writable])
            let requests = try emulation.takeNow()
            #expect(requests.map(\.data) == [1, 2, 0, 3])
            #expect(requests.map(\.vcpu) == [0, 1, 0, 1])
            #expect(!requests.contains { $0.isRedelivered })
            try emulation.reply(requests[0])
            try emulation.reply(requests[2], 0x1234)
            #expect(try guest.finish(load, on: 0) == 0x1234)
            try emulation.acknowledge([requests[1], requests[3]])
            try expectCounters(["all_ones": 0, "dropped": 0, "redelivered": 0, "requests": 4])
        }
    }

    @Test("HOLD: a store without space waits, and nobody's load waits for space (O6)")
    func heldWithoutSpace() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(vcpus: 2) { guest in
                try guest.control.setOnClose(policy: .hold)
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
                let third = try guest.begin(.deviceStore(2), on: 0)
                try guest.expectWaiting(third, on: 0)
                let load = try guest.begin(.deviceLoad(), on: 1)
                try guest.expectWaiting(load, on: 1)

                let emulation = try guest.control.makeEmulationDescriptor()
                let stores = try emulation.take(exactly: 2)
                #expect(stores.map(\.data) == [0, 1])
                try guest.finish(third, on: 0)
                try emulation.acknowledge(stores)
                let rest = try emulation.take(exactly: 2)
                #expect(rest.map(\.kind) == [.load, .store])
                try emulation.reply(rest[0], 9)
                try emulation.reply(rest[1])
                #expect(try guest.finish(load, on: 1) == 9)
            }
        }
    }

    @Test("F1: what was read comes again, marked and first, in its old order; what was not comes after, unmarked")
    func redelivery() throws {
        try ForwardedGuest.run(vcpus: 3) { guest in
            try guest.control.setOnClose(policy: .hold)
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<4 { try guest.perform(.deviceStore(UInt128(value)), on: UInt32(value % 2)) }
            let load = try guest.begin(.deviceLoad(), on: 0)
            // In two reads, one reply from the middle.
            let sent = try emulation.take(exactly: 2) + (try emulation.take(exactly: 3))
            try emulation.reply(sent[1])
            for value in 4..<6 { try guest.perform(.deviceStore(UInt128(value)), on: 2) }
            let pending = try guest.begin(.deviceLoad(8, 16), on: 1)
            try guest.expectWaiting(pending, on: 1)
            close(emulation)
            // While there is none, too.
            try guest.perform(.deviceStore(6), on: 2)

            let next = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            let again = try next.takeNow()
            try #require(again.count == 8)
            #expect(again.prefix(4).map(\.sequence) == [sent[0], sent[2], sent[3], sent[4]].map(\.sequence))
            #expect(again.prefix(4).map(\.data) == [0, 2, 3, 0])
            #expect(again.map(\.isRedelivered) == [true, true, true, true, false, false, false, false])
            #expect(again.map(\.vcpu) == [0, 0, 1, 0, 2, 2, 1, 2])
            #expect(again.suffix(4).map(\.data) == [4, 5, 0, 6])
            #expect(again[6].kind == .load)

            // O3 across the close: the load's reply alone does not complete it.
            try next.reply(again[3], 0x77)
            try guest.expectWaiting(load, on: 0)
            try next.acknowledge(again.prefix(2))
            #expect(try guest.finish(load, on: 0) == 0x77)
            try next.acknowledge([again[2]])
            try next.reply(again[6], 0x88)
            #expect(try guest.finish(pending, on: 1) == 0x88)
            try next.acknowledge([again[4], again[5], again[7]])
            try expectCounters(["redelivered": 4, "all_ones": 0, "dropped": 0, "invalid_replies": 0, "requests": 9])
        }
    }

    @Test("F1: closed again and again, the order stays, and so does the mark; what is new has none")
    func redeliveredTwice() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            for value in 0..<4 { try guest.perform(.deviceStore(UInt128(value))) }
            var last: [UInt64] = []
            for round in 0..<4 {
                let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                // One more is read each time.
                let requests = try emulation.takeNow(round + 1)
                #expect(requests.map(\.data) == (0...UInt64(round)).map { $0 })
                #expect(requests.map(\.isRedelivered) == (0...round).map { $0 < round })
                #expect(requests.prefix(round).map(\.sequence) == last)
                last = requests.map(\.sequence)
                close(emulation)
            }
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            let requests = try emulation.takeNow()
            #expect(requests.map(\.data) == [0, 1, 2, 3])
            #expect(requests.allSatisfy { $0.isRedelivered })
            try emulation.acknowledge(requests)
        }
    }

    @Test("F1: a descriptor that is closed before anything was read changes nothing")
    func closedUnread() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value))) }
            for _ in 0..<5 { close(try guest.control.makeEmulationDescriptor()) }
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            let requests = try emulation.takeNow()
            #expect(requests.map(\.data) == [0, 1, 2])
            #expect(!requests.contains { $0.isRedelivered })
            try emulation.acknowledge(requests)
            try expectCounters(["redelivered": 0])
        }
    }

    @Test("F1: read, pending and waiting stores at the close: more than the queue's depth is kept, in order")
    func moreThanDepth() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(vcpus: 2) { guest in
                try guest.control.setOnClose(policy: .hold)
                let emulation = try guest.control.makeEmulationDescriptor()
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
                _ = try emulation.take(exactly: 2)
                for value in 2..<4 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
                let fifth = try guest.begin(.deviceStore(4), on: 0)
                try guest.expectWaiting(fifth, on: 0)
                close(emulation)
                try guest.expectWaiting(fifth, on: 0)
                // Behind one that waits.
                let sixth = try guest.begin(.deviceStore(5), on: 1)
                try guest.expectWaiting(sixth, on: 1)

                let next = try guest.control.makeEmulationDescriptor()
                var requests: [ForwardedRequest] = []
                while requests.count < 6 {
                    let some = try next.take(exactly: 1)
                    try next.acknowledge(some)
                    requests += some
                }
                #expect(requests.map(\.data) == [0, 1, 2, 3, 4, 5])
                #expect(requests.map(\.isRedelivered) == [true, true, false, false, false, false])
                try guest.finish(fifth, on: 0)
                try guest.finish(sixth, on: 1)
            }
        }
    }

    @Test("F1: a reply fits a request that came again with and without the mark; before it is read again it is EINVAL")
    func repliesToRedelivered() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let load = try guest.begin(.deviceLoad())
            let sent = try emulation.take(exactly: 2)
            close(emulation)
            let next = try guest.control.makeEmulationDescriptor()
            for request in sent { #expect(throws: Errno.invalidArgument) { try next.reply(request, 1) } }
            let again = try next.take(exactly: 2)
            #expect(again.map(\.sequence) == sent.map(\.sequence))
            // The reply of the first process, word for word, and one with the mark.
            try next.reply(sent[0])
            try next.reply(again[1], 5)
            #expect(try guest.finish(load) == 5)
            for request in sent + again { #expect(throws: Errno.invalidArgument) { try next.reply(request) } }
            try expectCounters(["invalid_replies": 6, "late_replies": 0])
        }
    }

    @Test("F1: a request that was given up does not come again, and its reply is EINVAL")
    func retiredVanishes() throws {
        try ForwardedGuest.run(timeout: .seconds(2)) { guest in
            try guest.control.setOnClose(policy: .hold)
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let late = try emulation.take(exactly: 1)
            #expect(try guest.finish(load) == 0xffff_ffff)
            close(emulation)
            let next = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try next.takeNow() }
            #expect(throws: Errno.invalidArgument) { try next.reply(late[0]) }
            try expectCounters(["redelivered": 0])
        }
    }

    @Test("F1: a load that came again and then timed out: its reply is ESTALE, once")
    func lateAfterRedelivery() throws {
        try ForwardedGuest.run(timeout: .seconds(5)) { guest in
            try guest.control.setOnClose(policy: .hold)
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            _ = try emulation.take(exactly: 1)
            close(emulation)
            let next = try guest.control.makeEmulationDescriptor()
            let again = try next.take(exactly: 1)
            #expect(again.map(\.isRedelivered) == [true])
            #expect(try guest.finish(load) == 0xffff_ffff)
            #expect(throws: Errno.stale) { try next.reply(again[0], 1) }
            #expect(throws: Errno.invalidArgument) { try next.reply(again[0], 1) }
        }
    }

    @Test("HOLD: a load waits up to the time limit, and then nothing does until a process shows that it lives (B3)")
    func heldTooLong() throws {
        try ForwardedGuest.run(timeout: .milliseconds(300)) { guest in
            try guest.control.setOnClose(policy: .hold)
            let start = now()
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            #expect(now() - start >= .milliseconds(300))
            for _ in 0..<10 { #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff) }
            try expectCounters(["timeouts": 1, "all_ones": 11])
            // A process that comes and reads is no hung one.
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
            try guest.control.setTimeout(.seconds(60))
            let load = try guest.begin(.deviceLoad())
            try emulation.reply(try emulation.take(exactly: 1)[0], 3)
            #expect(try guest.finish(load) == 3)
        }
    }

    @Test("HOLD: a store without space is dropped at the time limit, and no other")
    func heldStoreTooLong() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(timeout: .milliseconds(300)) { guest in
                try guest.control.setOnClose(policy: .hold)
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value))) }
                let start = now()
                try guest.perform(.deviceStore(2))
                #expect(now() - start >= .milliseconds(300))
                try expectCounters(["timeouts": 1, "dropped": 1])
                let emulation = try guest.control.makeEmulationDescriptor()
                let stores = try emulation.take(exactly: 2)
                #expect(stores.map(\.data) == [0, 1])
                try emulation.acknowledge(stores)
                try guest.perform(.deviceStore(3))
                #expect(try emulation.take(exactly: 1).map(\.data) == [3])
            }
        }
    }

    @Test("HOLD: a process forked with the descriptor keeps it open, and so the requests with it, until it is gone")
    func inherited() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let sent = try emulation.take(exactly: 1)
            let heir = try ChildProcess(
                "/bin/sleep", ["1000"],
                descriptors: .init(
                    input: emulation.descriptor.rawValue, output: STDOUT_FILENO, error: STDERR_FILENO))
            close(emulation)
            #expect(throws: ForwardingError(call: "KVM_DEV_USER_EMULATION_FD", errno: .resourceBusy)) {
                _ = try guest.control.makeEmulationDescriptor()
            }
            try expectCounters(["redelivered": 0])
            heir.signalGroup(SIGKILL)
            heir.wait()
            let next = try guest.control.makeEmulationDescriptor()
            let again = try next.take(exactly: 1)
            #expect(again.map(\.sequence) == sent.map(\.sequence))
            #expect(again.map(\.isRedelivered) == [true])
            try next.reply(again[0], 4)
            #expect(try guest.finish(load) == 4)
        }
    }

    @Test("HOLD: B1 holds while nobody is there: a memory slot is added at once")
    func heldHoldsNothingUp() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            let load = try guest.begin(.deviceLoad())
            try guest.expectWaiting(load)
            var slot: UInt32 = 7
            let elapsed = try shortest {
                let memory = try GuestMemory(at: 0x1_0000_0000 * UInt64(slot), count: 1 << 20)
                let start = now()
                try guest.guest.machine.setMemory(memory, slot: slot)
                slot += 1
                return now() - start
            }
            #expect(elapsed < Effort.patience(.milliseconds(100)))
            try guest.control.setOnClose(policy: .abort)
            #expect(try guest.finish(load) == 0xffff_ffff)
        }
    }

    // MARK: A policy that changes

    @Test("leaving HOLD with nobody there aborts what is held", arguments: [ClosePolicy.abort, .exit])
    func leavingHold(policy: ClosePolicy) throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(vcpus: 3) { guest in
                try guest.control.setOnClose(policy: .hold)
                let emulation = try guest.control.makeEmulationDescriptor()
                // One load read, two stores pending, a store without space, a load pending.
                let read = try guest.begin(.deviceLoad(), on: 0)
                let sent = try emulation.take(exactly: 1)
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value)), on: 1) }
                let waiting = try guest.begin(.deviceStore(2), on: 1)
                let unread = try guest.begin(.deviceLoad(2), on: 2)
                for (vcpu, ticket) in [read, waiting, unread].enumerated() {
                    try guest.expectWaiting(ticket, on: UInt32(vcpu))
                }
                close(emulation)
                for (vcpu, ticket) in [read, waiting, unread].enumerated() {
                    try guest.expectWaiting(ticket, on: UInt32(vcpu))
                }
                try guest.control.setOnClose(policy: policy)
                #expect(try guest.finish(read, on: 0) == 0xffff_ffff)
                try guest.finish(waiting, on: 1)
                #expect(try guest.finish(unread, on: 2) == 0xffff)
                #expect(guest.exits.isEmpty)
                try expectCounters(["all_ones": 2, "dropped": 3])
                // What comes now gets what the new policy says.
                let value = try guest.perform(.deviceLoad(8), on: 1)
                #expect(value == (policy == .exit ? ForwardedGuest.unforwardedValue : .max))
                let next = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                #expect(throws: Errno.resourceTemporarilyUnavailable) { try next.takeNow() }
                #expect(throws: Errno.invalidArgument) { try next.reply(sent[0]) }
            }
        }
    }

    @Test("HOLD set again, or entered, with nobody there: what is held stays", arguments: [ClosePolicy.abort, .exit])
    func enteringHold(policy: ClosePolicy) throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: policy)
            try guest.perform(.deviceStore(1))
            try guest.control.setOnClose(policy: .hold)
            try guest.perform(.deviceStore(2))
            let load = try guest.begin(.deviceLoad())
            try guest.control.setOnClose(policy: .hold)
            try guest.expectWaiting(load)
            let emulation = try guest.control.makeEmulationDescriptor()
            let requests = try emulation.take(exactly: 2)
            #expect(requests.map(\.data) == [2, 0])
            try emulation.reply(requests[0])
            try emulation.reply(requests[1], 6)
            #expect(try guest.finish(load) == 6)
        }
    }

    @Test("the policy is the one at the moment of the close: leaving HOLD before it aborts nothing that is answered")
    func changedWhileOpen() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            let emulation = try guest.control.makeEmulationDescriptor()
            let first = try guest.begin(.deviceLoad())
            let sent = try emulation.take(exactly: 1)
            for policy in ClosePolicy.allCases { try guest.control.setOnClose(policy: policy) }
            try guest.expectWaiting(first)
            try emulation.reply(sent[0], 8)
            #expect(try guest.finish(first) == 8)
            let second = try guest.begin(.deviceLoad())
            _ = try emulation.take(exactly: 1)
            // EXIT, the last that was set.
            close(emulation)
            #expect(try guest.finish(second) == 0xffff_ffff)
            #expect(guest.exits.isEmpty)
        }
    }

    // MARK: EXIT

    @Test("EXIT: with nobody there loads and stores exit to the VMM, in memory and on ports, and its values count")
    func exits() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .exit)
            let base = ForwardedGuest.base
            #expect(try guest.perform(.deviceLoad(8, 0x10)) == ForwardedGuest.unforwardedValue)
            try guest.perform(.deviceStore(0x1122_3344, 4, 0x20))
            try guest.perform(.store(0x77, 1, at: ForwardedGuest.port + 1, on: .port))
            try guest.perform(.load(2, at: ForwardedGuest.port + 2, on: .port))
            #expect(
                guest.exits == [
                    .mmioLoad(.init(address: base + 0x10, length: 8)),
                    .mmioStore(.init(address: base + 0x20, length: 4), 0x1122_3344),
                    .portStore(.init(port: UInt16(ForwardedGuest.port) + 1, length: 1, count: 1)),
                    .portLoad(.init(port: UInt16(ForwardedGuest.port) + 2, length: 2, count: 1)),
                ])
            try expectCounters(["exits": 4, "all_ones": 0, "dropped": 0, "requests": 0])
        }
    }

    @Test("EXIT: each part of a larger access exits, and its load is put together of them")
    func exitsInParts() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .exit)
            let base = ForwardedGuest.base
            // 3 + 5 bytes across a page, and 16 bytes.
            #expect(try guest.perform(.deviceLoad(8, 0xffd)) == ForwardedGuest.unforwardedValue)
            try guest.perform(.deviceStore(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 16, 0x40))
            #expect(
                guest.exits == [
                    .mmioLoad(.init(address: base + 0xffd, length: 3)),
                    .mmioLoad(.init(address: base + 0x1000, length: 5)),
                    .mmioStore(.init(address: base + 0x40, length: 8), 0x8899_aabb_ccdd_eeff),
                    .mmioStore(.init(address: base + 0x48, length: 8), 0x0011_2233_4455_6677),
                ])
        }
    }

    @Test("EXIT: string instructions on ports come to the VMM element by element, in order, however many at a time")
    func stringExits() throws {
        try ModuleUnderTest.load()
        let machine = try KVMSystem().makeVirtualMachine()
        let control = try ControlDescriptor(in: machine)
        try control.setOnClose(policy: .exit)
        try control.setRange(0, to: GuestRange(.ports, at: 0x600, length: 4))
        let guest = try GuestMachine(in: machine, vcpus: 2)
        let seen = Box(Mutex<[UInt32]>([]))
        let stores = try guest.start(.portStringStores(.two), .init(target: 0x600, count: 9, seed: 3), on: 0) {
            exit, vcpu in
            guard case .portStore(let access) = exit else { return try unexpectedExit(exit, &vcpu) }
            let values = (0..<access.count).map { vcpu.portValue(at: $0) }
            seen.value.withLock { $0 += values }
        }
        _ = try stores.join()
        #expect(seen.value.withLock { $0 } == (3..<12).map { $0 })
        seen.value.withLock { $0 = [] }
        let loads = try guest.start(.portStringLoads(.two), .init(target: 0x600, count: 9), on: 1) { exit, vcpu in
            guard case .portLoad(let access) = exit else { return try unexpectedExit(exit, &vcpu) }
            for position in 0..<access.count {
                let value = seen.value.withLock { seen in
                    seen.append(UInt32(seen.count))
                    return 0x700 + UInt32(seen.count)
                }
                vcpu.setPortValue(value, at: position)
            }
        }
        #expect(try loads.join().values == (0x701...0x709).map { $0 })
        try expectCounters(["requests": 0, "all_ones": 0, "dropped": 0])
    }

    @Test("EXIT: what is under way at the close is aborted, what comes after it exits, and a new descriptor gets all")
    func exitAtTheClose() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run(vcpus: 3) { guest in
                try guest.control.setOnClose(policy: .exit)
                let emulation = try guest.control.makeEmulationDescriptor()
                let read = try guest.begin(.deviceLoad(), on: 0)
                let sent = try emulation.take(exactly: 1)
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value)), on: 1) }
                let waiting = try guest.begin(.deviceStore(2), on: 1)
                let unread = try guest.begin(.deviceLoad(1), on: 2)
                for (vcpu, ticket) in [read, waiting, unread].enumerated() {
                    try guest.expectWaiting(ticket, on: UInt32(vcpu))
                }
                close(emulation)
                #expect(try guest.finish(read, on: 0) == 0xffff_ffff)
                try guest.finish(waiting, on: 1)
                #expect(try guest.finish(unread, on: 2) == 0xff)
                #expect(guest.exits.isEmpty)
                try expectCounters(["all_ones": 2, "dropped": 3, "exits": 0])

                #expect(try guest.perform(.deviceLoad(8), on: 0) == ForwardedGuest.unforwardedValue)
                #expect(guest.exits.count == 1)
                let next = try guest.control.makeEmulationDescriptor()
                #expect(throws: Errno.invalidArgument) { try next.reply(sent[0]) }
                let load = try guest.begin(.deviceLoad(), on: 1)
                let request = try next.take(exactly: 1)[0]
                #expect(!request.isRedelivered)
                try next.reply(request, 2)
                #expect(try guest.finish(load, on: 1) == 2)
                #expect(guest.exits.count == 1)
            }
        }
    }

    // MARK: All

    @Test("the VM ends while accesses are held: nothing is left", arguments: ClosePolicy.allCases)
    func machineEnds(policy: ClosePolicy) throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: policy)
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value))) }
            _ = try emulation.take(exactly: 2)
            close(emulation)
        }
        #expect(eventually { DebugCounters.deviceCount() == 0 })
    }

    /// Expects the counters of the only device to have these values.
    private func expectCounters(
        _ expected: [String: Int], sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let counters = try DebugCounters.ofNewestDevice()
        for (name, value) in expected {
            #expect(counters[name] == value, "\(name)", sourceLocation: sourceLocation)
        }
    }
}
