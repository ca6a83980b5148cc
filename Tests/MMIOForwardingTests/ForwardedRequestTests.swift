// SPDX-License-Identifier: Apache-2.0
//
// Requests and the replies to them.

import MMIOForwarding
import Testing

@Suite("Forwarded request")
struct ForwardedRequestTests {
    @Test("A request has the layout of struct kvm_user_request")
    func layout() {
        #expect(MemoryLayout<ForwardedRequest>.size == 40)
        #expect(MemoryLayout<ForwardedRequest>.stride == 40)
        #expect(MemoryLayout<ForwardedReply>.stride == 40)
    }

    @Test("A request keeps every field it is made with")
    func fields() {
        let request = ForwardedRequest(
            sequence: .max, .store, offset: .max - 1, length: 5, data: 0x11_2233_4455, rangeID: 6, vcpu: 7,
            redelivered: true)
        #expect(request.sequence == .max)
        #expect(request.kind == .store)
        #expect(request.offset == UInt64.max - 1)
        #expect(request.length == 5)
        #expect(request.data == 0x11_2233_4455)
        #expect(request.rangeID == 6)
        #expect(request.vcpu == 7)
        #expect(request.isRedelivered)
    }

    @Test("A store's data beyond its length is cleared", arguments: 1...8)
    func storeIsMasked(length: Int) {
        let request = ForwardedRequest(sequence: 1, .store, offset: 0, length: length, data: .max)
        #expect(request.data == UInt64.max >> UInt64(64 - 8 * length))
    }

    @Test("A load carries no data, its reply just as many bytes as were asked for", arguments: 1...8)
    func replyIsMasked(length: Int) {
        let request = ForwardedRequest(sequence: 9, .load, offset: 0, length: length, data: .max)
        #expect(request.data == 0)
        let reply = request.reply(.max)
        #expect(reply.data == UInt64.max >> UInt64(64 - 8 * length))
        #expect(reply.sequence == 9)
        #expect(reply.kind == .load)
    }

    @Test("The reply to a store carries no data")
    func storeReply() {
        let reply = ForwardedRequest(sequence: 9, .store, offset: 0, length: 8, data: .max).reply(5)
        #expect(reply.kind == .store)
        #expect(reply.data == 0)
    }

    @Test("No length makes a mask trap", arguments: [Int.min, -1, 0, 1, 7, 8, 9, 65535, .max])
    func masks(length: Int) {
        let bits = max(0, min(length, 8)) * 8
        #expect(ForwardedRequest.mask(length).nonzeroBitCount == bits)
        _ = ForwardedRequest(sequence: 1, .store, offset: .max, length: length, data: .max).reply(.max)
    }

    @Test("Requests are equal if all their fields are")
    func equality() {
        let one = ForwardedRequest(sequence: 1, .store, offset: 2, length: 4, data: 5, rangeID: 6, vcpu: 7)
        let others = [
            ForwardedRequest(sequence: 2, .store, offset: 2, length: 4, data: 5, rangeID: 6, vcpu: 7),
            ForwardedRequest(sequence: 1, .load, offset: 2, length: 4, data: 5, rangeID: 6, vcpu: 7),
            ForwardedRequest(sequence: 1, .store, offset: 3, length: 4, data: 5, rangeID: 6, vcpu: 7),
            ForwardedRequest(sequence: 1, .store, offset: 2, length: 3, data: 5, rangeID: 6, vcpu: 7),
            ForwardedRequest(sequence: 1, .store, offset: 2, length: 4, data: 6, rangeID: 6, vcpu: 7),
            ForwardedRequest(sequence: 1, .store, offset: 2, length: 4, data: 5, rangeID: 7, vcpu: 7),
            ForwardedRequest(sequence: 1, .store, offset: 2, length: 4, data: 5, rangeID: 6, vcpu: 8),
            ForwardedRequest(
                sequence: 1, .store, offset: 2, length: 4, data: 5, rangeID: 6, vcpu: 7, redelivered: true),
        ]
        #expect(one == one)
        #expect(others.allSatisfy { $0 != one })
        #expect(Set(others + [one]).count == 9)
    }

    @Test("A kind of a later ABI is known to be unknown")
    func kinds() {
        let request = ForwardedRequest(sequence: 1, .load, offset: 0, length: 1)
        #expect(request.hasKnownKind)
        #expect(request.withRawKind(1).hasKnownKind)
        #expect(!request.withRawKind(2).hasKnownKind)
        #expect(!request.withRawKind(.max).hasKnownKind)
    }

    @Test("A request describes itself in one line")
    func description() {
        let request = ForwardedRequest(
            sequence: 3, .store, offset: 0x10, length: 4, data: 0xff, rangeID: 1, vcpu: 2, redelivered: true)
        #expect("\(request)" == "#3 vCPU 2 store 0xff [1]+0x10 len 4 redelivered")
        #expect("\(ForwardedRequest(sequence: 4, .load, offset: 0, length: 8))" == "#4 vCPU 0 load [0]+0x0 len 8")
    }
}
