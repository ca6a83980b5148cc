// SPDX-License-Identifier: Apache-2.0
//
// KVM_DEV_USER_COALESCE and KVM_USER_REPLY_CUMULATIVE: one wake-up, and one reply, for many stores, and no rule broken.

import CKVMUser
import DeviceEmulation
import GuestPrograms
import KVM
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Coalescing")
struct CoalescingTests {
    /// Runs `body` with an emulation descriptor on which stores are coalesced.
    private func withCoalescing(
        _ stores: UInt32, _ time: Duration, vcpus: Int = 1,
        _ body: (ForwardedGuest, Box<EmulationDescriptor>) throws -> Void
    ) throws {
        try ForwardedGuest.run(vcpus: vcpus, timeout: .seconds(60)) { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            try emulation.value.setCoalescing(stores: stores, for: time)
            try body(guest, emulation)
        }
    }

    /// A thread that waits in read or in poll, and gives what it found.
    private func waiter(_ emulation: Box<EmulationDescriptor>, polling: Bool) throws -> BackgroundTask<Int> {
        let task = try BackgroundTask {
            guard polling else { return try emulation.value.takeNow().count }
            return try emulation.value.poll(milliseconds: -1).contains(.readable) ? 1 : 0
        }
        try #require(eventually { task.isBlocked })
        return task
    }

    /// That a wake-up comes at once, as what is measured says, and not when the time of one second is over.
    private func expectAtOnce(_ measured: () throws -> Duration) throws {
        #expect(try shortest(measured) < .milliseconds(800))
    }

    /// How long it takes that a load wakes for the store before it, which is held back; what comes then is of `kinds`.
    private func wakingByLoad(
        _ guest: ForwardedGuest, _ emulation: Box<EmulationDescriptor>, _ kinds: [ForwardedRequest.Kind]
    ) throws -> Duration {
        let task = try waiter(emulation, polling: true)
        try guest.perform(.deviceStore(1))
        let start = now()
        let ticket = try guest.begin(.deviceLoad())
        #expect(eventually { task.hasEnded })
        let elapsed = now() - start
        let requests = try emulation.value.take(exactly: kinds.count)
        #expect(requests.map(\.kind) == kinds)
        try emulation.value.acknowledge(requests)
        try guest.finish(ticket)
        return elapsed
    }

    // MARK: One wake-up

    @Test("stores below the number wake nobody, and the one that reaches it does", arguments: [false, true])
    func number(polling: Bool) throws {
        try withCoalescing(4, .seconds(1)) { guest, emulation in
            try expectAtOnce {
                let task = try waiter(emulation, polling: polling)
                let start = now()
                for value: UInt128 in 0..<3 { try guest.perform(.deviceStore(value)) }
                // On a kernel with checkers these alone may take longer than a store is held back.
                let wasWoken = eventually(within: .milliseconds(50)) { task.hasEnded }
                #expect(!wasWoken || now() - start > .milliseconds(900))
                let last = now()
                try guest.perform(.deviceStore(3))
                #expect(eventually { task.hasEnded })
                let elapsed = now() - last
                let taken = try task.join()
                let rest = try emulation.value.take(exactly: polling ? 4 : 4 - taken)
                #expect(rest.map(\.data) == Array(0..<4).suffix(rest.count))
                return elapsed
            }
        }
    }

    @Test("a store that is held back wakes in time", arguments: [false, true])
    func time(polling: Bool) throws {
        try withCoalescing(100, .milliseconds(300)) { guest, emulation in
            for _ in 0..<2 {
                let task = try waiter(emulation, polling: polling)
                let start = now()
                try guest.perform(.deviceStore(1))
                #expect(eventually { task.hasEnded })
                #expect(now() - start >= .milliseconds(250))
                _ = try task.join()
                if polling { try emulation.value.acknowledge(try emulation.value.take(exactly: 1)) }
            }
        }
    }

    @Test("O3: a load wakes at once, and comes after the stores that were held back")
    func load() throws {
        try withCoalescing(100, .seconds(1)) { guest, emulation in
            try expectAtOnce { try wakingByLoad(guest, emulation, [.store, .load]) }
        }
    }

    @Test("O6: a store without space wakes at once")
    func noSpace() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try withCoalescing(100, .seconds(1)) { guest, emulation in
                try expectAtOnce {
                    let task = try waiter(emulation, polling: true)
                    let first = now()
                    for value: UInt128 in 0..<2 { try guest.perform(.deviceStore(value)) }
                    #expect(!task.hasEnded || now() - first > .milliseconds(900))
                    let start = now()
                    let ticket = try guest.begin(.deviceStore(2))
                    #expect(eventually { task.hasEnded })
                    let elapsed = now() - start
                    // F3: no more than that many are given without a reply.
                    for count in [2, 1] { try emulation.value.acknowledge(try emulation.value.take(exactly: count)) }
                    try guest.finish(ticket)
                    return elapsed
                }
            }
        }
    }

    @Test("O4: a shadow load that waits for a store that is held back wakes at once")
    func shadowLoad() throws {
        try withCoalescing(100, .seconds(1)) { guest, emulation in
            try emulation.value.setShadowSize(4096)
            try emulation.value.setShadowMap(imageSize: 4096, .whole(0, 4096))
            try expectAtOnce { try wakingByLoad(guest, emulation, [.store]) }
        }
    }

    @Test("a call that need not wait takes what is pending, however little")
    func readBeforeTime() throws {
        try withCoalescing(100, .seconds(1)) { guest, emulation in
            try guest.perform(.deviceStore(5))
            #expect(try emulation.value.poll(milliseconds: 0).contains(.readable))
            #expect(try emulation.value.takeNow().map(\.data) == [5])
        }
    }

    @Test(
        "switched off, what is held back wakes at once, and so does every store after that; the last close does it too")
    func off() throws {
        try withCoalescing(100, .seconds(1)) { guest, emulation in
            try expectAtOnce {
                try emulation.value.setCoalescing(stores: 100, for: .seconds(1))
                let held = try waiter(emulation, polling: true)
                let first = now()
                try guest.perform(.deviceStore(1))
                #expect(!held.hasEnded || now() - first > .milliseconds(900))
                let start = now()
                try emulation.value.setCoalescing(stores: nil)
                #expect(eventually { held.hasEnded })
                let elapsed = now() - start
                try emulation.value.acknowledge(try emulation.value.take(exactly: 1))
                return elapsed
            }
            try expectAtOnce { try wakingBySingleStore(guest, emulation) }
        }
        try ForwardedGuest.run { guest in
            try expectAtOnce {
                let first = try guest.control.makeEmulationDescriptor()
                try first.setCoalescing(stores: 100, for: .seconds(1))
                close(first)
                return try wakingBySingleStore(guest, Box(try guest.control.makeEmulationDescriptor()))
            }
        }
    }

    private func wakingBySingleStore(
        _ guest: ForwardedGuest, _ emulation: Box<EmulationDescriptor>
    ) throws -> Duration {
        let task = try waiter(emulation, polling: true)
        let start = now()
        try guest.perform(.deviceStore(2))
        #expect(eventually { task.hasEnded })
        let elapsed = now() - start
        try emulation.value.acknowledge(try emulation.value.take(exactly: 1))
        return elapsed
    }

    @Test("F1: closed with the timer running, nothing of it is left")
    func closedWhileArmed() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            for _ in 0..<20 {
                let emulation = Box(try guest.control.makeEmulationDescriptor())
                try emulation.value.setCoalescing(stores: 100, for: .milliseconds(1))
                let task = try BackgroundTask { try emulation.value.takeNow() }
                try guest.perform(.deviceStore(1))
                try emulation.value.acknowledge(try task.join())
            }
        }
    }

    @Test(
        "EINVAL: one of number and time without the other, too long a time, padding",
        arguments: [
            (0, 1, 0), (1, 0, 0), (1, 1_000_000_001, 0), (1, UInt64.max, 0), (1, 1, 1), (0, 0, 1 << 31),
        ] as [(UInt32, UInt64, UInt32)])
    func invalid(stores: UInt32, ns: UInt64, pad: UInt32) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            var raw = kvm_dev_user_coalesce(ns: ns, stores: stores, pad: pad)
            #expect(throws: Errno.invalidArgument) {
                try emulation.descriptor.ioctl(CKVMUSER_COALESCE, &raw, onInterrupt: .fail)
            }
            #expect(try emulation.information().features.contains([.coalescing, .cumulativeReplies]))
        }
    }

    // MARK: One reply

    @Test("F2: a cumulative reply acknowledges the stores that were read before it, and no load")
    func cumulative() throws {
        try ForwardedGuest.run(vcpus: 3) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value: UInt128 in 0..<3 { try guest.perform(.deviceStore(value), on: 0) }
            let other = try guest.begin(.deviceLoad(), on: 1)
            let early = try emulation.take(exactly: 4)
            for value: UInt128 in 3..<5 { try guest.perform(.deviceStore(value), on: 2) }
            let late = try emulation.take(exactly: 2)
            // A store that is read and comes later is not meant.
            #expect(try emulation.send([cumulative(late[0])]) == 1)
            for request in early where request.kind == .store {
                #expect(throws: Errno.invalidArgument) { try emulation.reply(request) }
            }
            try guest.expectWaiting(other, on: 1)
            try emulation.reply(early[3], 0x66)
            #expect(try guest.finish(other, on: 1) == 0x66)
            try emulation.reply(late[1])
        }
    }

    @Test(
        "O3: a load goes on once a cumulative reply has acknowledged its vCPU's stores; its own reply may be that one")
    func cumulativeCompletes() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for isByStore in [true, false] {
                for value: UInt128 in 0..<3 { try guest.perform(.deviceStore(value)) }
                let ticket = try guest.begin(.deviceLoad())
                let requests = try emulation.take(exactly: 4)
                if isByStore {
                    try emulation.reply(requests[3], 0x12)
                    try guest.expectWaiting(ticket)
                    #expect(try emulation.send([cumulative(requests[2])]) == 1)
                } else {
                    #expect(try emulation.send([cumulative(requests[3], 0x12)]) == 1)
                }
                #expect(try guest.finish(ticket) == 0x12)
            }
        }
    }

    @Test("a cumulative reply that is EINVAL acknowledges nothing, one that is ESTALE does")
    func cumulativeRefused() throws {
        try ForwardedGuest.run(timeout: .seconds(2)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value: UInt128 in 0..<2 { try guest.perform(.deviceStore(value)) }
            let ticket = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 3)
            // B3: nobody waits for it any more.
            #expect(try guest.finish(ticket) == 0xffff_ffff)
            try emulation.reply(requests[1])
            #expect(throws: Errno.invalidArgument) { try emulation.send([cumulative(requests[1])]) }
            #expect(throws: Errno.stale) { try emulation.send([cumulative(requests[2])]) }
            for request in requests {
                #expect(throws: Errno.invalidArgument) { try emulation.reply(request) }
            }
        }
    }

    @Test("F3: a cumulative reply frees the places of all that it acknowledges")
    func cumulativeFreesPlaces() throws {
        try ModuleUnderTest.withQueueDepth(4) {
            try ForwardedGuest.run { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                for value: UInt128 in 0..<4 { try guest.perform(.deviceStore(value)) }
                let first = try emulation.take(exactly: 4)
                for value: UInt128 in 4..<8 { try guest.perform(.deviceStore(value)) }
                #expect(try !emulation.poll(milliseconds: 0).contains(.readable))
                #expect(try emulation.send([cumulative(first[3])]) == 1)
                let second = try emulation.take(exactly: 4)
                #expect(second.map(\.data) == [4, 5, 6, 7])
                #expect(try emulation.send([cumulative(second[3])]) == 1)
            }
        }
    }

    private func cumulative(_ request: ForwardedRequest, _ value: UInt64 = 0) -> ForwardedReply {
        var reply = request.reply(value)
        reply.isCumulative = true
        return reply
    }
}
