// SPDX-License-Identifier: Apache-2.0
//
// Guest memory by guest physical address: nothing outside of it can be reached, whatever address is given.

import KVM
import LinuxSystem
import SystemPackage
import Testing

@Suite("Guest memory") struct GuestMemoryTests {
    private static let base: UInt64 = 0x10_0000
    private static let count = 2 * GuestMemory.pageSize
    private let memory: GuestMemory

    init() throws {
        memory = try GuestMemory(at: Self.base, count: Self.count)
    }

    @Test("An integer comes back as it was stored, at any alignment", arguments: [0, 1, 3, 4093, 8184] as [UInt64])
    func roundTrip(offset: UInt64) throws {
        try memory.store(0x0102_0304_0506_0708 as UInt64, at: Self.base + offset)
        #expect(try memory.load(UInt64.self, at: Self.base + offset) == 0x0102_0304_0506_0708)
        #expect(try memory.load(UInt8.self, at: Self.base + offset) == 8)
    }

    @Test(
        "An access that is not all inside throws and changes nothing",
        arguments: [
            0, base - 1, base - 8, base + UInt64(count) - 7, base + UInt64(count), UInt64.max, UInt64.max - 7,
            1 << 63,
        ])
    func outside(address: UInt64) throws {
        let fault = GuestMemory.Fault(address: address, count: 8)
        #expect(throws: fault) { try memory.load(UInt64.self, at: address) }
        #expect(throws: fault) { try memory.store(UInt64.max, at: address) }
        #expect(throws: fault) { try memory.copy([UInt8](repeating: 255, count: 8), to: address) }
        #expect(throws: fault) { try memory.fill(255, at: address, count: 8) }
        #expect(throws: fault) { try memory.bytes(at: address, count: 8) }
        #expect(throws: (any Error).self) { try memory.storeReleasing(.max, at: address) }
        #expect(try memory.bytes(at: Self.base, count: Self.count).allSatisfy { $0 == 0 })
    }

    @Test("A count that no memory has throws", arguments: [-1, Int.min, Int.max])
    func badCount(count: Int) {
        #expect(throws: GuestMemory.Fault.self) { try memory.bytes(at: Self.base + 1, count: count) }
        #expect(!memory.contains(Self.base + 1, count: count))
    }

    @Test("Ordered words must be aligned")
    func alignment() throws {
        try memory.storeReleasing(7, at: Self.base + 8)
        #expect(try memory.loadAcquiring(at: Self.base + 8) == 7)
        #expect(throws: GuestMemory.Fault.self) { try memory.loadAcquiring(at: Self.base + 4) }
        #expect(throws: GuestMemory.Fault.self) { try memory.storeReleasing(7, at: Self.base + 9) }
    }

    @Test("The last byte, and nothing of length 0 beyond the end, can be reached")
    func end() throws {
        let end = Self.base + UInt64(Self.count)
        try memory.store(0xab as UInt8, at: end - 1)
        #expect(try memory.bytes(at: end - 1, count: 1) == [0xab])
        #expect(try memory.bytes(at: end, count: 0) == [])
        #expect(throws: GuestMemory.Fault.self) { try memory.bytes(at: end + 1, count: 0) }
    }

    @Test(
        "A slot begins and ends on a page, and below 2^64",
        arguments: [(1, 4096), (0, 0), (0, -4096), (0, 4095), (UInt64.max - 4095, 8192)] as [(UInt64, Int)])
    func badPlace(address: UInt64, count: Int) {
        #expect(throws: KVMError(call: "mmap guest memory", errno: .invalidArgument)) {
            try GuestMemory(at: address, count: count)
        }
    }

    @Test("A loader sees the very bytes")
    func loader() throws {
        try unsafe memory.withUnsafeMutableBytes(at: Self.base + 16, count: 4) { bytes in
            unsafe bytes.copyBytes(from: [1, 2, 3, 4])
        }
        #expect(try memory.load(UInt32.self, at: Self.base + 16) == 0x0403_0201)
    }
}
