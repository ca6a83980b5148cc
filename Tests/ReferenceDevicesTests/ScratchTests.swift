// SPDX-License-Identifier: Apache-2.0
//
// The scratch device, register by register.

import DeviceEmulation
import DeviceEmulationTesting
import MMIOForwarding
import ReferenceDevices
import Testing

@Suite("Scratch")
struct ScratchTests {
    private let guest = ScriptedGuest(Scratch())

    private func load(_ register: Scratch.Register, _ width: AccessWidth) -> UInt64 {
        guest.load(register.rawValue, width)
    }

    @Test("ID reads MMIO")
    func identification() {
        #expect(load(.id, .four) == 0x4d4d_494f)
    }

    @Test(
        "A register keeps a value of its own width",
        arguments: zip([Scratch.Register.data8, .data16, .data32, .data64], AccessWidth.allCases))
    func keeps(register: Scratch.Register, width: AccessWidth) {
        guest.store(register.rawValue, width, 0x8877_6655_4433_2211)
        #expect(load(register, width) == 0x8877_6655_4433_2211 & width.mask)
    }

    @Test("A register refuses every width but its own", arguments: Scratch.Register.allCases)
    func otherWidths(register: Scratch.Register) {
        for width in AccessWidth.allCases where !register.takes(width) && register.rawValue % UInt64(width.bytes) == 0 {
            let before = guest.counters.unsupportedWidth
            #expect(load(register, width) == width.mask)
            guest.store(register.rawValue, width, 0)
            #expect(guest.counters.unsupportedWidth == before + 2)
        }
        #expect(guest.shared.withDevice { $0.checksum } == Scratch.initialChecksum)
    }

    @Test("TICKET counts its own loads and no others")
    func ticket() {
        #expect(load(.ticket, .four) == 0)
        #expect(load(.ticket, .eight) == 1)
        _ = load(.id, .four)
        #expect(load(.ticket, .four) == 2)
    }

    @Test("EVENTS collects bits, and reading clears it")
    func events() {
        guest.store(Scratch.Register.events.rawValue, .four, 1)
        guest.store(Scratch.Register.events.rawValue, .four, 4)
        #expect(load(.events, .four) == 5)
        #expect(load(.events, .four) == 0)
    }

    @Test("DOORBELL counts, keeps the last value and interrupts once each time")
    func doorbell() {
        let line = CountingInterruptLine()
        let guest = ScriptedGuest(Scratch(interrupt: line))
        guest.store(Scratch.Register.doorbell.rawValue, .four, 7)
        guest.store(Scratch.Register.doorbell.rawValue, .four, 9)
        #expect(line.count == 2)
        #expect(guest.load(Scratch.Register.rings.rawValue, .eight) == 2)
        #expect(guest.load(Scratch.Register.lastRing.rawValue, .four) == 9)
        #expect(guest.load(Scratch.Register.doorbell.rawValue, .four) == 0xffff_ffff)
        #expect(guest.counters.writeOnly == 1)
    }

    @Test(
        "Registers that count cannot be stored to",
        arguments: [Scratch.Register.rings, .checksum, .stores, .loads])
    func readOnly(register: Scratch.Register) {
        guest.store(register.rawValue, .eight, 1)
        #expect(guest.counters.readOnly == 1)
        #expect(guest.shared.withDevice { $0.stores } == 0)
    }

    @Test("MEMORY is little endian at every width, and refuses what is beyond it")
    func memory() {
        let base = Scratch.memory.lowerBound
        guest.store(base, .eight, 0x8877_6655_4433_2211)
        #expect(guest.load(base, .one) == 0x11)
        #expect(guest.load(base + 2, .two) == 0x4433)
        #expect(guest.load(base + 4, .four) == 0x8877_6655)
        #expect(guest.loadBytes(base + 1, 5) == [0x22, 0x33, 0x44, 0x55, 0x66])
        #expect(guest.load(base - 1, .one) == 0xff)
        #expect(guest.load(Scratch.memory.upperBound, .four) == 0xffff_ffff)
        #expect(guest.counters.noRegister == 2)
    }

    @Test("STORES counts what took effect, LOADS what the device was asked for: nothing that is in shadow memory")
    func counts() {
        guest.store(Scratch.Register.data8.rawValue, .one, 1)
        guest.store(0x800, .eight, 1)
        guest.store(0x100, .eight, 1)
        _ = load(.id, .four)
        _ = load(.ticket, .four)
        _ = load(.ticket, .two)
        #expect(load(.stores, .eight) == 2)
        #expect(load(.loads, .eight) == 1)
        #expect(load(.loads, .eight) == 2)
    }

    @Test("In shadow memory is what can be loaded without a side effect, and nothing else")
    func shadow() throws {
        let shadow = try #require(Scratch().shadow)
        let asking: Set<Scratch.Register> = [.ticket, .doorbell, .loads, .events]
        for register in Scratch.Register.allCases {
            for width in AccessWidth.allCases where register.rawValue % UInt64(width.bytes) == 0 {
                let isThere = shadow.value(of: Access(register.rawValue, width)) != nil
                #expect(isThere == (register.takes(width) && !asking.contains(register)), "\(register) \(width)")
            }
        }
        for offset in stride(from: Scratch.memory.lowerBound, to: Scratch.memory.upperBound, by: 8) {
            #expect(shadow.value(of: Access(offset, .eight)) == 0)
        }
        #expect(shadow.value(of: Access(Scratch.memory.upperBound, .one)) == nil)
    }

    @Test("Over a bus with shadow memory every value is the same, and no load of it is a request")
    func overShadowMemory() throws {
        let bus = InMemoryBus(hasShadow: true)
        let shared = SharedDevice(Scratch())
        let thread = try DeviceServer(shared, on: bus.transport()).start()
        #expect(bus.load(Scratch.Register.ticket.rawValue, length: 4) == 0)
        bus.store(Scratch.Register.data64.rawValue, length: 8, 0x1122_3344_5566_7788)
        bus.store(Scratch.Register.doorbell.rawValue, length: 4, 9)
        bus.store(0x400, length: 2, 0xabcd)
        #expect(bus.load(Scratch.Register.data64.rawValue, length: 8) == 0x1122_3344_5566_7788)
        #expect(bus.load(Scratch.Register.id.rawValue, length: 4) == Scratch.identification)
        #expect(bus.load(Scratch.Register.rings.rawValue, length: 8) == 1)
        #expect(bus.load(Scratch.Register.lastRing.rawValue, length: 4) == 9)
        #expect(bus.load(Scratch.Register.stores.rawValue, length: 8) == 3)
        #expect(bus.load(0x401, length: 1) == 0xab)
        let checksum = shared.withDevice { $0.checksum }
        #expect(bus.load(Scratch.Register.checksum.rawValue, length: 8) == checksum)
        #expect(checksum != Scratch.initialChecksum)
        #expect(shared.counters.loads == 1)
        bus.end()
        try thread.wait()
    }

    @Test("CHECKSUM can be replayed from the stores, and tells their order")
    func checksum() {
        let stores: [(UInt64, AccessWidth, UInt64)] = [(0x400, .eight, 5), (0x408, .four, 6), (0x00a, .two, 7)]
        for (offset, width, value) in stores { guest.store(offset, width, value) }
        func replay(_ stores: [(UInt64, AccessWidth, UInt64)]) -> UInt64 {
            stores.reduce(Scratch.initialChecksum) { Scratch.checksum($0, adding: $1.2, Access($1.0, $1.1)) }
        }
        #expect(load(.checksum, .eight) == replay(stores))
        #expect(replay(stores) != replay(stores.reversed()))
        #expect(replay([(0x400, .four, 5)]) != replay([(0x404, .four, 5)]))
        #expect(replay([(0x400, .four, 5)]) != replay([(0x400, .eight, 5)]))
    }

    @Test("The same registers answer in every range")
    func ranges() {
        guest.store(Scratch.Register.data32.rawValue, .four, 3, rangeID: 0)
        #expect(guest.load(Scratch.Register.data32.rawValue, .four, rangeID: 7) == 3)
    }

    @Test("Saved and restored in another process, it answers as it did")
    func restored() {
        for (position, register) in Scratch.Register.allCases.enumerated() {
            for width in AccessWidth.allCases where register.takes(width) {
                guest.store(register.rawValue, width, 0x0102_0304_0506_0708 &* UInt64(position + 1))
            }
        }
        for offset in stride(from: Scratch.memory.lowerBound, to: Scratch.memory.upperBound, by: 8) {
            guest.store(offset, .eight, offset &* 0x9e37_79b9_7f4a_7c15)
        }
        for _ in 0..<3 { _ = load(.ticket, .four) }
        let before = guest.shared.withDevice { $0 }
        var saved = [UInt8](repeating: 0, count: before.savedSize)
        var room = saved.mutableSpan
        var bytes = unsafe room.mutableBytes
        before.save(to: &bytes)
        var after = Scratch()
        after.restore(from: unsafe saved.span.bytes)
        let (one, other) = (ScriptedGuest(before), ScriptedGuest(after))
        for register in Scratch.Register.allCases {
            for width in AccessWidth.allCases where register.takes(width) {
                #expect(other.load(register.rawValue, width) == one.load(register.rawValue, width), "\(register)")
            }
        }
        for offset in Scratch.memory { #expect(other.load(offset, .one) == one.load(offset, .one)) }
    }

    @Test("The devices of this module are found by name, and each can be served")
    func byName() throws {
        #expect(ReferenceDevice.named("nonsense") == nil)
        for entry in ReferenceDevice.all {
            let device = try #require(ReferenceDevice.named(entry.name)).make(ReferenceDevice.Connections())
            #expect(device.label == entry.name)
            serve(device)
        }
    }

    private func serve(_ device: some MMIODevice & Sendable) {
        let guest = ScriptedGuest(device)
        _ = guest.load(0, .four)
        #expect(guest.counters.loads == 1)
    }
}
