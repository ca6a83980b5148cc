// SPDX-License-Identifier: Apache-2.0
//
// The replay of guest programs on the host: what they must do, without running them.

import GuestPrograms
import Testing

@Suite("Guest programs' replay") struct GuestReplayTests {
    @Test("Every program has code, and fits a page", arguments: GuestProgram.all)
    func code(program: GuestProgram) {
        #expect((16...4096).contains(program.code.count))
        #expect(Set(GuestProgram.all.map(\.name)).count == GuestProgram.all.count)
    }

    @Test("The same arguments give the same accesses, another seed others", arguments: [1, 2, 0xffff_ffff_ffff_ffff])
    func determinism(seed: UInt64) {
        let arguments = GuestProgram.Arguments(target: 0xd000_0000, count: 500, seed: seed)
        let other = GuestProgram.Arguments(target: 0xd000_0000, count: 500, seed: seed &+ 7)
        let accesses = Array(GuestProgram.mixed.accesses(arguments))
        #expect(accesses == Array(GuestProgram.mixed.accesses(arguments)))
        #expect(accesses != Array(GuestProgram.mixed.accesses(other)))
        #expect(accesses.count == 500)
    }

    @Test("The generator's first accesses with seed 1 are these")
    func known() {
        // xorshift64 (13, 7, 17) from 1: 0x40822041, 0x100041060c011441.
        let arguments = GuestProgram.Arguments(target: 0x1000, count: 2, seed: 1, window: 0x1000)
        let first = 0x4082_2041 as UInt64
        let second = 0x1000_4106_0c01_1441 as UInt64
        let expected = [first, second].map { state -> GuestAccess in
            // Both have the low bits 001: loads of 2 bytes.
            .load(2, at: 0x1000 + (state >> 32) % 0xfff)
        }
        #expect(Array(GuestProgram.mixed.accesses(arguments)) == expected)
    }

    @Test("Mixed accesses stay in the window and have every width and kind", arguments: [8, 9, 64, 4096, 65536])
    func window(window: UInt64) {
        let target: UInt64 = 0xd000_0000
        let arguments = GuestProgram.Arguments(target: target, count: 2000, seed: 3, window: window)
        for program in [GuestProgram.mixed, .mixedAligned] {
            let accesses = Array(program.accesses(arguments))
            #expect(accesses.allSatisfy { $0.address >= target && $0.address + UInt64($0.length) <= target + window })
            #expect(Set(accesses.map(\.length)) == [1, 2, 4, 8])
            #expect(Set(accesses.map(\.kind)) == [.load, .store])
        }
        #expect(GuestProgram.mixedAligned.accesses(arguments).allSatisfy { $0.address % UInt64($0.length) == 0 })
    }

    @Test("Seed 0 is not a generator that stands still")
    func zeroSeed() {
        let accesses = Array(GuestProgram.mixed.accesses(.init(target: 0, count: 100, seed: 0)))
        #expect(Set(accesses).count > 50)
    }

    @Test("Straddling accesses all cross the target")
    func straddling() {
        let accesses = Array(GuestProgram.straddling.accesses(.init(target: 0x5000, count: 3, seed: 1)))
        #expect(accesses.count == 3 * 2 * GuestProgram.straddlingPairs)
        #expect(accesses.allSatisfy { $0.address < 0x5000 && $0.address + UInt64($0.length) > 0x5000 })
        #expect(accesses.allSatisfy { $0.fragments.count == 2 })
    }

    @Test("An access is divided at the page's end, its bytes in order")
    func pageCrossing() {
        let access = GuestAccess.store(0x0807_0605_0403_0201, 8, at: 0x1ffd)
        #expect(access.fragments == [.store(0x03_0201, 3, at: 0x1ffd), .store(0x08_0706_0504, 5, at: 0x2000)])
    }

    @Test("16 bytes come in two, or where they cross a page in up to three")
    func sixteen() {
        let value: UInt128 = 0x100f_0e0d_0c0b_0a09_0807_0605_0403_0201
        #expect(
            GuestAccess.store(value, 16, at: 0x1000).fragments
                == [.store(value & 0xffff_ffff_ffff_ffff, 8, at: 0x1000), .store(value >> 64, 8, at: 0x1008)])
        #expect(GuestAccess.load(16, at: 0x1ffc).fragments.map(\.length) == [4, 8, 4])
        #expect(GuestAccess.load(16, at: 0x1ff4).fragments.map(\.length) == [8, 4, 4])
    }

    @Test("What does not cross a page is whole, and ports know no pages")
    func whole() {
        #expect(GuestAccess.load(8, at: 0x1ff8).fragments == [.load(8, at: 0x1ff8)])
        #expect(GuestAccess.load(4, at: 0xfff, on: .port).fragments == [.load(4, at: 0xfff, on: .port)])
    }

    @Test("A store's value has no bits beyond its width")
    func masked() {
        #expect(GuestAccess.store(.max, 4, at: 0).value == 0xffff_ffff)
        #expect(GuestAccess.store(.max, 16, at: 0).value == .max)
    }

    @Test("The checksum depends on every value and on their order")
    func checksum() {
        #expect(GuestResults.checksum(of: [1, 2, 3]) == 11)
        #expect(GuestResults.checksum(of: [3, 2, 1]) == 17)
        #expect(GuestResults.checksum(of: [1 << 63, 0]) == 1)
    }
}
