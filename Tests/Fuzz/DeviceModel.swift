// SPDX-License-Identifier: Apache-2.0
//
// What a device is known to be: where it answers, who holds it, what is with the emulation process.

import CKVMUser
import GuestPrograms

/// One device, in the model.
final class DeviceModel {
    let index: Int
    let depth: Int

    /// A range in one of its places.
    struct Placement {
        let id: UInt32
        let bus: GuestAccess.Bus
        let address: UInt64
        let length: UInt64
        var span: Span

        func holds(_ fragment: GuestAccess) -> Bool {
            bus == fragment.bus && address <= fragment.address
                && fragment.address + UInt64(fragment.length) <= address + length
        }

        func overlaps(_ bus: GuestAccess.Bus, _ address: UInt64, _ length: UInt64) -> Bool {
            self.bus == bus && self.address < address + length && address < self.address + self.length
        }
    }

    private(set) var placements: [Placement] = []
    private(set) var isOpen = false
    private(set) var policy = UInt32(KVM_USER_ON_CLOSE_ABORT)
    /// When an access could be given up: loads get all-ones then, stores are dropped.
    private(set) var losses = Spans()
    /// When accesses went to the VMM by policy.
    private(set) var exits = Spans()
    /// Whether a vCPU's thread may run on without a parked access.
    var mayAbandon = false
    /// Whether a signal may park an access.
    var mayPark = false

    /// Requests that were read and not replied to, by their numbers.
    var outstanding: [UInt64: Piece] = [:]
    /// The same in the order in which they were read first.
    var order: [Piece] = []
    /// Requests that are owed once more, in order.
    var redelivery: [Piece] = []
    /// Every request that was ever read.
    var known: [UInt64: Piece] = [:]
    /// The range of each.
    var ranges: [UInt64: UInt32] = [:]
    /// The values of replies, where nobody can say which of two like loads got them.
    var replies: Set<UInt64> = []
    /// For each vCPU, the position after the last of its pieces that was delivered.
    var cursors: [Int]
    /// The latest moment at which an access was issued that has been delivered.
    var latestIssue: Moment = -1
    /// For each vCPU, its last access that is a load with a real value, and over.
    var answered: [Int]
    var shadow = ShadowModel()
    /// While requests go there.
    var ring: RingModel? { didSet { hadRing = hadRing || ring != nil } }
    private var hadRing = false
    /// What the counters should say.
    var counters = Counters()

    struct Counters {
        var invalid = 0
        var late = 0
        /// Invalid or late.
        var refused = 0
        var shadowHits = 0
        var lostLoads = 0
        var abandoned = 0
        var redelivered = 0
    }

    init(_ index: Int, depth: Int, vcpus: Int) {
        self.index = index
        self.depth = depth
        cursors = Array(repeating: 0, count: vcpus)
        answered = Array(repeating: -1, count: vcpus)
        losses.set(true, at: 0)
    }

    // MARK: Ranges

    var current: [Placement] { placements.filter { $0.span.to == nil } }

    func current(_ id: UInt32) -> Placement? { current.first { $0.id == id } }

    /// A range has moved to a place, or was removed where there is none.
    func place(_ id: UInt32, at place: (bus: GuestAccess.Bus, address: UInt64, length: UInt64)?, _ moment: Moment) {
        for position in placements.indices where placements[position].id == id && placements[position].span.to == nil {
            placements[position].span.to = moment
        }
        guard let place else { return }
        placements.append(
            Placement(
                id: id, bus: place.bus, address: place.address, length: place.length, span: Span(from: moment)))
    }

    /// Where a piece may have found the device until now.
    func candidates(_ piece: Piece, _ now: Moment) -> [Placement] {
        placements.filter { $0.holds(piece.fragment) && $0.span.overlaps(piece.issued, now) }
    }

    /// Whether the device answered there all the time from `first` to `last`.
    func answers(_ fragment: GuestAccess, _ first: Moment, _ last: Moment) -> Bool {
        guard !exits.overlap(first, last) else { return false }
        var covered = first
        // In order of time, for a move ends one placement where it begins the other.
        for placement in placements where placement.holds(fragment) {
            let begins = covered == first ? placement.span.from < covered : placement.span.from <= covered
            guard begins else { continue }
            guard let end = placement.span.to else { return true }
            covered = max(covered, end)
        }
        return covered > last
    }

    // MARK: Who holds it

    func opened(at moment: Moment) {
        isOpen = true
        note(moment)
    }

    /// The last descriptor was closed.
    func closed(at moment: Moment) {
        isOpen = false
        if policy == UInt32(KVM_USER_ON_CLOSE_HOLD) {
            // A load that is over was given up.
            let owed = order.filter { $0.isStore || $0.done == nil || isVague }
            counters.redelivered += owed.count
            redelivery = owed + redelivery
        } else {
            abort(at: moment)
        }
        outstanding = [:]
        order = []
        ring = nil
        shadow.setMap([], at: moment)
        note(moment)
    }

    func setPolicy(_ policy: UInt32, at moment: Moment) {
        let held = !isOpen && self.policy == UInt32(KVM_USER_ON_CLOSE_HOLD)
        self.policy = policy
        if held && policy != UInt32(KVM_USER_ON_CLOSE_HOLD) { abort(at: moment) }
        note(moment)
    }

    /// From now on waits may end too early.
    func limitWaits(at moment: Moment) {
        limited = true
        note(moment)
    }

    private(set) var limited = false

    /// Whether nobody can say which of two like loads a request is of: vCPUs run on from some, or a ring keeps those that
    /// were given up beside those that were never queued.
    var isVague: Bool { mayAbandon || limited && hadRing }

    private func abort(at moment: Moment) {
        for piece in order + redelivery { piece.aborted = true }
        redelivery = []
        losses.mark(moment)
    }

    private func note(_ moment: Moment) {
        losses.set(limited || (!isOpen && policy == UInt32(KVM_USER_ON_CLOSE_ABORT)), at: moment)
        exits.set(!isOpen && policy == UInt32(KVM_USER_ON_CLOSE_EXIT), at: moment)
    }

    /// Whether a piece may have been given up by now.
    func mayLose(_ piece: Piece, _ now: Moment) -> Bool {
        piece.aborted || losses.overlap(piece.issued, now)
    }

    /// Whether a load that was read may not be waited for any more.
    func mayRetire(_ piece: Piece, _ now: Moment) -> Bool {
        !piece.isStore && (mayLose(piece, now) || isVague)
    }

    // MARK: The image

    /// What a load may have got from the image until now.
    func shadowValues(_ piece: Piece, _ now: Moment) -> Set<UInt64> {
        guard !piece.isStore else { return [] }
        return candidates(piece, now).reduce(into: []) { values, place in
            values.formUnion(
                shadow.values(
                    place.id, piece.fragment.address - place.address, piece.fragment.length, piece.issued, now))
        }
    }

    /// Whether the image had to answer this load, at any moment until now.
    func mustShadow(_ piece: Piece, _ now: Moment) -> Bool {
        guard !piece.isStore, piece.fragment.bus == .memory, !mayPark, !mayAbandon else { return false }
        return placements.contains { place in
            place.holds(piece.fragment) && place.span.from < piece.issued && (place.span.to ?? .max) > now
                && shadow.serves(
                    place.id, piece.fragment.address - place.address, piece.fragment.length, piece.issued, now)
        }
    }
}
