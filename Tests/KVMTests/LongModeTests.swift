// SPDX-License-Identifier: Apache-2.0
//
// Page tables, walked as a CPU walks them, and the encoding of segments.

import KVM
import Testing

@Suite("Long mode") struct LongModeTests {
    private let memory: GuestMemory
    private let tables: IdentityPageTables

    init() throws {
        memory = try GuestMemory(at: 0, count: 0x10000)
        tables = try IdentityPageTables(in: memory, at: 0x2000)
    }

    /// The physical address of a linear one, or nil where a level has no entry.
    private func walk(_ linear: UInt64) throws -> UInt64? {
        var table = tables.address
        for level in [39, 30, 21] as [UInt64] {
            let entry: UInt64 = try memory.load(at: table + 8 * (linear >> level & 511))
            // Present, writable, user.
            guard entry & 7 == 7 else { return nil }
            let address = entry & 0x000f_ffff_ffff_f000
            if entry & 0x80 != 0 {
                guard level == 21, address & 0x1f_ffff == 0 else { return nil }
                return address | linear & 0x1f_ffff
            }
            table = address
        }
        return nil
    }

    @Test(
        "Every address below 4 GiB is mapped to itself",
        arguments: [0, 1, 0x1f_ffff, 0x20_0000, 0x3fff_ffff, 0x4000_0000, 0xd000_1234, 0xffff_ffff] as [UInt64])
    func identity(address: UInt64) throws {
        #expect(try walk(address) == address)
    }

    @Test("Nothing from 4 GiB on is mapped", arguments: [1 << 32, 1 << 39, 1 << 47] as [UInt64])
    func limit(address: UInt64) throws {
        #expect(try walk(address) == nil)
    }

    @Test("Nothing beyond the six pages is written")
    func extent() throws {
        #expect(IdentityPageTables.count == 0x6000)
        #expect(try memory.bytes(at: 0, count: 0x2000).allSatisfy { $0 == 0 })
        #expect(try memory.bytes(at: 0x8000, count: 0x8000).allSatisfy { $0 == 0 })
    }

    @Test("Tables that do not fit or are not aligned throw", arguments: [0x2001, 0xb000, 0x10000] as [UInt64])
    func misplaced(address: UInt64) {
        #expect(throws: GuestMemory.Fault.self) { try IdentityPageTables(in: memory, at: address) }
    }

    @Test("A segment keeps its access byte and flags", arguments: [(0x9b, 0xa), (0x93, 0xc), (0x8b, 0), (0x73, 5)])
    func segment(access: Int, flags: Int) {
        let segment = Segment(selector: 8, base: 1, limit: 2, access: UInt8(access), flags: UInt8(flags))
        #expect((Int(segment.access), Int(segment.flags)) == (access, flags))
        #expect((segment.selector, segment.base, segment.limit) == (8, 1, 2))
    }
}
