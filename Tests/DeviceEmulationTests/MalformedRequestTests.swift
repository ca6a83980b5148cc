// SPDX-License-Identifier: Apache-2.0
//
// Requests that no guest can make, and requests at random.

import DeviceEmulation
import DeviceEmulationTesting
import Fuzzing
import MMIOForwarding
import SeededRandom
import Testing

@Suite("Malformed requests")
struct MalformedRequestTests {
    @Test(
        "A length that is not 1 to 8 reaches no device, and is answered",
        arguments: [0, 9, 16, 255, 256, 4096, 65535], [ForwardedRequest.Kind.load, .store])
    func badLength(length: Int, kind: ForwardedRequest.Kind) {
        let guest = ScriptedGuest(RecordingDevice())
        let replies = guest.send([ForwardedRequest(sequence: 1, kind, offset: 0, length: length, data: .max)])
        #expect(replies.count == 1)
        #expect(guest.shared.withDevice { $0.entries.isEmpty })
        #expect(guest.counters.malformed == 1)
        #expect(guest.counters.loads == 0 && guest.counters.stores == 0)
    }

    @Test("An access whose end 64 bits do not hold reaches no device", arguments: 1...8)
    func beyondTheEnd(length: Int) {
        let guest = ScriptedGuest(RecordingDevice())
        for back in 1...UInt64(length) {
            let offset = 0 &- back
            #expect(
                guest.send([ForwardedRequest(sequence: 1, .load, offset: offset, length: length)])[0].data
                    == UInt64.max >> UInt64(64 - 8 * length))
            guest.send([ForwardedRequest(sequence: 1, .store, offset: offset, length: length, data: 1)])
        }
        #expect(guest.shared.withDevice { $0.entries.isEmpty })
        #expect(guest.counters.malformed == UInt64(2 * length))
    }

    @Test("The highest access whose end 64 bits hold reaches the device, and is refused by it", arguments: 1...8)
    func lastPossible(length: Int) {
        let guest = ScriptedGuest(RecordingDevice())
        guest.send([ForwardedRequest(sequence: 1, .load, offset: 0 &- UInt64(length) &- 1, length: length)])
        #expect(guest.counters.malformed == 0)
        #expect(guest.counters.noRegister >= 1)
    }

    @Test("A kind that this library does not know reaches no device", arguments: [2, 3, 0x100, 0xffff] as [UInt16])
    func unknownKind(kind: UInt16) {
        let guest = ScriptedGuest(RecordingDevice())
        let request = ForwardedRequest(sequence: 1, .store, offset: 0, length: 4, data: 1).withRawKind(kind)
        #expect(guest.send([request]).count == 1)
        #expect(guest.shared.withDevice { $0.entries.isEmpty })
        #expect(guest.counters.malformed == 1)
    }

    @Test("Any vCPU and range number passes through")
    func extremeNumbers() {
        let guest = ScriptedGuest(RecordingDevice())
        guest.store(0, .one, 1, rangeID: .max, vcpu: .max)
        #expect(guest.shared.withDevice { $0.entries.first?.access } == Access(0, .one, rangeID: .max, vcpu: .max))
    }

    @Test(
        "Requests at random: each is answered once, what reaches the device keeps the server's promises",
        arguments: [1, 2, UInt64.random(in: 3...(.max))])
    func generated(seed: UInt64) {
        announce(seed, of: "the generated requests")
        var random = SeededGenerator(seed: seed)
        let requests = (0..<20_000).map { _ in ForwardedRequest.hostile(using: &random) }
        let guest = ScriptedGuest(RecordingDevice())
        let replies = guest.send(requests)
        #expect(replies.count == requests.count, "seed \(seed)")
        let counters = guest.counters
        #expect(counters.requests == UInt64(requests.count), "seed \(seed)")
        #expect(counters.malformed > 0 && counters.splits > 0 && counters.noRegister > 0, "seed \(seed)")
        let broken = guest.shared.withDevice { device in
            device.entries.filter { entry in
                let width = UInt64(entry.access.width.bytes)
                return entry.access.offset % width != 0
                    || entry.access.offset.addingReportingOverflow(width).overflow
                    || (entry.stored ?? 0) & ~entry.access.width.mask != 0
            }
        }
        #expect(broken.isEmpty, "seed \(seed)")
    }
}
