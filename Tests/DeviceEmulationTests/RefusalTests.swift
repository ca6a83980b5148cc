// SPDX-License-Identifier: Apache-2.0
//
// What a guest sees of an access that a device refuses.

import DeviceEmulation
import DeviceEmulationTesting
import MMIOForwarding
import Testing

@Suite("Refused accesses")
struct RefusalTests {
    private func guest(refusing fault: AccessFault, at offset: UInt64 = 0) -> ScriptedGuest<RecordingDevice> {
        var device = RecordingDevice()
        device.refused[offset] = fault
        return ScriptedGuest(device)
    }

    private func count(_ fault: AccessFault, in counters: ServerCounters) -> UInt64 {
        switch fault {
        case .noRegister: counters.noRegister
        case .unsupportedWidth: counters.unsupportedWidth
        case .readOnly: counters.readOnly
        case .writeOnly: counters.writeOnly
        }
    }

    @Test(
        "A refused load reads all-ones of its width, and is counted", arguments: AccessFault.allCases,
        AccessWidth.allCases)
    func refusedLoad(fault: AccessFault, width: AccessWidth) {
        let guest = guest(refusing: fault)
        #expect(guest.load(0, width) == width.mask)
        #expect(count(fault, in: guest.counters) == 1)
        #expect(guest.counters.faults == 1)
        #expect(guest.counters.loads == 1)
    }

    @Test("A refused store is dropped, replied to and counted", arguments: AccessFault.allCases)
    func refusedStore(fault: AccessFault) {
        let guest = guest(refusing: fault)
        let replies = guest.send([ForwardedRequest(sequence: 1, .store, offset: 0, length: 8, data: 1)])
        #expect(replies.count == 1)
        #expect(guest.shared.withDevice { $0.bytes.allSatisfy { $0 == 0 } })
        #expect(count(fault, in: guest.counters) == 1)
        #expect(guest.counters.stores == 1)
    }

    @Test("Of a split request only the refused part reads all-ones")
    func refusedPart() {
        let guest = guest(refusing: .noRegister, at: 4)
        #expect(guest.loadBytes(3, 4) == [0, 0xff, 0xff, 0])
        #expect(guest.counters.faults == 1)
        #expect(guest.counters.splits == 1)
    }

    @Test(
        "Bits that a device returns beyond the access's width do not reach the guest", arguments: AccessWidth.allCases)
    func excessBits(width: AccessWidth) {
        struct AllOnes: MMIODevice {
            func load(_ access: Access) throws(AccessFault) -> UInt64 { .max }
            func store(_ value: UInt64, _ access: Access) throws(AccessFault) {}
        }
        #expect(ScriptedGuest(AllOnes()).load(0, width) == width.mask)
        #expect(ScriptedGuest(AllOnes()).loadBytes(1, 3) == [0xff, 0xff, 0xff])
    }
}
