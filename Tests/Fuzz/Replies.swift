// SPDX-License-Identifier: Apache-2.0
//
// What the kernel has to say of replies.

import CKVMUser
import Glibc
import GuestPrograms

/// What the emulation process may write.
extension Model {
    /// What a reply can get.
    enum Verdict: Equatable {
        case accepted
        case invalid
        /// Accepted, or ESTALE: the vCPU may have given up.
        case acceptedOrStale
        case stale
    }

    /// What one reply must get.
    func verdict(_ reply: kvm_user_request, _ index: Int) -> Verdict {
        let device = devices[index]
        guard let piece = device.outstanding[reply.seq], Int(reply.len) == piece.fragment.length,
            reply.type == UInt16(piece.isStore ? KVM_USER_STORE : KVM_USER_LOAD),
            device.ranges[reply.seq] == reply.range_id, reply.flags & ~CKVMUSER_REPLY_FLAGS == 0
        else { return .invalid }
        guard device.mayRetire(piece, now) else { return .accepted }
        return piece.done != nil && !device.isVague ? .stale : .acceptedOrStale
    }

    /// The kernel has answered a write, or the writing part of an exchange.
    ///
    /// - Parameters:
    ///   - whole: how many replies it could read from memory.
    ///   - result: how many it took, or -errno.
    func wrote(_ replies: [kvm_user_request], whole: Int, to index: Int, _ result: Int64) throws(Discrepancy) {
        let device = devices[index]
        let taken = Int(max(result, 0))
        try demand(taken <= whole, "\(taken) replies were taken of \(whole)")
        for reply in replies.prefix(taken) {
            note("device \(index): took the reply \(hex(reply.data)) to \(reply.seq)")
            let verdict = verdict(reply, index)
            try demand(
                verdict == .accepted || verdict == .acceptedOrStale,
                "the kernel took \(reply.summary), which is \(verdict)")
            if reply.flags & KVM_USER_REPLY_CUMULATIVE != 0 { acknowledgeStores(before: reply.seq, device) }
            complete(reply.seq, with: reply.data, device)
        }
        guard taken < replies.count else { return }
        try refused(replies[taken], readable: taken < whole, device, taken > 0 ? nil : result)
    }

    /// A request has its reply.
    func complete(_ sequence: UInt64, with data: UInt64, _ device: DeviceModel) {
        guard let piece = device.outstanding.removeValue(forKey: sequence) else { return }
        device.replies.insert(data)
        piece.reply = piece.isStore ? 0 : data
        device.order.removeAll { $0 === piece }
    }

    /// A cumulative reply was taken: every store that was read before its request has one too.
    func acknowledgeStores(before sequence: UInt64, _ device: DeviceModel) {
        for piece in device.order.prefix(while: { $0.sequence != sequence }) where piece.isStore {
            if let older = piece.sequence { complete(older, with: 0, device) }
        }
    }

    /// The kernel stopped at this reply; `error` is what it said, if that was the first.
    private func refused(
        _ reply: kvm_user_request, readable: Bool, _ device: DeviceModel, _ error: Int64?
    ) throws(Discrepancy) {
        guard readable else {
            return try demand(error ?? -Int64(EFAULT) == -Int64(EFAULT), "unreadable replies gave \(error ?? 0)")
        }
        note("device \(device.index): refused the reply to \(reply.seq), \(error ?? 0)")
        let verdict = verdict(reply, device.index)
        try demand(verdict != .accepted, "the kernel refused \(reply.summary), which is right (\(error ?? 0))")
        guard let error else { return }
        let expected = Int64(verdict == .invalid ? -EINVAL : -ESTALE)
        try demand(error == expected, "\(reply.summary) gave \(error), and it is \(verdict)")
        if verdict == .invalid {
            device.counters.invalid += 1
        } else {
            giveUp(reply, device)
        }
    }

    /// ESTALE: the reply counts as given, and for what it acknowledges beside its request.
    func giveUp(_ reply: kvm_user_request, _ device: DeviceModel) {
        device.counters.late += 1
        if reply.flags & KVM_USER_REPLY_CUMULATIVE != 0 { acknowledgeStores(before: reply.seq, device) }
        let piece = device.outstanding.removeValue(forKey: reply.seq)
        device.order.removeAll { $0 === piece }
    }
}
