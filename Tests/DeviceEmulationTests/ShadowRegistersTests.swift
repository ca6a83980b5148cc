// SPDX-License-Identifier: Apache-2.0
//
// Registers that are loaded without the device: the same values over every transport.

import DeviceEmulation
import DeviceEmulationTesting
import LinuxSystem
import MMIOForwarding
import SystemPackage
import Testing

/// Keeps what is stored in two registers and a block of memory, and writes down which loads it was asked for.
private struct ShadowedDevice: MMIODevice, Sendable {
    let registers = ShadowRegisters([
        .register(0x0, .four), .register(0xe, .two), .register(0x10, .eight, rangeID: 1), .memory(0x20..<0x2d),
    ])
    var asked: [Access] = []

    var shadow: ShadowRegisters? { registers }

    mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        asked.append(access)
        return 0xdddd_dddd_dddd_dddd
    }

    mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        registers[access.offset, access.width, rangeID: access.rangeID] = value
    }
}

@Suite("Shadow registers", .timeLimit(.minutes(10)))
struct ShadowRegistersTests {
    @Test("Registers are 0 at first, keep values of their width, and everything else reads all-ones and keeps nothing")
    func values() {
        let registers = ShadowRegisters([.register(4, .four), .register(9, .one), .memory(16..<32)])
        #expect(registers[4, .four] == 0)
        registers[4, .four] = 0x1_2345_6789
        registers[9, .one] = 0xab
        registers[16, .eight] = .max
        registers[20, .two] = 0
        #expect(registers[4, .four] == 0x2345_6789)
        #expect(registers[9, .one] == 0xab)
        #expect(registers[16, .eight] == 0xffff_0000_ffff_ffff)
        // Another width, another place, beyond the end.
        registers[4, .two] = 7
        registers[8, .one] = 7
        registers[32, .one] = 7
        registers[.max, .one] = 7
        #expect(registers[4, .four] == 0x2345_6789)
        #expect(registers[4, .two] == 0xffff)
        #expect(registers[8, .one] == 0xff)
        #expect(registers[32, .eight] == .max)
        #expect(registers.value(of: Access(4, .four)) == 0x2345_6789)
        #expect(registers.value(of: Access(4, .eight)) == nil)
    }

    @Test("A register answers in the range that it names, or in every range")
    func ranges() {
        let registers = ShadowRegisters([.register(0, .four, rangeID: 3), .register(8, .four)])
        registers[0, .four, rangeID: 3] = 1
        registers[0, .four, rangeID: 2] = 2
        registers[8, .four, rangeID: 9] = 4
        #expect(registers.value(of: Access(0, .four, rangeID: 3)) == 1)
        #expect(registers.value(of: Access(0, .four, rangeID: 2)) == nil)
        #expect(registers.value(of: Access(8, .four, rangeID: 5)) == 4)
    }

    @Test("Parts lie in the image as they are aligned in the range, so that every load that could be served is")
    func layout() {
        let parts: [ShadowRegisters.Part] = [.memory(1..<2), .memory(7..<41), .memory(48..<49), .memory(55..<64)]
        let registers = ShadowRegisters(parts)
        for part in parts {
            for width in AccessWidth.allCases {
                for offset in part.offsets where offset % UInt64(width.bytes) == 0 {
                    let inside = part.offsets.upperBound - offset >= UInt64(width.bytes)
                    #expect((registers.value(of: Access(offset, width)) != nil) == inside)
                }
            }
        }
    }

    @Test("Without shadow memory the server answers from the same values, and the device is asked for the rest alone")
    func answeredByServer() {
        let guest = ScriptedGuest(ShadowedDevice())
        guest.store(0x0, .four, 0x1234_5678)
        guest.store(0xe, .two, 0x9abc)
        guest.store(0x10, .eight, 77, rangeID: 1)
        guest.store(0x20, .eight, 0x8877_6655_4433_2211)
        #expect(guest.load(0x0, .four) == 0x1234_5678)
        #expect(guest.load(0xe, .two, rangeID: 4) == 0x9abc)
        #expect(guest.load(0x10, .eight, rangeID: 1) == 77)
        // In three parts, each of them in shadow memory.
        #expect(guest.loadBytes(0x21, 4) == [0x22, 0x33, 0x44, 0x55])
        #expect(guest.shared.withDevice { $0.asked } == [])
        #expect(guest.load(0x10, .eight) == 0xdddd_dddd_dddd_dddd)
        #expect(guest.load(0x0, .two) == 0xdddd)
        #expect(guest.shared.withDevice { $0.asked } == [Access(0x10, .eight), Access(0x0, .two)])
    }

    @Test("With shadow memory loads are no requests, and find what the vCPU stored before")
    func answeredByTransport() throws {
        let bus = InMemoryBus(hasShadow: true)
        let shared = SharedDevice(ShadowedDevice())
        shared.withDevice { $0.registers[0x2c, .one] = 41 }
        let thread = try DeviceServer(shared, on: bus.transport()).start()
        // A request that is replied to: the server has begun.
        bus.store(0x20, length: 8, 1)
        _ = bus.load(0x100, length: 1)
        // The image's very last byte has moved with the rest.
        #expect(bus.load(0x2c, length: 1) == 41)
        for value in 0..<1000 {
            bus.store(0x20, length: 8, UInt64(value))
            #expect(bus.load(0x20, length: 8) == UInt64(value))
        }
        let before = shared.counters
        #expect(before.loads == 1)
        #expect(before.stores == 1001)
        // Unaligned, of another width, and half outside: requests.
        _ = bus.load(0x21, length: 2)
        _ = bus.load(0x0, length: 1)
        _ = bus.load(0x28, length: 8)
        #expect(shared.counters.loads == 4)
        bus.end()
        try thread.wait()
    }

    @Test("The host's side changes a value while the guest runs, and the next load has it")
    func hostSide() throws {
        let bus = InMemoryBus(hasShadow: true)
        let shared = SharedDevice(ShadowedDevice())
        let thread = try DeviceServer(shared, on: bus.transport()).start()
        _ = bus.load(0x100, length: 1)
        let registers = shared.withDevice { $0.registers }
        for value in 0..<100 {
            registers[0x0, .four] = UInt64(value)
            #expect(bus.load(0x0, length: 4) == UInt64(value))
        }
        bus.end()
        try thread.wait()
        #expect(shared.counters.loads == 1)
    }

    @Test("Several servers of one device, and one transport after the other, keep the values")
    func severalServers() throws {
        let shared = SharedDevice(ShadowedDevice())
        for round in 0..<3 {
            let bus = InMemoryBus(hasShadow: round != 1)
            let one = try DeviceServer(shared, on: bus.transport()).start()
            let two = try DeviceServer(shared, on: bus.transport()).start()
            bus.store(0x20, length: 1, UInt64(round), vcpu: 1)
            #expect(bus.load(0x20, length: 1, vcpu: 1) == UInt64(round))
            if round > 0 { #expect(bus.load(0xe, length: 2) == UInt64(round - 1)) }
            bus.store(0xe, length: 2, UInt64(round))
            bus.end()
            try one.wait()
            try two.wait()
        }
        #expect(shared.withDevice { $0.registers[0xe, .two] } == 2)
    }

    @Test("A transport that fails to place the registers still serves them, as requests")
    func failingTransport() throws {
        struct Failing: RequestTransport, ~Copyable {
            var base: InMemoryTransport
            var staleReplies: UInt64 { 0 }
            mutating func exchange(
                _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
            ) throws(Errno) -> Int { try base.exchange(replies, for: &requests) }
            mutating func placeShadow(
                _ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void
            ) throws(ForwardingError) -> ShadowImage? {
                throw ForwardingError(call: "KVM_DEV_USER_SHADOW_SIZE", errno: .argListTooLong)
            }
        }
        let bus = InMemoryBus()
        let shared = SharedDevice(ShadowedDevice())
        bus.store(0x0, length: 4, 5)
        bus.end()
        #expect(try DeviceServer(shared, on: Failing(base: bus.transport())).run() == .machineGone)
        #expect(shared.withDevice { $0.registers[0x0, .four] } == 5)
    }
}
