// SPDX-License-Identifier: Apache-2.0
//
// The access map: what it refuses, with which words, and which loads it finds.

import MMIOForwarding
import SeededRandom
import Testing

@Suite("Shadow map")
struct ShadowMapTests {
    private func entry(
        _ offset: UInt64, _ length: UInt64, image: UInt64 = 0, range: UInt32? = 0, widths: ShadowMap.Widths = .all
    ) -> ShadowMap.Entry {
        ShadowMap.Entry(rangeID: range, offset: offset, length: length, imageOffset: image, widths: widths)
    }

    private func map(_ entries: ShadowMap.Entry...) throws(ShadowMap.Fault) -> ShadowMap {
        var map = ShadowMap(imageSize: 4096, maximumRanges: 64)
        for entry in entries { try map.add(entry) }
        return map
    }

    @Test("An entry of no bytes is refused")
    func empty() {
        #expect(throws: ShadowMap.Fault.empty(entry(8, 0))) { try map(entry(8, 0)) }
    }

    @Test("No widths, or ones that no load has, are refused", arguments: [0, 16, 0x8000_0000, 31] as [UInt32])
    func widths(mask: UInt32) {
        let bad = entry(8, 8, widths: ShadowMap.Widths(rawValue: mask))
        #expect(throws: ShadowMap.Fault.unsupportedWidths(bad)) { try map(bad) }
    }

    @Test("A range that cannot be is refused", arguments: [64, 65, UInt32.max])
    func rangeID(id: UInt32) {
        let bad = entry(0, 8, range: id)
        #expect(throws: ShadowMap.Fault.noSuchRange(bad, maximumRanges: 64)) { try map(bad) }
    }

    @Test(
        "An end beyond 2^64 is refused",
        arguments: [(UInt64.max, 1), (UInt64.max, UInt64.max), (1, UInt64.max)] as [(UInt64, UInt64)])
    func wraps(offset: UInt64, length: UInt64) {
        let bad = entry(offset, length)
        #expect(throws: ShadowMap.Fault.wraps(bad)) { try map(bad) }
    }

    @Test(
        "An entry that leaves the image is refused",
        arguments: [(4096, 1), (4095, 2), (0, 4097), (UInt64.max, 1), (UInt64.max, UInt64.max - 1), (8, 4089)]
            as [(UInt64, UInt64)])
    func outsideImage(image: UInt64, length: UInt64) {
        let bad = entry(0, length, image: image)
        #expect(throws: ShadowMap.Fault.outsideImage(bad, imageSize: 4096)) { try map(bad) }
    }

    @Test(
        "Entries of a range that overlap are refused, and the error names both",
        arguments: [(16, 8), (0, 17), (23, 1), (23, 100), (0, 4096), (18, 2)] as [(UInt64, UInt64)])
    func overlap(offset: UInt64, length: UInt64) throws {
        let (first, second) = (entry(16, 8), entry(offset, length))
        let error = #expect(throws: ShadowMap.Fault.overlap(second, first)) { try map(entry(0x2000, 4), first, second) }
        let text = try #require(error?.description)
        #expect(text.contains("range 0 +0x10 len 0x8 -> image 0x0"))
        #expect(text.contains("range 0 +0x\(String(offset, radix: 16)) len 0x\(String(length, radix: 16))"))
    }

    @Test("Entries may touch, share the image, and lie anywhere in other ranges")
    func legal() throws {
        let map = try map(entry(16, 8), entry(24, 8), entry(8, 8), entry(16, 8, range: 1), entry(0, 4096, range: 63))
        #expect(map.count == 5)
        #expect(map.entries.map(\.offset) == [8, 16, 24, 16, 0])
    }

    @Test("An entry for every range overlaps those of each")
    func everyRange() throws {
        let (all, one) = (entry(0, 16, range: nil), entry(8, 1, range: 7))
        #expect(throws: ShadowMap.Fault.overlap(one, all)) { try map(all, one) }
        #expect(throws: ShadowMap.Fault.overlap(all, one)) { try map(one, all) }
        #expect(try map(all, entry(16, 1, range: 7)).count == 2)
    }

    @Test("More entries than the kernel takes are refused")
    func tooMany() throws {
        var map = ShadowMap(imageSize: 4096)
        for index in 0..<UInt64(ShadowMap.maximumCount) { try map.add(entry(8 * index, 8)) }
        #expect(throws: ShadowMap.Fault.tooMany(4097)) { try map.add(entry(1 << 40, 8)) }
        #expect(map.count == 4096)
    }

    @Test("A refused entry leaves the map as it was")
    func unchanged() throws {
        var map = try map(entry(0, 8))
        for bad in [entry(4, 8), entry(8, 0), entry(8, 8, image: 4096)] { try? map.add(bad) }
        #expect(map.entries == [entry(0, 8)])
    }

    @Test("A load is found within one entry, of its widths, and aligned in the range and in the image")
    func lookUp() throws {
        let map = try map(
            entry(0x10, 8, image: 0x100), entry(0x18, 8, image: 0x200, widths: [.four]),
            entry(0x21, 9, image: 0x301), entry(0x40, 16, image: 0x404, range: 1))
        func find(_ offset: UInt64, _ length: Int, in range: UInt32 = 0) -> UInt64? {
            map.imageOffset(of: offset, length: length, in: range)
        }
        #expect(find(0x10, 8) == 0x100)
        #expect(find(0x14, 4) == 0x104)
        #expect(find(0x17, 1) == 0x107)
        // Unaligned, beyond the end, in two entries, in none, in another range.
        #expect(find(0x11, 2) == nil)
        #expect(find(0x0c, 8) == nil)
        #expect(find(0x0f, 1) == nil)
        #expect(find(0x29, 2) == nil)
        #expect(find(0x2a, 1) == nil)
        #expect(find(0x10, 8, in: 1) == nil)
        #expect(find(.max, 1) == nil)
        // Widths.
        #expect(find(0x18, 4) == 0x200)
        #expect(find(0x18, 8) == nil)
        #expect(find(0x18, 1) == nil)
        for length in [-1, 0, 3, 5, 16, Int.max] { #expect(find(0x10, length) == nil) }
        // Aligned in the range alone.
        #expect(find(0x40, 4, in: 1) == 0x404)
        #expect(find(0x40, 8, in: 1) == nil)
        #expect(find(0x44, 8, in: 1) == nil)
    }

    @Test("Every load that is found lies in an entry, whatever the entries", arguments: [1, 2, 3] as [UInt64])
    func againstAModel(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var map = ShadowMap(imageSize: 256, maximumRanges: 3)
        for _ in 0..<40 {
            try? map.add(
                entry(
                    .random(in: 0..<128, using: &random), .random(in: 0..<20, using: &random),
                    image: .random(in: 0..<256, using: &random),
                    range: Bool.random(using: &random) ? nil : .random(in: 0..<4, using: &random),
                    widths: ShadowMap.Widths(rawValue: .random(in: 0..<17, using: &random))))
        }
        let entries = map.entries
        #expect(!entries.isEmpty)
        for range in UInt32(0)..<3 {
            for offset in UInt64(0)..<150 {
                for length in [1, 2, 4, 8] {
                    let holding = entries.first { entry in
                        (entry.rangeID ?? range) == range && entry.offset <= offset
                            && offset + UInt64(length) <= entry.offset + entry.length
                    }
                    let place = holding.map { $0.imageOffset + (offset - $0.offset) }
                    let served =
                        holding?.widths.contains(ShadowMap.Widths(rawValue: UInt32(length))) == true
                        && offset % UInt64(length) == 0 && place.map { $0 % UInt64(length) == 0 } == true
                    #expect(map.imageOffset(of: offset, length: length, in: range) == (served ? place : nil))
                }
            }
        }
    }
}
