// SPDX-License-Identifier: Apache-2.0
//
// How requests of every size and alignment reach a device.

import DeviceEmulation
import DeviceEmulationTesting
import MMIOForwarding
import Testing

@Suite("Splitting")
struct SplitTests {
    /// Memory with a different value in every byte.
    private let pattern = (0..<64).map { UInt8(0x80 + $0) }

    @Test(
        "A store of any length at any offset changes just its bytes, as in an array of bytes",
        arguments: 1...8, 0...16)
    func storesAsInMemory(length: Int, offset: Int) {
        for widest in AccessWidth.allCases {
            let guest = ScriptedGuest(RecordingDevice(bytes: pattern, widest: widest))
            let bytes = (1...length).map { UInt8($0) }
            guest.storeBytes(UInt64(offset), bytes)
            var model = pattern
            model.replaceSubrange(offset..<offset + length, with: bytes)
            #expect(guest.shared.withDevice { $0.bytes } == model)
        }
    }

    @Test(
        "A load of any length at any offset reads just its bytes, as from an array of bytes",
        arguments: 1...8, 0...16)
    func loadsAsFromMemory(length: Int, offset: Int) {
        for widest in AccessWidth.allCases {
            let guest = ScriptedGuest(RecordingDevice(bytes: pattern, widest: widest))
            #expect(guest.loadBytes(UInt64(offset), length) == Array(pattern[offset..<offset + length]))
        }
    }

    @Test(
        "A device sees parts that are aligned, ascending, without gaps, and as wide as can be",
        arguments: 1...8, 0...16)
    func partsAreTheWidest(length: Int, offset: Int) {
        for widest in AccessWidth.allCases {
            let guest = ScriptedGuest(RecordingDevice(widest: widest))
            guest.storeBytes(UInt64(offset), Array(repeating: 0xff, count: length))
            var next = UInt64(offset)
            let end = UInt64(offset + length)
            for entry in guest.shared.withDevice({ $0.entries }) {
                #expect(entry.access.offset == next)
                let best = AccessWidth.allCases.last { width in
                    let bytes = UInt64(width.bytes)
                    return width <= widest && next % bytes == 0 && next + bytes <= end
                }
                #expect(entry.access.width == best)
                next += UInt64(entry.access.width.bytes)
            }
            #expect(next == end)
        }
    }

    @Test("A naturally aligned access of 1, 2, 4 or 8 bytes is not split", arguments: AccessWidth.allCases)
    func alignedIsWhole(width: AccessWidth) {
        let guest = ScriptedGuest(RecordingDevice())
        guest.store(UInt64(3 * width.bytes), width, .max)
        let expected = RecordingDevice.Entry(access: Access(UInt64(3 * width.bytes), width), stored: width.mask)
        #expect(guest.shared.withDevice { $0.entries } == [expected])
        #expect(guest.counters.splits == 0)
    }

    @Test("An access that crosses a page, 3 + 5 bytes, reaches the device as 1, 2, 4 and 1")
    func pageCrossing() {
        let guest = ScriptedGuest(RecordingDevice())
        guest.storeBytes(0xffd, [1, 2, 3, 4, 5, 6, 7, 8])
        let seen = guest.shared.withDevice { $0.entries }
        #expect(
            seen.map(\.access) == [
                Access(0xffd, .one), Access(0xffe, .two), Access(0x1000, .four), Access(0x1004, .one),
            ])
        #expect(seen.map(\.stored) == [0x01, 0x0302, 0x0706_0504, 0x08])
        #expect(guest.counters.splits == 2)
        #expect(guest.counters.stores == 2)
    }

    @Test("A 16-byte access is two of 8")
    func sixteenBytes() {
        let guest = ScriptedGuest(RecordingDevice(bytes: pattern))
        #expect(guest.loadBytes(16, 16) == Array(pattern[16..<32]))
        #expect(guest.shared.withDevice { $0.entries.map(\.access) } == [Access(16, .eight), Access(24, .eight)])
    }

    @Test("Every part carries the request's range, vCPU and redelivery")
    func partsKeepTheirOrigin() {
        let guest = ScriptedGuest(RecordingDevice())
        guest.send([
            ForwardedRequest(
                sequence: 1, .store, offset: 1, length: 7, data: 0, rangeID: 5, vcpu: 3, redelivered: true)
        ])
        let origins = guest.shared.withDevice { $0.entries.map(\.access) }
        #expect(origins.count == 3)
        #expect(origins.allSatisfy { $0.rangeID == 5 && $0.vcpu == 3 && $0.isRedelivered })
        #expect(guest.counters.redelivered == 1)
    }

    @Test("A wide access to a device on an 8-bit bus reaches consecutive registers, lowest first")
    func eightBitBus() {
        let guest = ScriptedGuest(RecordingDevice(widest: .one))
        guest.store(4, .two, 0xbbaa)
        let seen = guest.shared.withDevice { $0.entries }
        #expect(seen.map(\.access) == [Access(4, .one), Access(5, .one)])
        #expect(seen.map(\.stored) == [0xaa, 0xbb])
    }
}
