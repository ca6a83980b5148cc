// SPDX-License-Identifier: Apache-2.0
//
// The model alone: what it must allow, and every kind of fault that it must notice.

import CKVMUser
import Glibc
import GuestPrograms
import Testing

@testable import Fuzz

@Suite("The fuzzer's model") struct ModelTests {
    private static let base: UInt64 = 0xd000_0000

    /// A device that is open and answers at the base, and two vCPUs.
    private func model(depth: Int = 8) -> Model {
        let model = Model(devices: 1, vcpus: 2, depth: depth)
        model.tick()
        model.devices[0].setPolicy(UInt32(KVM_USER_ON_CLOSE_HOLD), at: model.now)
        model.devices[0].opened(at: model.now)
        model.devices[0].place(0, at: (.memory, Self.base, 0x1000), model.now)
        model.tick()
        return model
    }

    private func store(_ value: UInt8, on vcpu: Int = 0, in model: Model) {
        model.tick()
        model.issued(.store(UInt128(value), 1, at: Self.base), on: vcpu, to: 0)
        model.tick()
    }

    private func load(on vcpu: Int = 0, in model: Model) {
        model.tick()
        model.issued(.load(4, at: Self.base), on: vcpu, to: 0)
        model.tick()
    }

    private func request(
        _ sequence: UInt64, store value: UInt64? = nil, on vcpu: UInt32 = 0, flags: UInt32 = 0
    ) -> kvm_user_request {
        kvm_user_request(
            seq: sequence, offset: 0, data: value ?? 0, range_id: 0, cpu: vcpu,
            type: UInt16(value == nil ? KVM_USER_LOAD : KVM_USER_STORE), len: value == nil ? 4 : 1, flags: flags)
    }

    private func reply(_ sequence: UInt64, _ data: UInt64? = nil) -> kvm_user_request {
        var reply = request(sequence, store: data == nil ? 0 : nil)
        reply.data = data ?? 0
        return reply
    }

    @Test("Stores in order, a load, and their replies are right")
    func good() throws {
        let model = model()
        store(1, in: model)
        store(2, in: model)
        load(in: model)
        try model.read([request(1, store: 1), request(2, store: 2), request(3)], from: 0, room: 8)
        try model.wrote([reply(3, 0x1234), reply(1), reply(2)], whole: 3, to: 0, 3)
        try model.completed(0, upTo: 3) { _ in 0x1234 }
        #expect(try model.settled(0) == 0)
    }

    @Test("O1: a lost store, two that changed places, one that came twice")
    func stores() throws {
        let model = model()
        for value in 1...3 as ClosedRange<UInt8> { store(value, in: model) }
        try model.read([request(1, store: 1)], from: 0, room: 8)
        #expect(throws: Discrepancy.self) { try model.read([request(1, store: 1)], from: 0, room: 8) }
        #expect(throws: Discrepancy.self) { try model.read([request(3, store: 3)], from: 0, room: 8) }
        #expect(throws: Discrepancy.self) { try model.settled(0) }
    }

    @Test("O1: a store that was over before another began comes before it")
    func acrossVirtualCPUs() throws {
        let model = model()
        store(1, on: 0, in: model)
        try model.completed(0, upTo: 1) { _ in 0 }
        store(2, on: 1, in: model)
        try model.read([request(1, store: 2, on: 1)], from: 0, room: 8)
        #expect(throws: Discrepancy.self) { try model.read([request(2, store: 1)], from: 0, room: 8) }
    }

    @Test("A request that nobody made, or that differs from what was made")
    func strangers() throws {
        let model = model()
        store(1, in: model)
        var wrong = request(1, store: 1)
        wrong.offset = 8
        for bad in [request(1, store: 2), request(1), request(0, store: 1), request(1, store: 1, on: 1), wrong] {
            #expect(throws: Discrepancy.self) { try model.read([bad], from: 0, room: 8) }
        }
    }

    @Test("A load's value: the reply's, and all-ones only where it may be given up")
    func values() throws {
        let model = model()
        load(in: model)
        try model.read([request(1)], from: 0, room: 8)
        #expect(throws: Discrepancy.self) { try model.completed(0, upTo: 1) { _ in 0xffff_ffff } }

        let second = self.model()
        load(in: second)
        try second.read([request(1)], from: 0, room: 8)
        try second.wrote([reply(1, 5)], whole: 1, to: 0, 1)
        #expect(throws: Discrepancy.self) { try second.completed(0, upTo: 1) { _ in 4 } }

        let limited = self.model()
        limited.devices[0].limitWaits(at: limited.now)
        load(in: limited)
        try limited.read([request(1)], from: 0, room: 8)
        try limited.completed(0, upTo: 1) { _ in 0xffff_ffff }
        #expect(limited.verdict(reply(1, 5), 0) == .stale)
    }

    @Test("O3: a load is over before the replies to its vCPU's stores")
    func loadsWait() throws {
        let model = model()
        store(1, in: model)
        load(in: model)
        try model.read([request(1, store: 1), request(2)], from: 0, room: 8)
        try model.wrote([reply(2, 7)], whole: 1, to: 0, 1)
        #expect(throws: Discrepancy.self) { try model.completed(0, upTo: 2) { _ in 7 } }
    }

    @Test("Replies: the kernel takes a wrong one, or refuses a right one, or says the wrong thing")
    func replies() throws {
        let model = model()
        store(1, in: model)
        try model.read([request(1, store: 1)], from: 0, room: 8)
        #expect(throws: Discrepancy.self) { try model.wrote([reply(2)], whole: 1, to: 0, 1) }
        #expect(throws: Discrepancy.self) { try model.wrote([reply(1)], whole: 1, to: 0, -Int64(EINVAL)) }
        #expect(throws: Discrepancy.self) { try model.wrote([reply(2)], whole: 1, to: 0, -Int64(ESTALE)) }
        try model.wrote([reply(2)], whole: 1, to: 0, -Int64(EINVAL))
        try model.wrote([reply(1)], whole: 1, to: 0, 1)
    }

    @Test("F1: what was taken comes again, in order, flagged, and first")
    func redelivery() throws {
        let again = UInt32(KVM_USER_REQUEST_REDELIVERED)
        let begin = { () throws -> Model in
            let model = self.model()
            for value in 1...3 as ClosedRange<UInt8> { self.store(value, in: model) }
            try model.read([self.request(1, store: 1), self.request(2, store: 2)], from: 0, room: 8)
            model.tick()
            model.devices[0].closed(at: model.now)
            model.tick()
            model.devices[0].opened(at: model.now)
            return model
        }
        let right = [request(1, store: 1, flags: again), request(2, store: 2, flags: again), request(3, store: 3)]
        try begin().read(right, from: 0, room: 8)
        let wrong = [
            [right[1], right[0]], [request(1, store: 1)], [right[2]], [right[0], right[2]],
            [request(1, store: 9, flags: again)],
        ]
        for requests in wrong {
            let model = try begin()
            #expect(throws: Discrepancy.self) { try model.read(requests, from: 0, room: 8) }
        }
    }

    @Test("F3: more requests than the depth allows")
    func depth() throws {
        let model = model(depth: 1)
        store(1, in: model)
        store(2, in: model)
        #expect(throws: Discrepancy.self) {
            try model.read([request(1, store: 1), request(2, store: 2)], from: 0, room: 8)
        }
    }

    @Test("The VMM gets what the device answers all the time, and may get what moved")
    func exits() throws {
        let model = model()
        load(in: model)
        #expect(throws: Discrepancy.self) { try model.exited(.load(4, at: Self.base), on: 0, given: 5) }
        model.tick()
        model.devices[0].place(0, at: nil, model.now)
        try model.exited(.load(4, at: Self.base), on: 0, given: 5)
        #expect(throws: Discrepancy.self) { try model.completed(0, upTo: 1) { _ in 6 } }
    }

    @Test("O4: a load of the image gives a value that was there in its time")
    func shadow() throws {
        let model = model()
        model.devices[0].shadow.setSize(4096, at: model.now)
        let entry = kvm_user_shadow_entry(offset: 0, len: 64, image_offset: 0, range_id: 0, sizes: 4)
        model.devices[0].shadow.setMap([entry], at: model.now)
        for value in [5, 6, 7] as [UInt64] {
            model.tick()
            model.devices[0].shadow.store(value, at: 0, model.now)
            if value == 5 { load(in: model) }
        }
        #expect(throws: Discrepancy.self) { try model.read([request(1)], from: 0, room: 8) }
        #expect(throws: Discrepancy.self) { try model.completed(0, upTo: 1) { _ in 4 } }
        let values = model.devices[0].shadowValues(model.vcpus[0].pieces[0], model.now)
        #expect(values == [5, 6, 7])
    }

    /// A model with a ring, in which the replies to two stores and a forged one wait.
    private func ring() throws -> Model {
        let model = model(depth: 4)
        model.devices[0].ring = RingModel(entries: 4)
        for value in 1...2 as ClosedRange<UInt8> { store(value, in: model) }
        try model.read([request(1, store: 1), request(2, store: 2)], from: 0, room: 4)
        model.devices[0].ring?.give([reply(2), reply(7), reply(1)])
        return model
    }

    @Test("The ring: replies are looked at bit by bit, in order, and a forged one is refused")
    func ringIsLookedAt() throws {
        let model = try ring()
        try model.looked(0, upTo: 1, refused: 0)
        #expect(model.devices[0].outstanding.keys.sorted() == [1])
        try model.looked(0, upTo: 3, refused: 1)
        #expect(model.devices[0].outstanding.isEmpty)
        #expect(model.devices[0].counters.invalid == 1)
        #expect(try model.settled(0) == 0)
    }

    @Test("The ring: a forged reply is taken, or a right one refused", arguments: [0, 2, 3, .max] as [UInt32])
    func ringRefuses(count: UInt32) throws {
        let model = try ring()
        #expect(throws: Discrepancy.self) { try model.looked(0, upTo: 3, refused: count) }
    }

    @Test("The ring: reply_tail runs ahead, or goes back", arguments: [[4], [.max], [2, 1], [3, 2]] as [[UInt32]])
    func ringCounts(tails: [UInt32]) throws {
        let model = try ring()
        for tail in tails.dropLast() { try model.looked(0, upTo: tail, refused: tail / 2) }
        #expect(throws: Discrepancy.self) { try model.looked(0, upTo: tails.last ?? 0, refused: 1) }
    }

    @Test("The ring: too many replies at once are left out together", arguments: [5, .max, 1 << 31] as [UInt32])
    func ringJumps(count: UInt32) throws {
        let model = try ring()
        try model.looked(0, upTo: 3, refused: 1)
        model.devices[0].ring?.jump(by: count)
        #expect(throws: Discrepancy.self) { try model.looked(0, upTo: 4, refused: 2) }

        let second = try ring()
        try second.looked(0, upTo: 3, refused: 1)
        second.devices[0].ring?.jump(by: count)
        try second.looked(0, upTo: 3 &+ count, refused: 2)
        #expect(second.devices[0].counters.invalid == 2)
    }

    @Test("The ring: what may have been given up is late if it is refused")
    func ringIsLate() throws {
        let model = model()
        model.devices[0].ring = RingModel(entries: 8)
        model.devices[0].limitWaits(at: model.now)
        load(in: model)
        try model.read([request(1)], from: 0, room: 8)
        model.devices[0].ring?.give([reply(1, 5)])
        try model.looked(0, upTo: 1, refused: 1)
        #expect(model.devices[0].counters.late == 1)
        try model.completed(0, upTo: 1) { _ in 0xffff_ffff }
        #expect(model.devices[0].counters.lostLoads == 1)
    }

    @Test("Cumulative replies: with ESTALE as well the stores before it have one")
    func cumulative() throws {
        let model = model()
        store(1, on: 1, in: model)
        model.devices[0].limitWaits(at: model.now)
        load(in: model)
        try model.read([request(1, store: 1, on: 1), request(2)], from: 0, room: 8)
        try model.completed(0, upTo: 1) { _ in 0xffff_ffff }
        var last = reply(2, 5)
        last.flags = KVM_USER_REPLY_CUMULATIVE
        try model.wrote([last], whole: 1, to: 0, -Int64(ESTALE))
        #expect(model.devices[0].outstanding.isEmpty)
    }
}
