// SPDX-License-Identifier: Apache-2.0
//
// What the kernel may do: told of everything that the driver does and sees, and complains at what cannot be.

import CKVMUser
import GuestPrograms

/// Guests and devices as they have to be.
///
/// The guest runs while the driver acts, so of most things only this is known: they happened between the moment at
/// which they were begun and the moment at which they were seen. The model allows what can be explained by that, and
/// nothing else.
final class Model {
    /// Counts what the driver does, and its looks at the guest.
    private(set) var now: Moment = 0
    /// What happened last.
    private(set) var trail: [String] = []
    let devices: [DeviceModel]
    private(set) var vcpus: [VCPU]

    /// A vCPU: its accesses in order.
    struct VCPU {
        /// All pieces, in order.
        var pieces: [Piece] = []
        /// Which of them are those of each access.
        var accesses: [Range<Int>] = []
        /// How many accesses are over.
        var done = 0
        /// The first piece that has not been seen at the VMM, or been passed by one that was.
        var exitCursor = 0
    }

    init(devices: Int, vcpus: Int, depth: Int) {
        self.devices = (0..<devices).map { DeviceModel($0, depth: depth, vcpus: vcpus) }
        self.vcpus = Array(repeating: VCPU(), count: vcpus)
    }

    /// Something is about to happen.
    func tick() {
        now += 1
    }

    /// Keeps what happened, for who has to explain a discrepancy.
    func note(_ line: String) {
        trail.append("\(now) \(line)")
        if trail.count > 120 { trail.removeFirst(60) }
    }

    var isIdle: Bool { vcpus.allSatisfy { $0.done == $0.accesses.count } }

    // MARK: The guest

    /// A vCPU was told to make an access to a device's area.
    func issued(_ access: GuestAccess, on vcpu: Int, to device: Int) {
        let start = vcpus[vcpu].pieces.count
        for fragment in access.fragments {
            vcpus[vcpu].pieces.append(
                Piece(fragment, of: vcpus[vcpu].accesses.count, on: vcpu, device: device, issued: now))
        }
        vcpus[vcpu].accesses.append(start..<vcpus[vcpu].pieces.count)
    }

    private func pieces(_ piece: Piece) -> ArraySlice<Piece> {
        vcpus[piece.vcpu].pieces[vcpus[piece.vcpu].accesses[piece.access]]
    }

    /// Whether the devices had to answer all of the access, not the VMM.
    ///
    /// Of an access of 16 bytes KVM leaves the second half to the VMM as well if nobody answers the first.
    private func mustReachDevice(_ piece: Piece, _ last: Moment) -> Bool {
        pieces(piece).allSatisfy { devices[$0.device].answers($0.fragment, $0.issued, last) }
    }

    /// The VMM got a fragment, and gave a value for a load.
    func exited(_ fragment: GuestAccess, on vcpu: Int, given: UInt64) throws(Discrepancy) {
        // Nothing that was over at the last look; and of two that are alike the one that the device has not got.
        let over = vcpus[vcpu].done
        let first = over < vcpus[vcpu].accesses.count ? vcpus[vcpu].accesses[over].lowerBound : Int.max
        let like = vcpus[vcpu].pieces.indices.filter {
            $0 >= max(first, vcpus[vcpu].exitCursor) && vcpus[vcpu].pieces[$0].fragment == fragment
        }
        let fresh = like.first {
            vcpus[vcpu].pieces[$0].sequence == nil
                || devices[vcpus[vcpu].pieces[$0].device].isVague && vcpus[vcpu].pieces[$0].reply == nil
        }
        guard let position = fresh ?? like.first else {
            throw Discrepancy("the VMM got \(fragment) of vCPU \(vcpu), which was not told to make it")
        }
        let piece = vcpus[vcpu].pieces[position]
        let device = devices[piece.device]
        if !device.isVague {
            try demand(piece.sequence == nil, "the VMM got \(piece), which the device had got already")
            try demand(
                !mustReachDevice(piece, now), "the VMM got \(piece), though the device answers there all the time")
        }
        vcpus[vcpu].exitCursor = position + 1
        piece.given = given
        note("at the VMM: \(piece), given \(hex(given))")
    }

    /// Accesses of a vCPU are over; `value` gives what those that are loads have loaded.
    func completed(
        _ vcpu: Int, upTo count: Int, _ value: (Int) throws -> UInt128
    ) throws {
        while vcpus[vcpu].done < count {
            let access = vcpus[vcpu].done
            try demand(access < vcpus[vcpu].accesses.count, "vCPU \(vcpu) has done more than it was told to")
            let pieces = vcpus[vcpu].pieces[vcpus[vcpu].accesses[access]]
            let whole = pieces.first?.isStore == false ? try value(access) : 0
            var shift: UInt128 = 0
            for piece in pieces {
                piece.done = now
                let loaded = UInt64(truncatingIfNeeded: whole >> shift) & piece.mask
                note("over: \(piece)" + (piece.isStore ? "" : ", \(hex(loaded))"))
                if !piece.isStore { try self.loaded(piece, loaded) }
                shift += UInt128(8 * piece.fragment.length)
            }
            vcpus[vcpu].done += 1
        }
    }

    private func loaded(_ piece: Piece, _ value: UInt64) throws(Discrepancy) {
        let device = devices[piece.device]
        let allOnes = value == piece.mask
        if allOnes && device.mayLose(piece, now) { passOnExit(piece) }
        if let given = piece.given {
            try demand(value == given & piece.mask, "\(piece) gave \(hex(value)), and the VMM \(hex(given))")
            device.counters.abandoned += 1
            return
        }
        if [piece.reply, piece.otherReply].contains(where: { $0.map { $0 & piece.mask } == value }) {
            return try answered(piece)
        }
        if device.isVague && device.replies.contains(where: { $0 & piece.mask == value }) { return }
        let shadowed = piece.reply == nil && device.shadowValues(piece, now).contains(value)
        if shadowed && !(allOnes && device.mayLose(piece, now)) {
            device.counters.shadowHits += 1
            return try answered(piece)
        }
        let why = piece.reply.map { "the reply was \(hex($0))" } ?? "nobody has replied"
        try demand(allOnes && device.mayLose(piece, now), "\(piece) gave \(hex(value)); \(why)")
        device.counters.lostLoads += 1
    }

    /// A load was lost before its request was read, and not it, but one like it went to the VMM.
    private func passOnExit(_ piece: Piece) {
        guard let given = piece.given, given & piece.mask != piece.mask else { return }
        let later = vcpus[piece.vcpu].pieces.first {
            $0.access > piece.access && $0.fragment == piece.fragment && $0.given == nil && $0.sequence == nil
        }
        guard let later else { return }
        (piece.given, later.given) = (nil, given)
    }

    /// O3, O4: a load that the device answered comes after the replies to all older stores of its vCPU.
    private func answered(_ load: Piece) throws(Discrepancy) {
        let device = devices[load.device]
        for store in device.outstanding.values
        where store.isStore && store.vcpu == load.vcpu && store.access < load.access {
            throw Discrepancy("O3: \(load) is over, and \(store) before it has no reply yet")
        }
        device.answered[load.vcpu] = load.access
    }

    // MARK: Requests

    /// The emulation process has read requests.
    ///
    /// - Parameter room: how many it had asked for.
    func read(_ requests: [kvm_user_request], from index: Int, room: Int) throws(Discrepancy) {
        let device = devices[index]
        try demand(requests.count <= room, "\(requests.count) requests came where there was room for \(room)")
        try demand(
            requests.count <= device.depth - device.outstanding.count,
            "F3: \(requests.count) requests came to who owes \(device.outstanding.count) of \(device.depth) replies")
        for request in requests { try read(request, device) }
    }

    private func read(_ request: kvm_user_request, _ device: DeviceModel) throws(Discrepancy) {
        note("device \(device.index): read \(request.summary)")
        let piece: Piece
        if let known = device.known[request.seq] {
            try redelivered(request, known, device)
            piece = known
        } else {
            try dropVanished(device)
            piece = try first(request, device)
        }
        device.outstanding[request.seq] = piece
        device.order.append(piece)
    }

    /// F1: what was read before comes again, in the old order, before everything else.
    private func redelivered(
        _ request: kvm_user_request, _ piece: Piece, _ device: DeviceModel
    ) throws(Discrepancy) {
        try demand(
            request.flags & KVM_USER_REQUEST_REDELIVERED != 0 && device.outstanding[request.seq] == nil,
            "\(piece) came twice, without REDELIVERED")
        while let next = device.redelivery.first, next !== piece {
            try demand(
                device.mayRetire(next, now), "F1: \(piece) came again before \(next), which was read before it")
            device.redelivery.removeFirst()
        }
        try demand(!device.redelivery.isEmpty, "F1: \(piece) came again, though it is not owed again")
        device.redelivery.removeFirst()
        try demand(Self.matches(request, piece), "F1: \(piece) came again as \(request.summary)")
    }

    /// A new request came: everything that was to come before it has come, or nobody waits for it.
    private func dropVanished(_ device: DeviceModel) throws(Discrepancy) {
        for piece in device.redelivery {
            try demand(device.mayRetire(piece, now), "F1: a new request came, and \(piece) did not come again")
        }
        device.redelivery = []
    }

    private static func matches(_ request: kvm_user_request, _ piece: Piece) -> Bool {
        Int(request.len) == piece.fragment.length
            && request.type == UInt16(piece.isStore ? KVM_USER_STORE : KVM_USER_LOAD)
            && request.data == piece.value && Int(request.cpu) == piece.vcpu
    }

    private func first(_ request: kvm_user_request, _ device: DeviceModel) throws(Discrepancy) -> Piece {
        try demand(request.seq != 0, "seq is 0: \(request.summary)")
        try demand(request.flags == 0, "a new request has flags: \(request.summary)")
        try demand(Int(request.cpu) < vcpus.count, "there is no such vCPU: \(request.summary)")
        let vcpu = Int(request.cpu)
        let pieces = vcpus[vcpu].pieces
        // Of loads that nobody resumed the one that is still waited for is more likely.
        var position =
            pieces.indices[device.cursors[vcpu]...].first {
                device.isVague && pieces[$0].done == nil && fits(request, pieces[$0], device)
            } ?? device.cursors[vcpu]
        while position < pieces.count, !fits(request, pieces[position], device) {
            try mayPass(pieces[position], request, device)
            position += 1
        }
        try demand(position < pieces.count, "the guest has no such access: \(request.summary)")
        let piece = pieces[position]
        try check(first: piece, device)
        device.cursors[vcpu] = position + 1
        device.latestIssue = max(device.latestIssue, piece.issued)
        device.known[request.seq] = piece
        device.ranges[request.seq] = request.range_id
        piece.sequence = request.seq
        return piece
    }

    private func fits(_ request: kvm_user_request, _ piece: Piece, _ device: DeviceModel) -> Bool {
        // A load that is over takes its request back, unless that has been read.
        guard piece.device == device.index, piece.given == nil || device.isVague, Self.matches(request, piece),
            piece.isStore || piece.done == nil || device.isVague
        else { return false }
        return device.candidates(piece, now).contains {
            $0.id == request.range_id && $0.address &+ request.offset == piece.fragment.address
        }
    }

    /// O1: an older access of the same vCPU that has not come does not come any more, and so must have a reason.
    private func mayPass(
        _ piece: Piece, _ request: kvm_user_request, _ device: DeviceModel
    ) throws(Discrepancy) {
        guard piece.device == device.index, piece.sequence == nil, piece.given == nil else { return }
        try demand(
            device.mayLose(piece, now) || device.isVague || !mustReachDevice(piece, now)
                || !device.shadowValues(piece, now).isEmpty,
            "O1: \(request.summary) came, and before it there was \(piece), which is lost or out of order")
    }

    private func check(first piece: Piece, _ device: DeviceModel) throws(Discrepancy) {
        try demand(
            piece.done.map { $0 >= device.latestIssue } ?? true,
            "O1: \(piece) was over before another access began that has come before it")
        try demand(
            !piece.isStore || device.answered[piece.vcpu] < piece.access || device.isVague,
            "O3: \(piece) comes now, and a later load of that vCPU has been answered")
        try demand(!device.mustShadow(piece, now), "O4: \(piece) came as a request, and the shadow image answers it")
    }

    /// Stores that are certain to be in the queue of a device now.
    func certainlyPending(_ index: Int) -> Piece? {
        let device = devices[index]
        for vcpu in vcpus.indices {
            for piece in vcpus[vcpu].pieces[device.cursors[vcpu]...]
            where piece.device == index && piece.isStore && piece.done != nil && piece.given == nil
                && piece.sequence == nil && !device.mayLose(piece, now) && !device.isVague
                && mustReachDevice(piece, piece.done ?? now)
            {
                return piece
            }
        }
        return device.redelivery.first { $0.isStore }
    }

    // MARK: The end

    /// All vCPUs are idle, the queue is empty, every reply is given: nothing may be missing.
    ///
    /// - Returns: how many stores the device never acknowledged.
    func settled(_ index: Int) throws(Discrepancy) -> Int {
        let device = devices[index]
        var lost = 0
        for vcpu in vcpus {
            for piece in vcpu.pieces where piece.device == index && piece.isStore && piece.given == nil {
                guard piece.reply == nil else { continue }
                lost += 1
                try demand(device.mayLose(piece, now) || device.isVague, "\(piece) is lost")
            }
        }
        return lost
    }
}

extension kvm_user_request {
    /// All that counts, for complaints.
    var summary: String {
        let what = type == UInt16(KVM_USER_STORE) ? "store \(hex(data))" : "load"
        return "request \(seq) of vCPU \(cpu), \(what) of \(len) at [\(range_id)]+\(hex(offset)), flags \(hex(flags))"
    }
}
