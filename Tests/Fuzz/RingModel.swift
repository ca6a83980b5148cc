// SPDX-License-Identifier: Apache-2.0
//
// What is known of a ring, and what the kernel has to say of what is in it.

import CKVMUser
import GuestPrograms

/// A device's ring, in the model.
struct RingModel {
    /// What the process has published.
    enum Given {
        case reply(kvm_user_request)
        /// So many at once as there is no room for: none of it counts.
        case jump(UInt32)
    }

    let entries: UInt32
    /// Requests that the model knows.
    var seen: UInt32 = 0
    /// Replies that were published.
    private(set) var given: UInt32 = 0
    /// Replies that the kernel has looked at.
    private(set) var looked: UInt32 = 0
    /// What it has not looked at, oldest first.
    private(set) var waiting: [Given] = []
    /// Replies that it has certainly refused.
    var refused: UInt32 = 0
    /// Further ones that it may have refused, since nobody may have waited for them.
    var doubtful: UInt32 = 0

    init(entries: UInt32) {
        self.entries = entries
    }

    /// For how many more replies there is room.
    var room: Int { waiting.allSatisfy(\.isReply) ? Int(entries) - waiting.count : 0 }

    mutating func give(_ replies: [kvm_user_request]) {
        waiting += replies.map { .reply($0) }
        given &+= UInt32(replies.count)
    }

    /// The count of replies was changed by more than there is room for.
    mutating func jump(by count: UInt32) {
        waiting.append(.jump(count))
        given &+= count
    }

    /// The kernel looked at the oldest.
    mutating func look() -> Given? {
        guard !waiting.isEmpty else { return nil }
        let first = waiting.removeFirst()
        if case .jump(let count) = first { looked &+= count } else { looked &+= 1 }
        return first
    }

    /// Nobody knows what the kernel looked at, and it is over.
    mutating func resume(at count: UInt32, refused: UInt32) {
        (given, looked, waiting) = (count, count, [])
        (self.refused, doubtful) = (refused, 0)
    }
}

extension RingModel.Given {
    var isReply: Bool { if case .reply = self { true } else { false } }
}

/// What the kernel has done with replies in a ring.
extension Model {
    /// The kernel's counts say this now.
    func looked(_ index: Int, upTo tail: UInt32, refused: UInt32) throws(Discrepancy) {
        let device = devices[index]
        guard let ring = device.ring else { return }
        try demand(
            tail &- ring.looked <= ring.given &- ring.looked,
            "ring: reply_tail is \(tail), after \(ring.looked), and reply_head \(ring.given)")
        while device.ring?.looked != tail, let next = device.ring?.look() { judge(next, device) }
        try demand(
            device.ring?.looked == tail, "ring: reply_tail is \(tail), in the middle of what is to be left out")
        try count(refused, device)
    }

    private func judge(_ given: RingModel.Given, _ device: DeviceModel) {
        guard case .reply(let reply) = given else {
            device.ring?.refused &+= 1
            device.counters.invalid += 1
            return note("device \(device.index): the kernel has left out replies")
        }
        let verdict = verdict(reply, device.index)
        note("device \(device.index): looked at the reply \(hex(reply.data)) to \(reply.seq), \(verdict)")
        switch verdict {
        case .invalid:
            device.ring?.refused &+= 1
            device.counters.invalid += 1
        case .stale:
            device.ring?.refused &+= 1
            giveUp(reply, device)
        case .accepted, .acceptedOrStale:
            if verdict != .accepted { device.ring?.doubtful += 1 }
            if reply.flags & KVM_USER_REPLY_CUMULATIVE != 0 { acknowledgeStores(before: reply.seq, device) }
            complete(reply.seq, with: reply.data, device)
        }
    }

    /// What it has refused is known once it has looked at everything.
    private func count(_ refused: UInt32, _ device: DeviceModel) throws(Discrepancy) {
        guard let ring = device.ring else { return }
        let more = refused &- ring.refused
        try demand(
            more <= ring.doubtful + UInt32(ring.waiting.count),
            "ring: \(refused) replies were refused, and not \(ring.refused) to \(ring.refused &+ ring.doubtful)")
        guard ring.waiting.isEmpty else { return }
        device.counters.late += Int(more)
        device.ring?.refused = refused
        device.ring?.doubtful = 0
    }

    /// A reply that was in the ring while it was changed is refused as one to no request: it had been taken.
    func wasTaken(_ reply: kvm_user_request, from index: Int) {
        note("device \(index): the reply to \(reply.seq) had been taken")
        devices[index].counters.invalid += 1
        complete(reply.seq, with: reply.data, devices[index])
    }
}
