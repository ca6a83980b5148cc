// SPDX-License-Identifier: Apache-2.0
//
// Access and its arithmetic.

import DeviceEmulation
import Testing

@Suite("Access")
struct AccessTests {
    @Test("A position is given only if the whole access lies in the window")
    func position() {
        #expect(Access(0x10, .four).position(in: 0x10..<0x14) == 0)
        #expect(Access(0x14, .four).position(in: 0x10..<0x18) == 4)
        #expect(Access(0x10, .eight).position(in: 0x10..<0x14) == nil)
        #expect(Access(0x0c, .four).position(in: 0x10..<0x14) == nil)
        #expect(Access(0x14, .one).position(in: 0x10..<0x14) == nil)
        #expect(Access(0, .one).position(in: 0..<0) == nil)
    }

    @Test("Windows and offsets at the end of 64 bits do not trap")
    func edges() {
        #expect(Access(.max, .one).position(in: 0..<(.max)) == nil)
        #expect(Access(.max - 1, .one).position(in: 0..<(.max)) == nil, "no Int holds that position")
        #expect(Access(.max - 1, .one).position(in: (.max - 1)..<(.max)) == 0)
        #expect(Access(.max, .eight).position(in: 0..<(.max)) == nil)
    }
}
