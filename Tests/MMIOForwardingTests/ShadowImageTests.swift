// SPDX-License-Identifier: Apache-2.0
//
// The shadow image: values of every width, and every access that it must refuse.

import MMIOForwarding
import SystemPackage
import Testing

@Suite("Shadow image")
struct ShadowImageTests {
    @Test("A new image is zero, and keeps a value of each width where it was put", arguments: [1, 2, 4, 8])
    func widths(length: Int) throws {
        let image = try ShadowImage(size: 64)
        #expect(try image.load(at: 16, length: 8) == 0)
        try image.store(0x8877_6655_4433_2211, at: 16, length: length)
        let mask = UInt64.max >> UInt64(64 - 8 * length)
        #expect(try image.load(at: 16, length: length) == 0x8877_6655_4433_2211 & mask)
        #expect(try image.load(at: 16, length: 8) == 0x8877_6655_4433_2211 & mask)
        #expect(try image.load(at: 8, length: 8) == 0)
        #expect(try image.load(at: 24, length: 8) == 0)
    }

    @Test("Values are little endian: a narrow load finds its part of a wide value")
    func parts() throws {
        let image = try ShadowImage(size: 8)
        try image.store(0x8877_6655_4433_2211, at: 0, length: 8)
        #expect(try image.load(at: 1, length: 1) == 0x22)
        #expect(try image.load(at: 2, length: 2) == 0x4433)
        #expect(try image.load(at: 4, length: 4) == 0x8877_6655)
        try image.store(0xaa, at: 7, length: 1)
        #expect(try image.load(at: 0, length: 8) == 0xaa77_6655_4433_2211)
    }

    @Test("An image of no bytes is EINVAL")
    func empty() {
        #expect(throws: Errno.invalidArgument) { _ = try ShadowImage(size: 0) }
    }

    @Test(
        "A length that is none of 1, 2, 4 and 8 is refused",
        arguments: [Int.min, -1, 0, 3, 5, 6, 7, 9, 16, Int.max])
    func lengths(length: Int) throws {
        let image = try ShadowImage(size: 64)
        let fault = ShadowImage.Fault.unsupportedLength(length)
        #expect(throws: fault) { try image.load(at: 0, length: length) }
        #expect(throws: fault) { try image.store(1, at: 0, length: length) }
        #expect(fault.description.contains("\(length) bytes"))
    }

    @Test(
        "An offset that is no multiple of the length is refused",
        arguments: [(1, 2), (2, 4), (63, 8), (12, 8)] as [(UInt64, Int)])
    func alignment(offset: UInt64, length: Int) throws {
        let image = try ShadowImage(size: 64)
        let fault = ShadowImage.Fault.unaligned(offset: offset, length: length)
        #expect(throws: fault) { try image.load(at: offset, length: length) }
        #expect(throws: fault) { try image.store(1, at: offset, length: length) }
    }

    @Test(
        "An access beyond the end is refused, whole or in part",
        arguments: [(60, 1), (60, 4), (56, 8), (1 << 32, 8), (UInt64.max, 1), (UInt64.max - 7, 8)] as [(UInt64, Int)])
    func bounds(offset: UInt64, length: Int) throws {
        // Not a multiple of 8: the last word is only there in part.
        let image = try ShadowImage(size: 60)
        let fault = ShadowImage.Fault.outside(offset: offset, length: length, size: 60)
        #expect(throws: fault) { try image.load(at: offset, length: length) }
        #expect(throws: fault) { try image.store(1, at: offset, length: length) }
        #expect(try image.load(at: 56, length: 4) == 0)
    }

    @Test("Any access at all throws or works, and never traps")
    func anything() throws {
        let image = try ShadowImage(size: 4096)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<10_000 {
            let offset = UInt64.random(in: 0...(.max), using: &random) >> UInt64.random(in: 0..<64, using: &random)
            let length = Int.random(in: -2...17, using: &random)
            let stored = (try? image.store(.max, at: offset, length: length)) != nil
            let valid = [1, 2, 4, 8].contains(length) && offset % UInt64(max(1, length)) == 0 && offset < 4096
            #expect(stored == valid)
        }
    }
}
