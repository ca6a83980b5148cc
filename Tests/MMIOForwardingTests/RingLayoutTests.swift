// SPDX-License-Identifier: Apache-2.0
//
// Where a kernel says that things are in the ring: whatever it says, nothing outside of the mapping is touched.

import CKVMUser
import Glibc
import SeededRandom
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Layout of the ring")
struct RingLayoutTests {
    private static let protocolError = Errno(rawValue: EPROTO)

    private func raw(
        size: UInt64 = 36864, entries: UInt32 = 256, requests: UInt32 = 128, replies: UInt32 = 128 + 256 * 64
    ) -> kvm_dev_user_ring {
        kvm_dev_user_ring(size: size, entries: entries, requests_offset: requests, replies_offset: replies, pad: 0)
    }

    @Test("what the module says is understood, and counts wrap around")
    func good() throws {
        let layout = try RequestRing.Layout(raw())
        #expect(layout.request(0) == 128)
        #expect(layout.request(255) == 128 + 255 * 64)
        #expect(layout.request(256) == 128)
        #expect(layout.reply(.max) == 128 + 256 * 64 + 255 * 64)
    }

    @Test("EPROTO: entries that are no power of two, or do not fit; bad offsets")
    func bad() {
        let wrong = [
            raw(entries: 0), raw(entries: 255), raw(entries: 512), raw(entries: 1 << 31), raw(size: 0),
            raw(size: 128 + 512 * 64 - 1), raw(size: 1 << 31), raw(size: .max), raw(requests: 0), raw(requests: 120),
            raw(requests: 132), raw(replies: 64), raw(requests: .max), raw(replies: .max - 7),
        ]
        for layout in wrong {
            #expect(throws: Self.protocolError, "\(layout)") { try RequestRing.Layout(layout) }
        }
    }

    @Test("whatever numbers come: refused, or every entry lies within")
    func random() throws {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<20_000 {
            let shift = UInt32.random(in: 0..<32, using: &random)
            let raw = raw(
                size: UInt64.random(in: 0...1 << 20, using: &random), entries: 1 << (shift % 16),
                requests: UInt32.random(in: 0...1 << 17, using: &random) & ~7,
                replies: UInt32.random(in: 0...1 << 17, using: &random) & ~7)
            guard let layout = try? RequestRing.Layout(raw) else { continue }
            let count = UInt32.random(in: 0 ... .max, using: &random)
            for place in [layout.request(count), layout.reply(count)] {
                #expect(place >= MemoryLayout<kvm_user_ring>.size && place + 64 <= layout.size)
            }
        }
    }
}
