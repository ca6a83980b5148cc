// SPDX-License-Identifier: Apache-2.0
//
// Operations on the emulation descriptor: reads, replies, good and bad.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import SeededRandom

extension FuzzDriver {
    static let requestSize = MemoryLayout<kvm_user_request>.stride

    /// Whether a read must give something now.
    private func isCertainlyReadable(_ device: FuzzedDevice) -> Bool {
        device.ring == nil && model(device).outstanding.count < plan.depth
            && model.certainlyPending(device.index) != nil
    }

    /// Whether a read, or an exchange that waits, is sure to return.
    private func mayRead(_ device: FuzzedDevice) -> Bool {
        !device.descriptors.isEmpty && (device.isNonBlocking || isCertainlyReadable(device))
    }

    // MARK: Reading

    func read(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        let room = 1 + random.below(20)
        let count = room * Self.requestSize + random.below(Self.requestSize)
        if device.ring != nil, let number = device.descriptors.first {
            return try expect(cfuzz_read(number, arena.start, count), [-EBUSY], "read beside a ring")
        }
        guard mayRead(device) else { return }
        let number = random.pick(device.descriptors)
        switch random.below(8) {
        case 0:
            let small = random.below(Self.requestSize)
            try expect(cfuzz_read(number, arena.start, small), [-EINVAL], "read of \(small) bytes")
        case 1:
            // The tail of the buffer faults, or all of it.
            let good = random.below(count + 1)
            let address = arena.last(good)
            try took(device, cfuzz_read(number, address, count), good / Self.requestSize, address, room)
        case 2:
            let first = random.below(count)
            try took(device, cfuzz_readv(number, arena.start, first, count), room, arena.start, room)
        default:
            try took(device, cfuzz_read(number, arena.start, count), room, arena.start, room)
        }
    }

    /// Judges what a read gave.
    ///
    /// - Parameters:
    ///   - writable: for how many requests there was memory.
    ///   - room: how many were asked for.
    private func took(
        _ device: FuzzedDevice, _ result: Int64, _ writable: Int, _ address: UInt64, _ room: Int
    ) throws {
        let isReadable = isCertainlyReadable(device)
        guard result > 0 else {
            if result == -Int64(EFAULT) { return try demand(writable == 0, "read gave EFAULT, and there was memory") }
            try demand(
                result == -Int64(EAGAIN) && device.isNonBlocking && !isReadable,
                "read gave \(result)" + (isReadable ? ", and there are requests" : ""))
            return
        }
        try demand(
            result % Int64(Self.requestSize) == 0 && result <= writable * Self.requestSize, "read gave \(result) bytes")
        try took(device, arena.requests(Int(result) / Self.requestSize, at: address), room)
    }

    func took(_ device: FuzzedDevice, _ requests: [kvm_user_request], _ room: Int) throws {
        try model.read(tamper(requests), from: device.index, room: room)
    }

    /// Hides something from the model, once.
    private func tamper(_ requests: [kvm_user_request]) -> [kvm_user_request] {
        var seen = requests
        let stores = seen.indices.filter { seen[$0].type == UInt16(KVM_USER_STORE) }
        guard let first = stores.first else { return requests }
        switch tampering {
        case .lostStore:
            seen.remove(at: first)
        case .doubledStore:
            seen.insert(seen[first], at: first)
        case .swappedOrder:
            guard let second = stores.last, second != first, seen[first].cpu == seen[second].cpu,
                seen[first].offset != seen[second].offset
            else { return requests }
            seen.swapAt(first, second)
        default: return requests
        }
        (tampering, hasTampered) = (nil, true)
        return seen
    }

    func poll(_ device: FuzzedDevice) throws {
        guard let number = device.descriptors.first else { return }
        if let ring = device.ring { return try pollRing(device, ring, number) }
        let isReadable = isCertainlyReadable(device)
        let events = cfuzz_poll(number)
        try demand(events & ~Int64(POLLIN) == Int64(POLLOUT), "poll says \(hex(events))")
        if isReadable { try demand(events & Int64(POLLIN) != 0, "poll says nothing of requests that there are") }
        if model(device).outstanding.count >= plan.depth {
            try demand(events & Int64(POLLIN) == 0, "F3: poll says POLLIN to who owes all replies")
        }
    }

    func setNonBlocking(_ device: FuzzedDevice, _ nonBlocking: Bool) throws {
        guard let number = device.descriptors.first else { return }
        try expect(cfuzz_set_nonblocking(number, nonBlocking ? 1 : 0), [0], "F_SETFL")
        device.isNonBlocking = nonBlocking
    }

    // MARK: Replying

    /// What a load gets: it depends on the request, and is all-ones in no byte.
    private func answer(_ sequence: UInt64) -> UInt64 {
        scrambled(sequence ^ plan.seed << 32) & 0x7f7f_7f7f_7f7f_7f7f
    }

    func reply(_ device: FuzzedDevice, _ piece: Piece) -> kvm_user_request {
        let sequence = piece.sequence ?? 0
        return kvm_user_request(
            seq: sequence, offset: 0, data: answer(sequence), range_id: model(device).ranges[sequence] ?? 0, cpu: 0,
            type: UInt16(piece.isStore ? KVM_USER_STORE : KVM_USER_LOAD), len: UInt16(piece.fragment.length), flags: 0)
    }

    /// A reply that is not right.
    private func spoil(
        _ reply: kvm_user_request, _ device: FuzzedDevice, _ random: inout SeededGenerator
    ) -> kvm_user_request {
        var reply = reply
        switch random.below(7) {
        case 0: reply.seq = random.next()
        case 1: reply.seq = 0
        case 2: reply.len = UInt16(random.below(18))
        case 3: reply.type ^= 1 << UInt16(random.below(3))
        case 4: reply.range_id ^= 1 << UInt32(random.below(32))
        case 5: reply.flags = 1 << UInt32(random.below(32))
        default:
            // None that is owed once more: it may be in the ring again by now.
            let owed = Set(model(device).redelivery.compactMap(\.sequence))
            reply.seq = model(device).known.keys.sorted().first { !owed.contains($0) } ?? 77_777_777
        }
        return reply
    }

    /// Some replies: to requests in their order or in none, now and then wrong or twice.
    func replies(_ device: FuzzedDevice, _ random: inout SeededGenerator) -> [kvm_user_request] {
        var pieces = model(device).order
        if random.oneIn(2) { pieces.shuffle(using: &random) }
        var replies = pieces.prefix(random.below(24)).map { reply(device, $0) }
        for position in replies.indices where random.oneIn(2) {
            (replies[position].offset, replies[position].cpu) = (random.next(), UInt32(random.below(99)))
            if random.oneIn(3) { replies[position].flags = KVM_USER_REPLY_CUMULATIVE }
        }
        if replies.isEmpty || random.oneIn(4) {
            let model = replies.randomElement(using: &random) ?? kvm_user_request()
            let bad = random.oneIn(4) ? model : spoil(model, device, &random)
            replies.insert(bad, at: random.below(replies.count + 1))
        }
        return replies
    }

    /// As they go to the kernel: not always as the model is told.
    private func tamper(replies: [kvm_user_request]) -> [kvm_user_request] {
        let type = tampering == .wrongValue ? KVM_USER_LOAD : KVM_USER_STORE
        guard tampering == .wrongValue || tampering == .lostReply,
            let position = replies.firstIndex(where: { $0.type == UInt16(type) })
        else { return replies }
        var sent = replies
        if tampering == .wrongValue { sent[position].data ^= 1 } else { sent[position] = kvm_user_request() }
        (tampering, hasTampered) = (nil, true)
        return sent
    }

    func write(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.descriptors.isEmpty else { return }
        // Else nobody could say which of two like replies is looked at first.
        try enterRing(device)
        let number = random.pick(device.descriptors)
        let replies = replies(device, &random)
        let count = replies.count * Self.requestSize
        switch random.below(8) {
        case 0:
            let odd = count + 1 + random.below(Self.requestSize - 1)
            try expect(cfuzz_write(number, arena.start, odd), [-EINVAL], "write of \(odd) bytes")
        case 1:
            let whole = random.below(replies.count + 1)
            // So many replies can be read, and perhaps a part of the next.
            let good = min(whole * Self.requestSize + random.below(Self.requestSize), count)
            arena.put(Array(replies.prefix(whole)), at: arena.last(good))
            let result = cfuzz_write(number, arena.last(good), count)
            try wrote(device, replies, good / Self.requestSize, result)
        case 2:
            arena.put(replies, at: arena.start)
            let first = random.below(count)
            try wrote(device, replies, replies.count, cfuzz_writev(number, arena.start, first, count))
        default:
            arena.put(replies, at: arena.start)
            try wrote(device, replies, replies.count, cfuzz_write(number, arena.start, count))
        }
    }

    private func wrote(
        _ device: FuzzedDevice, _ replies: [kvm_user_request], _ whole: Int, _ result: Int64
    ) throws {
        try demand(result <= 0 || result % Int64(Self.requestSize) == 0, "write took \(result) bytes")
        let taken = result > 0 ? result / Int64(Self.requestSize) : result
        try demand(taken != 0 || replies.isEmpty, "write took nothing")
        try model.wrote(replies, whole: whole, to: device.index, taken)
    }

    /// Takes everything and replies to everything.
    ///
    /// - Parameters:
    ///   - reversed: whether the youngest request is replied to first.
    ///   - rounds: how often, at most, for new ones may come with every reply.
    func serve(_ device: FuzzedDevice, reversed: Bool, rounds: Int) throws {
        guard let number = device.descriptors.first else { return }
        if device.ring != nil { return try serveRing(device, reversed: reversed, rounds: rounds) }
        let was = device.isNonBlocking
        try setNonBlocking(device, true)
        defer { device.isNonBlocking = was }
        for _ in 0..<rounds {
            let room = 32
            let result = cfuzz_read(number, arena.start, room * Self.requestSize)
            try took(device, result, room, arena.start, room)
            guard !model(device).outstanding.isEmpty else { break }
            let pieces = reversed ? model(device).order.reversed() : model(device).order
            for piece in pieces {
                let reply = reply(device, piece)
                arena.put(tamper(replies: [reply]), at: arena.start)
                try wrote(device, [reply], 1, cfuzz_write(number, arena.start, Self.requestSize))
            }
            try harvest()
        }
        try expect(cfuzz_set_nonblocking(number, was ? 1 : 0), [0], "F_SETFL")
    }

    // MARK: Both at once

    func exchange(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.descriptors.isEmpty else { return }
        let number = random.pick(device.descriptors)
        var raw = kvm_dev_user_exchange()
        guard device.has(CKVMUSER_FEATURE_EXCHANGE) else {
            arena.put(raw, at: arena.start)
            return try expect(cfuzz_ioctl(number, UInt64(CKVMUSER_EXCHANGE), arena.start), [-ENOTTY], "EXCHANGE")
        }
        if random.oneIn(8) {
            (raw.flags, raw.pad) = random.oneIn(2) ? (1 << UInt32(1 + random.below(31)), 0) : (0, 9)
            arena.put(raw, at: arena.start)
            return try expect(cfuzz_ioctl(number, UInt64(CKVMUSER_EXCHANGE), arena.start), [-EINVAL], "EXCHANGE \(raw)")
        }
        try enterRing(device)
        let replies = random.oneIn(4) ? [] : replies(device, &random)
        let room = random.below(20)
        raw.replies = arena.start + 64
        raw.requests = random.oneIn(2) ? raw.replies : arena.start + 0x2000
        (raw.nr_replies, raw.nr_requests) = (UInt32(replies.count), UInt32(room))
        if random.oneIn(2) && (device.isNonBlocking || device.ring != nil || isCertainlyReadable(device)) {
            raw.flags = UInt32(KVM_USER_EXCHANGE_WAIT)
        }
        arena.put(replies, at: raw.replies)
        arena.put(raw, at: arena.start)
        try exchanged(device, raw, replies, cfuzz_ioctl(number, UInt64(CKVMUSER_EXCHANGE), arena.start))
    }

    private func exchanged(
        _ device: FuzzedDevice, _ raw: kvm_dev_user_exchange, _ replies: [kvm_user_request], _ result: Int64
    ) throws {
        if device.ring != nil && replies.isEmpty && raw.nr_requests > 0 {
            return try expect(result, [-EBUSY], "EXCHANGE beside a ring")
        }
        guard result == 0 else {
            return try model.wrote(replies, whole: replies.count, to: device.index, result)
        }
        let out = arena.get(raw, at: arena.start)
        try demand(out.nr_replies <= raw.nr_replies && out.nr_requests <= raw.nr_requests, "EXCHANGE says \(out)")
        try demand(out.nr_replies > 0 || replies.isEmpty, "EXCHANGE took no reply and says nothing of it")
        try model.wrote(replies, whole: replies.count, to: device.index, Int64(out.nr_replies))
        try demand(
            out.nr_requests == 0 || out.nr_replies == raw.nr_replies, "EXCHANGE gave requests after a bad reply")
        if device.ring != nil { return try demand(out.nr_requests == 0, "EXCHANGE gave requests beside a ring") }
        if out.nr_replies == raw.nr_replies && raw.nr_requests > 0 && isCertainlyReadable(device) {
            try demand(out.nr_requests > 0, "EXCHANGE gave nothing, and there are requests")
        }
        try took(device, arena.requests(Int(out.nr_requests), at: raw.requests), Int(raw.nr_requests))
    }

    /// Sets when stores wake a thread. Nothing that the model knows changes by that.
    func coalesce(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first, device.has(CKVMUSER_FEATURE_COALESCE) else { return }
        var raw = kvm_dev_user_coalesce()
        (raw.stores, raw.ns) = (UInt32(random.below(6)), UInt64(random.below(3_000_000)))
        if random.oneIn(3) { (raw.stores, raw.ns) = (0, 0) }
        if random.oneIn(8) { raw.pad = 1 << UInt32(random.below(32)) }
        if random.oneIn(8) { raw.ns = random.next() }
        let isGood = (raw.stores == 0) == (raw.ns == 0) && raw.ns <= CKVMUSER_MAX_COALESCE_NS && raw.pad == 0
        arena.put(raw, at: arena.start)
        try expect(
            cfuzz_ioctl(number, UInt64(CKVMUSER_COALESCE), arena.start), [isGood ? 0 : -EINVAL], "COALESCE \(raw)")
    }

    // MARK: What cannot be

    func badEmulationCall(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first else { return }
        let command = random.pick([CKVMUSER_PA_RANGE, CKVMUSER_TIMEOUT, CKVMUSER_EMULATION_FD, 0xaef7, 0xaeff, 0x5401])
        try expect(cfuzz_ioctl(number, UInt64(command), arena.start), [-ENOTTY], "command \(hex(command))")
        guard device.features != 0 else { return }
        let known = [
            (CKVMUSER_FEATURE_EXCHANGE, CKVMUSER_EXCHANGE), (CKVMUSER_FEATURE_SHADOW, CKVMUSER_SHADOW_SIZE),
            (CKVMUSER_FEATURE_SHADOW, CKVMUSER_SHADOW_CTRL), (CKVMUSER_FEATURE_COALESCE, CKVMUSER_COALESCE),
            (CKVMUSER_FEATURE_RING, CKVMUSER_RING), (CKVMUSER_FEATURE_RING, CKVMUSER_RING_ENTER),
        ].filter { device.has($0.0) }.map(\.1)
        guard !known.isEmpty else { return }
        let address = random.pick([0, arena.end, arena.end - 4, UInt64.max - 100, 1 << 63])
        let bad = random.pick(known)
        try expect(cfuzz_ioctl(number, UInt64(bad), address), [-EFAULT], "\(hex(bad)) at \(hex(address))")
    }
}
