// SPDX-License-Identifier: Apache-2.0
//
// Operations on the ring: making and mapping it, requests out of it, replies in it, the call that has them looked at.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import SeededRandom

extension FuzzDriver {
    private static let page: UInt64 = 4096

    /// Arguments of the ring's calls: other operations have their replies and requests in the arena.
    private var ringArgument: UInt64 { arena.start + 0xe000 }

    // MARK: Making it

    func makeRing(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first else { return }
        guard device.has(CKVMUSER_FEATURE_RING) else {
            return try expect(cfuzz_ioctl(number, UInt64(CKVMUSER_RING), ringArgument), [-ENOTTY], "RING")
        }
        if random.oneIn(6) {
            let address = random.pick([0, arena.end - 8, UInt64.max - 100])
            try expect(cfuzz_ioctl(number, UInt64(CKVMUSER_RING), address), [-EFAULT], "RING that faults")
        }
        let expected: Int32 = model(device).ring == nil ? 0 : -EBUSY
        try expect(cfuzz_ioctl(number, UInt64(CKVMUSER_RING), ringArgument), [expected], "RING")
        guard expected == 0 else { return }
        let layout = arena.get(kvm_dev_user_ring(), at: ringArgument)
        try check(layout)
        device.ring = RingMemory(address: try mapWhole(number, layout), layout: layout)
        model(device).ring = RingModel(entries: layout.entries)
        try syncRing(device)
    }

    private func check(_ layout: kvm_dev_user_ring) throws(Discrepancy) {
        let room = UInt64(layout.entries) * RingMemory.stride
        let header = UInt64(MemoryLayout<kvm_user_ring>.size)
        let (requests, replies) = (UInt64(layout.requests_offset), UInt64(layout.replies_offset))
        try demand(
            Int(layout.entries) >= plan.depth && layout.entries.nonzeroBitCount == 1 && layout.pad == 0
                && requests >= header && replies >= requests + room && replies + room <= layout.size
                && layout.size % Self.page == 0,
            "RING says \(layout)")
    }

    private func mapWhole(_ number: CInt, _ layout: kvm_dev_user_ring) throws(Discrepancy) -> UInt64 {
        let result = cfuzz_mmap(number, layout.size, PROT_READ | PROT_WRITE, MAP_SHARED, UInt64(CKVMUSER_RING_OFFSET))
        try demand(result > 0, "mmap of the ring gave \(result)")
        return UInt64(result)
    }

    /// Maps some of it, rightly or not; or takes the one mapping away for a while, in which the kernel goes on.
    func mapRing(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first, device.has(CKVMUSER_FEATURE_RING) else { return }
        if let ring = device.ring, random.oneIn(3) {
            try expect(cfuzz_munmap(ring.address, Int(ring.layout.size)), [0], "munmap of the ring")
            usleep(200)
            device.ring = RingMemory(address: try mapWhole(number, ring.layout), layout: ring.layout)
            return try syncRing(device)
        }
        let size = device.ring?.layout.size ?? 0
        let offset = Self.page * UInt64(random.below(3))
        let count = Self.page * UInt64(1 + random.below(3))
        let flags = random.oneIn(5) ? MAP_PRIVATE : MAP_SHARED
        let protection = PROT_READ | (random.oneIn(2) ? 0 : PROT_WRITE) | (random.oneIn(5) ? PROT_EXEC : 0)
        let result = cfuzz_mmap(number, count, protection, flags, UInt64(CKVMUSER_RING_OFFSET) + offset)
        guard flags == MAP_SHARED, protection & PROT_EXEC == 0, offset + count <= size else {
            return try expect(result, [-EINVAL, -EPERM], "mmap of \(hex(count)) of the ring at \(hex(offset))")
        }
        try demand(result > 0, "mmap of \(hex(count)) of the ring at \(hex(offset)) gave \(result)")
        try expect(cfuzz_munmap(UInt64(result), Int(count)), [0], "munmap")
    }

    // MARK: What every look at it needs

    /// Tells the model what the kernel has put there.
    ///
    /// - Parameter exactly: whether a look at replies that has had effects is to be seen.
    func syncRing(_ device: FuzzedDevice, exactly: Bool = false) throws {
        guard device.ring != nil, let known = model(device).ring else { return }
        if exactly && !known.waiting.isEmpty { try passLock(device) }
        try lookAtRing(device)
        guard machine != nil, lacksRequests(device) else { return }
        // Replies are shown as looked at before what waited for them is given.
        try passLock(device)
        try lookAtRing(device)
        if lacksRequests(device), let piece = model.certainlyPending(device.index) {
            throw Discrepancy("ring: \(piece) is not there, and not too many replies are owed")
        }
    }

    private func lacksRequests(_ device: FuzzedDevice) -> Bool {
        model(device).outstanding.count < plan.depth && model.certainlyPending(device.index) != nil
    }

    private func lookAtRing(_ device: FuzzedDevice) throws {
        guard let ring = device.ring else { return }
        while let seen = model(device).ring?.seen {
            // In this order: what was given after replies is judged with them.
            let head = ring[.requestHead]
            let tail = tamper(tail: ring[.replyTail], device)
            try model.looked(device.index, upTo: tail, refused: ring[.refused])
            let new = head &- seen
            if new == 0 { return }
            try demand(new <= ring.entries, "ring: request_head is \(head), after \(seen)")
            let requests = (0..<new).map { arena.get(kvm_user_request(), at: ring.request(seen &+ $0)) }
            model(device).ring?.seen = head
            try took(device, requests, Int(new))
        }
    }

    /// Takes the queue's lock once, by a call that changes nothing: what was done under it is seen then.
    private func passLock(_ device: FuzzedDevice) throws {
        arena.put(kvm_dev_user_on_close(policy: model(device).policy, pad: 0), at: ringArgument)
        try expect(control(device, CKVMUSER_ON_CLOSE, ringArgument), [0], "ON_CLOSE as before")
    }

    private func tamper(tail: UInt32, _ device: FuzzedDevice) -> UInt32 {
        guard tampering == .wrongRingCount, model(device).ring?.waiting.isEmpty == true, tail > 0 else { return tail }
        (tampering, hasTampered) = (nil, true)
        return tail &+ 1
    }

    /// The last descriptor is closed: what was replied to by then is.
    func closeRing(_ device: FuzzedDevice) throws {
        guard let ring = device.ring else { return }
        try lookAtRing(device)
        try demand(
            model(device).ring?.waiting.isEmpty != false, "ring: the close left replies in it that nobody looked at")
        try dropRing(device, ring)
    }

    /// Nobody needs the memory any more.
    func dropRing(_ device: FuzzedDevice, _ ring: RingMemory) throws(Discrepancy) {
        try expect(cfuzz_munmap(ring.address, Int(ring.layout.size)), [0], "munmap of the ring")
        device.ring = nil
        model(device).ring = nil
    }

    // MARK: The call

    /// Has the kernel look at everything, where there is something to look at.
    func enterRing(_ device: FuzzedDevice) throws {
        guard device.ring != nil, let number = device.descriptors.first else { return }
        try enter(device, number, 0)
    }

    private func enter(_ device: FuzzedDevice, _ number: CInt, _ flags: UInt32) throws {
        try callEnter(number, flags, [0])
        try syncRing(device)
        try demand(model(device).ring?.waiting.isEmpty != false, "ring: RING_ENTER left replies in it")
    }

    func callEnter(_ number: CInt, _ flags: UInt32, pad: UInt32 = 0, _ expected: [Int32]) throws(Discrepancy) {
        arena.put(kvm_dev_user_ring_enter(flags: flags, pad: pad), at: ringArgument)
        let result = cfuzz_ioctl(number, UInt64(CKVMUSER_RING_ENTER), ringArgument)
        try expect(result, expected, "RING_ENTER \(flags), \(pad)")
    }

    func ringEnter(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.descriptors.isEmpty else { return }
        let number = random.pick(device.descriptors)
        guard device.has(CKVMUSER_FEATURE_RING) else { return try callEnter(number, 0, [-ENOTTY]) }
        if random.oneIn(8) {
            let flag: UInt32 = random.oneIn(2) ? 1 << UInt32(1 + random.below(31)) : 0
            return try callEnter(number, flag, pad: flag == 0 ? 5 : 0, [-EINVAL])
        }
        guard let ring = device.ring else { return try callEnter(number, random.oneIn(2) ? 1 : 0, [-EINVAL]) }
        switch random.below(8) {
        case 0: return try enterOtherwise(device, "in another process") { cfuzz_fork_ioctl(number, $0, $1) }
        case 1: return try enterOtherwise(device, "by two threads at once") { cfuzz_ioctl_at_once(number, $0, $1) }
        default: break
        }
        let mayWait = device.isNonBlocking || ring.isBehind
        try enter(device, number, mayWait && random.oneIn(2) ? UInt32(KVM_USER_RING_ENTER_WAIT) : 0)
    }

    /// Has its replies looked at by a copy of this process, with the ring mapped, or by two threads at once.
    private func enterOtherwise(
        _ device: FuzzedDevice, _ how: String, _ call: (UInt64, UInt64) -> Int64
    ) throws {
        arena.put(kvm_dev_user_ring_enter(), at: ringArgument)
        try expect(call(UInt64(CKVMUSER_RING_ENTER), ringArgument), [0], "RING_ENTER \(how)")
        try syncRing(device)
        try demand(model(device).ring?.waiting.isEmpty != false, "ring: RING_ENTER \(how) left replies in it")
    }

    /// Sleeps until a request comes that is sure to.
    func ringAwait(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let ring = device.ring, let number = device.descriptors.first else { return }
        try enterRing(device)
        let idle = (0..<plan.vcpus).filter { model.vcpus[$0].accesses.count == model.vcpus[$0].done }
        let places = model(device).current.filter { $0.bus == .memory && $0.length >= 8 }
        guard !idle.isEmpty, !places.isEmpty, model(device).outstanding.count < plan.depth else { return }
        let (vcpu, place) = (random.pick(idle), random.pick(places))
        ring[.requestTail] = model(device).ring?.seen ?? 0
        try issue(.store(UInt128(random.below(128)), 1, at: place.address), on: vcpu, to: device)
        try machine?.wake(vcpu)
        try enter(device, number, UInt32(KVM_USER_RING_ENTER_WAIT))
        try demand(device.isNonBlocking || ring.unread > 0, "ring: RING_ENTER waited, and no request is there")
    }

    func pollRing(_ device: FuzzedDevice, _ ring: RingMemory, _ number: CInt) throws(Discrepancy) {
        let (isBehind, wasEmpty) = (ring.isBehind, ring.unread == 0)
        let events = cfuzz_poll(number)
        try demand(events & ~Int64(POLLIN) == Int64(POLLOUT), "poll says \(hex(events))")
        if isBehind { try demand(events & Int64(POLLIN) != 0, "poll says nothing of requests in the ring") }
        if wasEmpty && ring.unread == 0 {
            try demand(events & Int64(POLLIN) == 0, "poll says POLLIN to who has taken all requests from the ring")
        }
    }

    // MARK: Requests and replies

    /// Says how many requests were taken: rightly, or not.
    func ringTake(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let ring = device.ring, let seen = model(device).ring?.seen else { return }
        switch random.below(8) {
        case 0: ring[.requestTail] = UInt32(truncatingIfNeeded: random.next())
        case 1: ring[.requestTail] = seen &+ UInt32(1 + random.below(9))
        case 2: ring[.requestTail] = seen &- UInt32(1 + random.below(9))
        default: ring[.requestTail] = seen
        }
    }

    func ringGive(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let ring = device.ring, let known = model(device).ring else { return }
        if random.oneIn(2) { ring[.requestTail] = known.seen }
        if random.oneIn(10) {
            // What was there before, of whatever kind.
            let count = UInt32(random.below(known.room + 1))
            publish((0..<count).map { arena.get(kvm_user_request(), at: ring.reply(known.given &+ $0)) }, device, ring)
        } else {
            put(Array(replies(device, &random).prefix(known.room)), device, ring)
        }
        if random.oneIn(3) { return try enterRing(device) }
        if random.oneIn(2) { try notify(device) }
    }

    /// Stores replies, and publishes them.
    func put(_ replies: [kvm_user_request], _ device: FuzzedDevice, _ ring: RingMemory) {
        let given = model(device).ring?.given ?? 0
        for (position, reply) in tamper(ringReplies: replies, device).enumerated() {
            arena.put(reply, at: ring.reply(given &+ UInt32(position)))
        }
        publish(replies, device, ring)
    }

    private func publish(_ replies: [kvm_user_request], _ device: FuzzedDevice, _ ring: RingMemory) {
        // Before the kernel may look.
        model(device).ring?.give(replies)
        ring[.replyHead] = model(device).ring?.given ?? 0
    }

    /// As they go to the kernel: not always as the model is told.
    private func tamper(ringReplies: [kvm_user_request], _ device: FuzzedDevice) -> [kvm_user_request] {
        guard tampering == .lostRingReply, device.isSteady,
            let position = ringReplies.firstIndex(where: { model.verdict($0, device.index) == .accepted })
        else { return ringReplies }
        var sent = ringReplies
        sent[position] = kvm_user_request()
        (tampering, hasTampered) = (nil, true)
        return sent
    }

    /// Does what the ABI asks for after replies: enters the kernel if that says so. If not, a vCPU that waits looks.
    private func notify(_ device: FuzzedDevice) throws {
        guard let ring = device.ring else { return }
        if ring[.flags] & UInt32(KVM_USER_RING_NEED_ENTER) != 0 { return try enterRing(device) }
        // What was published before may have been looked at, and then nobody need look again.
        try syncRing(device, exactly: true)
        let isAwaited =
            device.isSteady
            && (model(device).ring?.waiting ?? []).contains { given in
                guard case .reply(let reply) = given else { return false }
                return reply.type == UInt16(KVM_USER_LOAD) && model.verdict(reply, device.index) == .accepted
            }
        guard isAwaited, let given = model(device).ring?.given else { return }
        let end = ContinuousClock.now + .seconds(30)
        while ring[.replyTail] != given {
            // The flag may be raised now: who raises it looks at what came before.
            try demand(ContinuousClock.now < end, "ring: a vCPU waits, and neither looks nor asked for RING_ENTER")
            usleep(50)
        }
        try syncRing(device)
    }

    /// Replies to everything, as often as said.
    func serveRing(_ device: FuzzedDevice, reversed: Bool, rounds: Int) throws {
        guard let ring = device.ring else { return }
        for round in 0..<rounds {
            try enterRing(device)
            ring[.requestTail] = model(device).ring?.seen ?? 0
            let pieces = reversed ? model(device).order.reversed() : model(device).order
            if pieces.isEmpty { break }
            put(pieces.prefix(model(device).ring?.room ?? 0).map { reply(device, $0) }, device, ring)
            if round % 2 == 0 { try notify(device) }
            try harvest()
        }
    }
}
