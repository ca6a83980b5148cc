// SPDX-License-Identifier: Apache-2.0
//
// What a hostile process writes into the ring.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import LinuxSystem
import SeededRandom
import Synchronization

extension FuzzDriver {
    // MARK: What must change nothing

    /// Writes where the kernel does not look: not what it does changes, but only what is seen of it.
    func ringScribble(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let ring = device.ring, let known = model(device).ring else { return }
        switch random.below(4) {
        case 0: scribblePadding(ring, &random)
        case 1:
            // Where replies are that were not published.
            for count in 0..<UInt32(known.room) {
                scribble(ring.reply(known.given &+ count), RingMemory.stride, &random)
            }
        case 2: try scribbleRequests(device, ring, &random)
        default: try scribbleCounts(device, ring, &random)
        }
    }

    private func scribble(_ address: UInt64, _ count: UInt64, _ random: inout SeededGenerator) {
        for place in stride(from: address, to: address + count, by: 8) { cfuzz_store(place, random.next()) }
    }

    private func scribblePadding(_ ring: RingMemory, _ random: inout SeededGenerator) {
        let header = UInt64(MemoryLayout<kvm_user_ring>.size)
        scribble(ring.place(.flags) + 4, ring.place(.requestTail) - ring.place(.flags) - 4, &random)
        scribble(ring.place(.replyHead) + 4, ring.address + header - ring.place(.replyHead) - 4, &random)
        for count in 0..<ring.entries {
            scribble(ring.request(count) + RingMemory.used, RingMemory.stride - RingMemory.used, &random)
            scribble(ring.reply(count) + RingMemory.used, RingMemory.stride - RingMemory.used, &random)
        }
    }

    /// All requests, while nobody makes any: what the kernel is owed it knows by itself.
    private func scribbleRequests(
        _ device: FuzzedDevice, _ ring: RingMemory, _ random: inout SeededGenerator
    ) throws {
        try enterRing(device)
        guard model.isIdle, model(device).ring?.waiting.isEmpty == true, model(device).outstanding.count < plan.depth
        else { return }
        try syncRing(device, exactly: true)
        for count in 0..<ring.entries { scribble(ring.request(count), RingMemory.used, &random) }
    }

    /// What only the kernel counts, while it gives and looks; then it is as it was, or as the kernel has it since.
    private func scribbleCounts(_ device: FuzzedDevice, _ ring: RingMemory, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first, let known = model(device).ring else { return }
        let words = [RingMemory.Word.requestHead, .replyTail, .refused, .flags]
        let changes = words.map { word in
            (place: ring.place(word), was: ring[word], bad: UInt32(truncatingIfNeeded: random.next()) | 0x4000_0000)
        }
        for change in changes { cfuzz_replace32(change.place, change.was, change.bad) }
        put(Array(replies(device, &random).prefix(known.room)), device, ring)
        try access(device, &random)
        usleep(UInt32(random.below(300)))
        try callEnter(number, 0, [0])
        _ = cfuzz_poll(number)
        for change in changes { cfuzz_replace32(change.place, change.bad, change.was) }
        try syncRing(device, exactly: true)
    }

    // MARK: What must do no harm

    /// More replies than there is room for, or fewer than there were: one is refused for all of them.
    func ringJump(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let ring = device.ring, !device.descriptors.isEmpty else { return }
        // What is in the ring would be left out as well, or not, and nobody could say.
        try enterRing(device)
        let far: UInt32 = random.pick([
            1, UInt32(random.below(100)), 1 << 30, UInt32(truncatingIfNeeded: random.next() >> 34),
        ])
        let count = random.oneIn(2) ? ring.entries &+ 1 &+ far : 0 &- (1 &+ far)
        model(device).ring?.jump(by: count)
        ring[.replyHead] = model(device).ring?.given ?? 0
        if random.oneIn(2) { try enterRing(device) }
    }

    /// Replies that change, with their count, while the kernel looks. Which of them it took is asked afterwards.
    func ringRace(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let ring = device.ring, let number = device.descriptors.first else { return }
        try enterRing(device)
        guard let before = model(device).ring else { return }
        let doubtful = model(device).order.map { reply(device, $0) }
        let words = hostileWords(device, ring, before.given, doubtful, &random)
        try Scribbler.run(words) { () throws(Discrepancy) in
            for _ in 0..<(4 + random.below(12)) {
                try callEnter(number, 0, [0])
                usleep(UInt32(random.below(200)))
                _ = cfuzz_poll(number)
            }
        }
        try endRace(device, ring, number, before)
        for reply in doubtful { try probe(reply, device, number) }
        try syncRing(device, exactly: true)
    }

    /// Puts right replies, and says with what they change places.
    private func hostileWords(
        _ device: FuzzedDevice, _ ring: RingMemory, _ given: UInt32, _ replies: [kvm_user_request],
        _ random: inout SeededGenerator
    ) -> [Scribbler.Word] {
        let count = UInt32(replies.count)
        let heads = [given &+ count, given &+ 1, given &- 1, given &+ 77 &+ ring.entries, given, given &+ 1 << 31]
        var words = [Scribbler.Word(address: ring.place(.replyHead), values: heads)]
        let tails = (0..<4).map { _ in UInt32(truncatingIfNeeded: random.next()) }
        words.append(Scribbler.Word(address: ring.place(.requestTail), values: tails))
        for (position, reply) in replies.enumerated() {
            var reply = reply
            if random.oneIn(4) { reply.flags = UInt32(KVM_USER_REPLY_CUMULATIVE) }
            let place = ring.reply(given &+ UInt32(position))
            arena.put(reply, at: place)
            if random.oneIn(2) { words.append(hostileWord(reply, device, place, &random)) }
        }
        return words
    }

    private func hostileWord(
        _ reply: kvm_user_request, _ device: FuzzedDevice, _ place: UInt64, _ random: inout SeededGenerator
    ) -> Scribbler.Word {
        let word = { (path: PartialKeyPath<kvm_user_request>, good: UInt32, bad: UInt32) -> Scribbler.Word in
            let offset = UInt64(MemoryLayout<kvm_user_request>.offset(of: path) ?? 0)
            return Scribbler.Word(address: place + offset, values: [good, bad])
        }
        switch random.below(5) {
        case 0: return word(\.seq, UInt32(truncatingIfNeeded: reply.seq), 0)
        case 1: return word(\.range_id, reply.range_id, .max)
        case 2: return word(\.flags, reply.flags, 1 << 31)
        case 3:
            let good = UInt32(reply.type) | UInt32(reply.len) << 16
            return word(\.type, good, good ^ 1)
        default:
            let good = UInt32(truncatingIfNeeded: reply.data)
            let other = reply.data ^ 0x0101_0101
            model(device).known[reply.seq]?.otherReply = other
            model(device).replies.insert(other)
            return word(\.data, good, UInt32(truncatingIfNeeded: other))
        }
    }

    /// Nothing changes any more: the kernel and the model go on from what is there.
    private func endRace(
        _ device: FuzzedDevice, _ ring: RingMemory, _ number: CInt, _ before: RingModel
    ) throws(Discrepancy) {
        try callEnter(number, 0, [0])
        let (head, tail) = (ring[.replyHead], ring[.replyTail])
        try demand(head == tail, "ring: reply_tail is \(tail) after RING_ENTER, and reply_head \(head)")
        model(device).counters.refused += Int(ring[.refused] &- before.refused)
        model(device).ring?.resume(at: tail, refused: ring[.refused])
        ring[.requestTail] = model(device).ring?.seen ?? 0
    }

    private func probe(_ reply: kvm_user_request, _ device: FuzzedDevice, _ number: CInt) throws(Discrepancy) {
        arena.put(reply, at: arena.start)
        let result = cfuzz_write(number, arena.start, Self.requestSize)
        if result == -Int64(EINVAL) { return model.wasTaken(reply, from: device.index) }
        try model.wrote([reply], whole: 1, to: device.index, result > 0 ? 1 : result)
    }
}

/// A thread that writes words while something else is done.
private enum Scribbler {
    struct Word: Sendable {
        let address: UInt64
        let values: [UInt32]
    }

    private final class Flag: Sendable {
        let isSet = Atomic(false)
    }

    static func run(_ words: [Word], while body: () throws(Discrepancy) -> Void) throws {
        let stopped = Flag()
        let thread = try NativeThread {
            var round = 0
            while !stopped.isSet.load(ordering: .relaxed) {
                for word in words { cfuzz_store32(word.address, word.values[round % word.values.count]) }
                round += 1
            }
        }
        let result = Result(catching: body)
        stopped.isSet.store(true, ordering: .relaxed)
        thread.join()
        try result.get()
    }
}
