// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer asks of random numbers.

import SeededRandom

extension SeededGenerator {
    /// A number below `bound`.
    mutating func below(_ bound: Int) -> Int {
        Int(next() % UInt64(max(1, bound)))
    }

    /// True once in `times`.
    mutating func oneIn(_ times: Int) -> Bool {
        below(times) == 0
    }

    /// One of them; there must be some.
    mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[below(elements.count)]
    }
}

/// A number that depends on all bits of `value`.
func scrambled(_ value: UInt64) -> UInt64 {
    var value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
}
