// SPDX-License-Identifier: Apache-2.0
//
// Guest physical ranges: where accesses go, and that a move has no gap.

import GuestPrograms
import KVM
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Ranges")
struct RangeTests {
    @Test("requests name their range and count their offset from its start, on both buses")
    func idsAndOffsets() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.control.setRange(63, to: GuestRange(.memory, at: 0xe000_0010, length: 0x20))
            try guest.perform(.store(1, 4, at: ForwardedGuest.base + 0x3ffc))
            try guest.perform(.store(2, 8, at: 0xe000_0028))
            try guest.perform(.store(3, 1, at: ForwardedGuest.port + 7, on: .port))
            try guest.perform(.store(4, 4, at: ForwardedGuest.port + 4, on: .port))
            let requests = try emulation.take(exactly: 4)
            #expect(requests.map(\.rangeID) == [0, 63, 1, 1])
            #expect(requests.map(\.offset) == [0x3ffc, 0x18, 7, 4])
            #expect(requests.map(\.data) == [1, 2, 3, 4])
            try emulation.acknowledge(requests)
        }
    }

    @Test("outside of every range, and across a range's end, accesses go to the VMM")
    func outside() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            try guest.control.setRange(2, to: GuestRange(.memory, at: 0xe000_0000, length: 6))
            let value = ForwardedGuest.unforwardedValue & 0xffff_ffff
            for address in [ForwardedGuest.base - 4, ForwardedGuest.base + 0x4000, 0xe000_0004] {
                #expect(try guest.perform(.load(4, at: address)) == value)
            }
            #expect(guest.exits.count == 3)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
        }
    }

    @Test("a known id moves, also to the other bus; length 0 removes")
    func moveAndRemove() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            try guest.control.setRange(0, to: GuestRange(.memory, at: 0xe000_0000, length: 0x1000))
            try guest.perform(.deviceStore(1))
            try guest.perform(.store(2, 4, at: 0xe000_0008))
            try guest.control.setRange(0, to: GuestRange(.ports, at: 0x500, length: 4))
            try guest.perform(.store(3, 4, at: 0xe000_0008))
            try guest.perform(.store(4, 2, at: 0x502, on: .port))
            try guest.control.removeRange(0)
            try guest.perform(.store(5, 2, at: 0x502, on: .port))
            let requests = try emulation.takeNow()
            #expect(requests.map(\.data) == [2, 4])
            #expect(requests.map(\.offset) == [8, 2])
            #expect(guest.exits.count == 3)
            try emulation.acknowledge(requests)
        }
    }

    @Test("requests in flight outlive their range's move and removal")
    func inFlight() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1), on: 0)
            let load = try guest.begin(.deviceLoad(4, 0x10), on: 1)
            let requests = try emulation.take(exactly: 2)
            try guest.control.setRange(0, to: GuestRange(.memory, at: 0xe000_0000, length: 0x1000))
            try guest.control.removeRange(0)
            try emulation.reply(requests[0])
            try emulation.reply(requests[1], 31)
            #expect(try guest.finish(load, on: 1) == 31)
        }
    }

    /// Places between which a range moves; all of them answer at ``common``.
    static let overlaps: [[GuestRange]] = [
        // shifted, nested, grown and shrunk at either end
        [GuestRange(.memory, at: 0xd000_0000, length: 0x2000), GuestRange(.memory, at: 0xd000_1000, length: 0x2000)],
        [GuestRange(.memory, at: 0xd000_0000, length: 0x4000), GuestRange(.memory, at: 0xd000_1800, length: 0x100)],
        [GuestRange(.memory, at: 0xd000_1800, length: 0x100), GuestRange(.memory, at: 0xd000_1800, length: 0x1000)],
        [GuestRange(.memory, at: 0xd000_1000, length: 0xa00), GuestRange(.memory, at: 0xd000_0000, length: 0x1a00)],
    ]
    static let common: UInt64 = 0xd000_1880

    @Test("a move has no gap: an access during it is served at the old place or the new one", arguments: overlaps)
    func noGap(places: [GuestRange]) throws {
        try ModuleUnderTest.load()
        let count = Effort.scaled(4000)
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 2, capacity: count)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: places[0])
        // Neighbours on the bus must stay reachable as well.
        try control.setRange(1, to: GuestRange(.memory, at: 0xcfff_0000, length: 0x1000))
        try control.setRange(2, to: GuestRange(.memory, at: 0xd100_0000, length: 0x1000))
        let emulation = Box(try control.makeEmulationDescriptor())
        let server = try BackgroundTask {
            while true {
                let requests = try emulation.value.takeNow()
                if requests.isEmpty { return }
                for request in requests { try emulation.value.reply(request, request.offset) }
            }
        }
        // A program whose access goes to the VMM ends with an error.
        let moving = try guest.start(.loadLoop(.four), .init(target: Self.common, count: count), on: 0)
        let neighbour = try guest.start(.loadLoop(.four), .init(target: 0xcfff_0ff0, count: count), on: 1)
        var moves = 0
        while !moving.hasEnded || !neighbour.hasEnded {
            moves += 1
            try control.setRange(0, to: places[moves % 2])
        }
        let offsets = Set(try moving.join().values)
        #expect(offsets.isSubset(of: places.map { Self.common - $0.address }))
        #expect(Set(try neighbour.join().values) == [0xff0])
        #expect(moves > 10)
        #expect(server.interruptUntilEnded())
        #expect(throws: Errno.interrupted) { try server.join() }
    }
}
