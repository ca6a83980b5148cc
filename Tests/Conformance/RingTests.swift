// SPDX-License-Identifier: Apache-2.0
//
// KVM_DEV_USER_RING: the rules hold as they do for read and write, and nothing written to the ring harms the kernel.

import CKVMUser
import DeviceEmulation
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import Synchronization
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Ring")
struct RingTests {
    /// Runs `body` with a device whose requests come in a ring.
    private func withRing(
        vcpus: Int = 1, timeout: Duration? = .seconds(60), respond: GuestExitHandler? = nil,
        _ body: (ForwardedGuest, inout RequestRing) throws -> Void
    ) throws {
        try ForwardedGuest.run(vcpus: vcpus, timeout: timeout, respond: respond) { guest in
            var ring = try RequestRing(try guest.control.makeEmulationDescriptor())
            try body(guest, &ring)
        }
    }

    // MARK: Rules

    @Test("O1, O2: requests are in the ring in the order in which they were accepted, across vCPUs, every value kept")
    func order() throws {
        try withRing(vcpus: 3) { guest, ring in
            let order: [UInt32] = [0, 1, 0, 2, 2, 1, 0, 1, 2, 0]
            for (position, vcpu) in order.enumerated() {
                try guest.perform(.deviceStore(UInt128(position) << 32 | 0xf1, 8), on: vcpu)
            }
            let requests = try ring.take(exactly: order.count)
            #expect(requests.map(\.vcpu) == order)
            #expect(requests.map(\.data) == (0..<UInt64(order.count)).map { $0 << 32 | 0xf1 })
            try ring.acknowledge(requests)
        }
    }

    @Test("a load gets the value of its reply, whether its vCPU sleeps by then or not", arguments: [1, 2, 4, 8])
    func load(length: Int) throws {
        try withRing { guest, ring in
            for round in 0..<20 as Range<UInt64> {
                let ticket = try guest.begin(.deviceLoad(length, 8))
                let request = try ring.take(exactly: 1)[0]
                if round % 2 == 0 { try guest.expectWaiting(ticket) }
                try ring.reply(request, 0x8877_6655_4433_2200 + round)
                #expect(try guest.finish(ticket) == (0x8877_6655_4433_2200 + round) & ForwardedRequest.mask(length))
            }
        }
    }

    @Test("O3: a load waits for its reply and for every older store of its vCPU, in whatever order they are replied to")
    func loadAfterStores() throws {
        try withRing { guest, ring in
            for value: UInt128 in 0..<3 { try guest.perform(.deviceStore(value)) }
            let ticket = try guest.begin(.deviceLoad())
            let requests = try ring.take(exactly: 4)
            for request in [requests[3], requests[1], requests[0]] {
                try ring.reply(request, 0x77)
                try guest.expectWaiting(ticket)
            }
            try ring.reply(requests[2])
            #expect(try guest.finish(ticket) == 0x77)
        }
    }

    @Test("O4: a shadow load sees that its vCPU's stores were replied to, also if nobody entered the kernel for that")
    func shadowLoad() throws {
        try withRing { guest, ring in
            try ring.emulation.setShadowSize(4096)
            let image = try ring.emulation.mapShadowImage(size: 4096)
            try ring.emulation.setShadowMap(imageSize: 4096, .whole(0, 4096))
            for value in 1...20 as ClosedRange<UInt64> {
                try guest.perform(.deviceStore(UInt128(value)))
                let store = try ring.take(exactly: 1)[0]
                try image.store(value, at: 0, length: 4)
                try ring.reply(store)
                #expect(try guest.perform(.deviceLoad()) == value)
            }
            #expect(try DebugCounters.ofNewestDevice()["shadow_hits"] == 20)
            // And waits while they were not.
            try guest.perform(.deviceStore(21))
            let ticket = try guest.begin(.deviceLoad())
            try guest.expectWaiting(ticket)
            try ring.acknowledge(try ring.take(exactly: 1))
            try guest.finish(ticket)
        }
    }

    @Test(
        "O6, F3: no more than the queue's depth is given without a reply, a store waits for space, a load has its place"
    )
    func full() throws {
        try ModuleUnderTest.withQueueDepth(4) {
            try withRing(vcpus: 2) { guest, ring in
                for value: UInt128 in 0..<8 { try guest.perform(.deviceStore(value)) }
                let store = try guest.begin(.deviceStore(8))
                let load = try guest.begin(.deviceLoad(), on: 1)
                let first = try ring.take(exactly: 4)
                try guest.expectWaiting(store)
                #expect(try ring.takeNow().isEmpty)
                try ring.acknowledge(first)
                let second = try ring.take(exactly: 4)
                try guest.finish(store)
                try ring.acknowledge(second)
                let rest = try ring.take(exactly: 2)
                #expect((first + second + rest).filter { $0.kind == .store }.map(\.data) == Array(0...8))
                for request in rest { try ring.reply(request, 0x31) }
                #expect(try guest.finish(load, on: 1) == 0x31)
            }
        }
    }

    @Test("F3: the ring's places are used again and again, in order, replies given in none", arguments: [1, 3, 4])
    func wrapAround(depth: Int) throws {
        try ModuleUnderTest.withQueueDepth(depth) {
            try withRing { guest, ring in
                for round in 0..<50 as Range<UInt128> {
                    for value in 0..<UInt128(depth) { try guest.perform(.deviceStore(round * 10 + value)) }
                    let requests = try ring.take(exactly: depth)
                    #expect(requests.map(\.data) == (0..<UInt64(depth)).map { UInt64(round) * 10 + $0 })
                    try ring.acknowledge(requests.reversed())
                }
                #expect(ring.refusedReplies == 0)
            }
        }
    }

    @Test(
        "B3: without a reply in time a load reads all-ones; the reply that comes then is refused, and the device goes on"
    )
    func timeout() throws {
        try withRing(timeout: .milliseconds(100)) { guest, ring in
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            let late = try ring.take(exactly: 1)[0]
            // Until there is a sign of life nothing waits.
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            try ring.reply(late, 1)
            try guest.control.setTimeout(.seconds(60))
            let ticket = try guest.begin(.deviceLoad())
            let request = try ring.take(exactly: 1)[0]
            try ring.reply(request, 0x4d)
            #expect(try guest.finish(ticket) == 0x4d)
            #expect(ring.refusedReplies == 1)
            #expect(try DebugCounters.ofNewestDevice()["late_replies"] == 1)
        }
    }

    @Test("B3: making a ring is a sign of life: what is accessed after a time limit has passed is given in it")
    func madeAfterStall() throws {
        try ForwardedGuest.run(timeout: .milliseconds(500)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            try guest.control.setTimeout(.seconds(60))
            var ring = try RequestRing(emulation)
            let ticket = try guest.begin(.deviceLoad())
            try ring.reply(try ring.take(exactly: 1)[0], 0x62)
            #expect(try guest.finish(ticket) == 0x62)
        }
    }

    @Test("B3: a reply that lies in the ring by the time limit is taken, though nobody entered the kernel for it")
    func repliedByTheLimit() throws {
        try withRing(timeout: .seconds(4)) { guest, ring in
            let ticket = try guest.begin(.deviceLoad())
            let request = try ring.take(exactly: 1)[0]
            // The vCPU is asleep by now, and does not look until it wakes.
            try guest.expectWaiting(ticket)
            let replies = [request.reply(0x63)]
            #expect(ring.put(replies.span) == 1)
            #expect(try guest.finish(ticket) == 0x63)
            #expect(try DebugCounters.ofNewestDevice()["timeouts"] == 0)
        }
    }

    @Test("B3: so is one that lies behind more replies than are looked at in one go")
    func repliedBehindOthers() throws {
        try withRing(timeout: .seconds(4)) { guest, ring in
            var requests: [ForwardedRequest] = []
            for value in 0..<150 {
                try guest.perform(.deviceStore(UInt128(value)))
                requests += try ring.take(exactly: 1)
            }
            let ticket = try guest.begin(.deviceLoad())
            requests += try ring.take(exactly: 1)
            try guest.expectWaiting(ticket)
            let replies = requests.map { $0.reply(0x64) }
            #expect(ring.put(replies.span) == replies.count)
            #expect(try guest.finish(ticket) == 0x64)
            #expect(try DebugCounters.ofNewestDevice()["timeouts"] == 0)
        }
    }

    @Test("RING_ENTER has all replies looked at that the ring has room for, the last of them a load's")
    func repliedBehindRefused() throws {
        // The ring has 512 places then.
        try ModuleUnderTest.withQueueDepth(257) {
            try withRing { guest, ring in
                try guest.perform(.deviceStore(1))
                let ticket = try guest.begin(.deviceLoad())
                let requests = try ring.take(exactly: 2)
                try guest.expectWaiting(ticket)
                let replies = Array(repeating: requests[0].reply(), count: 511) + [requests[1].reply(0x64)]
                #expect(ring.put(replies.span) == replies.count)
                try ring.enter(waiting: false)
                #expect(ring.refusedReplies == 510)
                #expect(try guest.finish(ticket) == 0x64)
            }
        }
    }

    @Test("B4: a parked load is answered by way of the ring, and requested once")
    func parked() throws {
        let hold = SignalHold()
        try withRing(respond: hold.respond) { guest, ring in
            defer { hold.end() }
            try guest.control.setParking(true)
            let ticket = try guest.begin(.deviceLoad())
            let request = try ring.take(exactly: 1)[0]
            guest.interrupt(0)
            try #require(eventually { hold.held[0] != nil })
            try ring.reply(request, 0x1357)
            hold.release()
            #expect(try guest.finish(ticket) == 0x1357)
            #expect(try ring.takeNow().isEmpty)
        }
    }

    @Test("F1: under HOLD, what was replied to in the ring is done, what was not comes again, in order and marked")
    func heldOver() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setOnClose(policy: .hold)
            try oneRound(guest, values: 0..<6, replyingTo: 3)
            var next = try RequestRing(try guest.control.makeEmulationDescriptor())
            try guest.perform(.deviceStore(6))
            let requests = try next.take(exactly: 4)
            #expect(requests.map(\.data) == [3, 4, 5, 6])
            #expect(requests.map(\.isRedelivered) == [true, true, true, false])
            try next.acknowledge(requests)
            close(next)
            let last = try guest.control.makeEmulationDescriptor()
            #expect(try !last.poll(milliseconds: 0).contains(.readable), "a reply was lost")
        }
    }

    private func oneRound(_ guest: ForwardedGuest, values: Range<UInt128>, replyingTo count: Int) throws {
        var ring = try RequestRing(try guest.control.makeEmulationDescriptor())
        for value in values { try guest.perform(.deviceStore(value)) }
        let requests = try ring.take(exactly: values.count)
        try ring.acknowledge(requests.prefix(count))
    }

    @Test("F1: under ABORT, a load that waits for a reply in the ring reads all-ones at the close")
    func aborted() throws {
        try ForwardedGuest.run { guest in
            var ring = try RequestRing(try guest.control.makeEmulationDescriptor())
            let ticket = try guest.begin(.deviceLoad())
            _ = try ring.take(exactly: 1)
            close(ring)
            #expect(try guest.finish(ticket) == 0xffff_ffff)
        }
    }

    @Test(
        "poll says readable while the ring has what was not taken; a waiting ENTER is woken", arguments: [false, true])
    func waiting(coalescing: Bool) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let other = Box(try emulation.duplicate())
            var ring = try RequestRing(emulation)
            if coalescing { try other.value.setCoalescing(stores: 3, for: .seconds(1)) }
            #expect(try !other.value.poll(milliseconds: 0).contains(.readable))
            let task = try BackgroundTask { try other.value.poll(milliseconds: -1).contains(.readable) }
            for value: UInt128 in 0..<3 { try guest.perform(.deviceStore(value)) }
            #expect(eventually(within: .milliseconds(900)) { task.hasEnded })
            #expect(try task.join())
            try ring.enter(waiting: true)
            try ring.acknowledge(try ring.take(exactly: 3))
            #expect(try !other.value.poll(milliseconds: 0).contains(.readable))
        }
    }

    @Test("a device server on the ring: every value of mixed accesses by two vCPUs")
    func served() throws {
        try ModuleUnderTest.load()
        let count = Effort.scaled(5_000)
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 2, capacity: count)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x8000))
        let device = SharedDevice(WindowMemory(count: 0x8000))
        let ring = Box(Held(try RequestRing(try control.makeEmulationDescriptor())))
        let server = try BackgroundTask {
            guard let ring = ring.value.take() else { return ServerEnd.stopped }
            return try DeviceServer(device, on: ring).run()
        }
        let arguments = (0..<UInt64(2)).map {
            GuestProgram.Arguments(target: ForwardedGuest.base + 0x2000 * $0 + 0x800, count: count, seed: $0 + 1)
        }
        let programs = try arguments.enumerated().map { try guest.start(.mixed, $1, on: UInt32($0)) }
        for (program, arguments) in zip(programs, arguments) {
            #expect(
                try program.join().values == KVMReferenceDevice.loadedValues(GuestProgram.mixed.accesses(arguments)))
        }
        device.stop()
        #expect(try server.join() == .stopped)
        #expect(device.withDevice { $0.improper } == 0)
    }

    // MARK: Refusals

    @Test("with a ring read and exchange are EBUSY, a reader that waits is told so, and there is no second ring")
    func busy() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let other = Box(try emulation.duplicate())
            let reader = try BackgroundTask { try other.value.takeNow().count }
            _ = eventually(within: .milliseconds(100)) { reader.hasEnded }
            var ring = try RequestRing(emulation)
            #expect(throws: Errno.resourceBusy) { try reader.join() }
            try guest.perform(.deviceStore(1))
            #expect(throws: Errno.resourceBusy) { try other.value.takeNow() }
            #expect(throws: Errno.resourceBusy) { try other.value.rawExchange([], room: 1) }
            var raw = kvm_dev_user_ring()
            #expect(throws: Errno.resourceBusy) { try other.value.descriptor.ioctl(CKVMUSER_RING, &raw) }
            // A reply may be written all the same.
            try other.value.acknowledge(try ring.take(exactly: 1))
        }
    }

    @Test("F1: a ring that is mapped still after the last close is looked at no more, and the next process has its own")
    func stillMapped() throws {
        try ForwardedGuest.run { guest in
            var raw = kvm_dev_user_ring()
            let first = try guest.control.makeEmulationDescriptor()
            try first.descriptor.ioctl(CKVMUSER_RING, &raw)
            let old = try MemoryMapping(
                mapping: first.descriptor, offset: Int(CKVMUSER_RING_OFFSET), count: Int(raw.size))
            close(first)
            var ring = try RequestRing(try guest.control.makeEmulationDescriptor())
            let ticket = try guest.begin(.deviceLoad())
            let request = try ring.take(exactly: 1)[0]
            unsafe old.baseAddress.storeBytes(of: 3, toByteOffset: 68, as: UInt32.self)
            try ring.enter(waiting: false)
            try guest.expectWaiting(ticket)
            try ring.reply(request, 0x61)
            #expect(try guest.finish(ticket) == 0x61)
            #expect(ring.refusedReplies == 0)
        }
    }

    @Test("F4: a close with a child that goes on giving replies ends all the same, and so does a wait (B3)")
    func flooded() throws {
        try ForwardedGuest.run(timeout: .milliseconds(200)) { guest in
            for _ in 0..<3 {
                let emulation = try guest.control.makeEmulationDescriptor()
                var raw = kvm_dev_user_ring()
                try emulation.descriptor.ioctl(CKVMUSER_RING, &raw)
                let memory = Box(
                    try MemoryMapping(
                        mapping: emulation.descriptor, offset: Int(CKVMUSER_RING_OFFSET), count: Int(raw.size)))
                let (entries, isOver) = (raw.entries, Flag())
                let flood = try BackgroundTask {
                    while !isOver.value.load(ordering: .relaxed) {
                        // SAFETY: the counts of the header; nobody else of this process looks at them.
                        let tail = unsafe memory.value.baseAddress.load(fromByteOffset: 4, as: UInt32.self)
                        unsafe memory.value.baseAddress.storeBytes(
                            of: tail &+ entries, toByteOffset: 68, as: UInt32.self)
                    }
                }
                #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
                close(emulation)
                isOver.value.store(true, ordering: .relaxed)
                try flood.join()
            }
        }
    }

    /// Something that one thread sets and another looks at.
    private final class Flag: Sendable {
        let value = Atomic(false)
    }

    @Test("F3: replies by write free places in the ring", arguments: [true, false])
    func writtenReplies(sleeping: Bool) throws {
        try ModuleUnderTest.withQueueDepth(4) {
            try withRing { guest, ring in
                for value: UInt128 in 0..<6 { try guest.perform(.deviceStore(value)) }
                let ticket = sleeping ? try guest.begin(.deviceLoad()) : nil
                try ring.emulation.acknowledge(try ring.take(exactly: 4))
                let rest = try ring.take(exactly: sleeping ? 3 : 2)
                #expect(rest.prefix(2).map(\.data) == [4, 5])
                try ring.emulation.acknowledge(rest)
                if let ticket { try guest.finish(ticket) }
            }
        }
    }

    @Test("F3: requests that wait for replies are given when these come, though no vCPU sleeps")
    func blockedRequests() throws {
        try ModuleUnderTest.withQueueDepth(4) {
            try withRing { guest, ring in
                for value: UInt128 in 0..<8 { try guest.perform(.deviceStore(value)) }
                try ring.acknowledge(try ring.take(exactly: 4))
                #expect(try ring.take(exactly: 4).map(\.data) == [4, 5, 6, 7])
            }
        }
    }

    @Test("B4: RESUME sees a reply that was given in the ring while another vCPU had run into the time limit (B3)")
    func resumedAfterStall() throws {
        let hold = SignalHold()
        try withRing(vcpus: 2, respond: hold.respond) { guest, ring in
            defer { hold.end() }
            try guest.control.setParking(true)
            let parked = try guest.begin(.deviceLoad())
            let request = try ring.take(exactly: 1)[0]
            guest.interrupt(0)
            try #require(eventually { hold.held[0] != nil })
            try guest.control.setTimeout(.milliseconds(300))
            #expect(try guest.perform(.deviceLoad(), on: 1) == 0xffff_ffff)
            let replies = [request.reply(0x2468)]
            #expect(try ring.give(replies.span) == 1)
            hold.release()
            #expect(try guest.finish(parked) == 0x2468)
        }
    }

    @Test("ENTER: EINVAL without a ring, for an unknown flag and for padding")
    func enterRefused() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            var plain = kvm_dev_user_ring_enter()
            #expect(throws: Errno.invalidArgument) { try emulation.descriptor.ioctl(CKVMUSER_RING_ENTER, &plain) }
            let ring = try RequestRing(emulation)
            for (flags, pad) in [(2, 0), (UInt32.max, 0), (0, 1)] as [(UInt32, UInt32)] {
                var raw = kvm_dev_user_ring_enter(flags: flags, pad: pad)
                #expect(throws: Errno.invalidArgument) {
                    try ring.emulation.descriptor.ioctl(CKVMUSER_RING_ENTER, &raw)
                }
            }
            try ring.enter(waiting: false)
        }
    }

    @Test("mmap: EINVAL without a ring, beyond it, and private; EPERM executable")
    func mapping() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let number = emulation.descriptor.rawValue
            func map(_ count: Int, _ protection: CInt = PROT_READ, _ flags: CInt = MAP_SHARED) -> CInt {
                let address = unsafe mmap(nil, count, protection, flags, number, off_t(CKVMUSER_RING_OFFSET))
                guard let address = unsafe address, UInt(bitPattern: address) != UInt.max else { return errno }
                _ = unsafe munmap(address, count)
                return 0
            }
            #expect(map(4096) == EINVAL)
            var raw = kvm_dev_user_ring()
            try emulation.descriptor.ioctl(CKVMUSER_RING, &raw)
            #expect(map(Int(raw.size)) == 0)
            #expect(map(Int(raw.size) + 1) == EINVAL)
            #expect(map(4096, PROT_READ, MAP_PRIVATE) == EINVAL)
            #expect(map(4096, PROT_READ | PROT_EXEC) == EPERM)
        }
    }

    @Test("after the VM's end the ring keeps what it has, ENTER is ENODEV, and a read gives the rest, then 0")
    func machineGone() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            let ring = Box(Held<RequestRing>(nil))
            try ForwardedGuest.run { guest in
                ring.value.put(try RequestRing(try guest.control.makeEmulationDescriptor()))
                for value: UInt128 in 0..<4 { try guest.perform(.deviceStore(value)) }
            }
            guard var last = ring.value.take() else { return }
            // The vCPUs' descriptors close one after the other.
            #expect(eventually { (try? last.enter(waiting: false)) == nil })
            var values: [UInt64] = []
            while true {
                let requests = try last.exchanged([])
                if requests.isEmpty { break }
                values += requests.map(\.data)
            }
            #expect(values == [0, 1, 2, 3])
        }
    }

    // MARK: Hostile memory

    @Test("F4: counts and replies that make no sense are refused, and nobody else is harmed", arguments: 0..<6)
    func hostile(kind: Int) throws {
        try ForwardedGuest.run(vcpus: 2, timeout: .milliseconds(500)) { guest in
            var raw = kvm_dev_user_ring()
            let emulation = try guest.control.makeEmulationDescriptor()
            try emulation.descriptor.ioctl(CKVMUSER_RING, &raw)
            let memory = try MemoryMapping(
                mapping: emulation.descriptor, offset: Int(CKVMUSER_RING_OFFSET), count: Int(raw.size))
            let header = unsafe memory.baseAddress.assumingMemoryBound(to: kvm_user_ring.self)
            let ticket = try guest.begin(.deviceLoad())
            // SAFETY: the kernel is made to look at whatever is here; that is the test.
            switch kind {
            case 0: unsafe header.pointee.reply_head = 1 << 31
            case 1: unsafe header.pointee.reply_head = raw.entries + 1
            case 2: unsafe header.pointee.reply_head = raw.entries
            case 3: unsafe header.pointee.request_tail = 12345
            case 4: unsafe header.pointee.request_head = 77
            default: _ = unsafe memset(memory.baseAddress, 0xa5, memory.count)
            }
            for _ in 0..<3 {
                var enter = kvm_dev_user_ring_enter()
                try emulation.descriptor.ioctl(CKVMUSER_RING_ENTER, &enter)
            }
            // B3: nobody replies.
            #expect(try guest.finish(ticket) == 0xffff_ffff)
            try guest.perform(.deviceStore(1), on: 1)
            #expect(try DebugCounters.ofNewestDevice()["timeouts"] == 1)
        }
    }

    @Test("F4: a process that writes nonsense to the ring while it is used harms no guest")
    func hostileAllTheTime() throws {
        try ForwardedGuest.run(vcpus: 2, timeout: .milliseconds(50)) { guest in
            var raw = kvm_dev_user_ring()
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            try emulation.value.descriptor.ioctl(CKVMUSER_RING, &raw)
            let memory = Box(
                try MemoryMapping(
                    mapping: emulation.value.descriptor, offset: Int(CKVMUSER_RING_OFFSET), count: Int(raw.size)))
            let vandal = try BackgroundTask {
                var state: UInt32 = 1
                for _ in 0..<Effort.scaled(200_000) {
                    state = state &* 1_664_525 &+ 1_013_904_223
                    let place = Int(state >> 8) % (memory.value.count / 4) * 4
                    unsafe memory.value.baseAddress.storeBytes(of: state, toByteOffset: place, as: UInt32.self)
                    var enter = kvm_dev_user_ring_enter()
                    if state % 64 == 0 { try emulation.value.descriptor.ioctl(CKVMUSER_RING_ENTER, &enter) }
                }
            }
            while !vandal.hasEnded {
                try guest.perform(.deviceStore(1), on: 0)
                try guest.perform(.deviceLoad(), on: 1)
            }
            try vandal.join()
        }
    }
}

/// Something that has one owner at a time, and changes it.
final class Held<Value: ~Copyable & Sendable>: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): tests put and take it one after the other.
    private var value: Value?

    init(_ value: consuming Value?) {
        self.value = value
    }

    func put(_ new: consuming Value) {
        value = consume new
    }

    func take() -> Value? {
        value.take()
    }
}

extension RequestRing {
    /// Takes what is there.
    mutating func takeNow(_ maximum: Int = 64) throws -> [ForwardedRequest] {
        var requests = [ForwardedRequest](
            repeating: ForwardedRequest(sequence: 0, .load, offset: 0, length: 0), count: maximum)
        var room = requests.mutableSpan
        let count = take(into: &room)
        return Array(requests.prefix(count))
    }

    /// Takes exactly `count` requests.
    mutating func take(exactly count: Int) throws -> [ForwardedRequest] {
        var all: [ForwardedRequest] = []
        let start = now()
        while all.count < count, now() - start < .seconds(20) { all += try takeNow(count - all.count) }
        try #require(all.count == count, "\(all.count) of \(count) requests came")
        return all
    }

    /// As a server's turn.
    mutating func exchanged(_ replies: [ForwardedReply]) throws(Errno) -> [ForwardedRequest] {
        var requests = [ForwardedRequest](
            repeating: ForwardedRequest(sequence: 0, .load, offset: 0, length: 0), count: 64)
        var room = requests.mutableSpan
        let count = try exchange(replies.span, for: &room)
        return Array(requests.prefix(count))
    }

    /// Replies to one request.
    mutating func reply(_ request: ForwardedRequest, _ value: UInt64 = 0) throws {
        let replies = [request.reply(value)]
        #expect(try give(replies.span) == 1)
    }

    /// Replies to some requests, in this order.
    mutating func acknowledge(_ requests: some Sequence<ForwardedRequest>) throws {
        for request in requests { try reply(request) }
    }
}
