// SPDX-License-Identifier: Apache-2.0
//
// What a guest program left in its RAM.

/// The values that a guest program loaded, and its checksum over them.
public struct GuestResults: Hashable, Sendable {
    /// Whether the program came to its end.
    public let isFinished: Bool
    /// The values loaded, zero-extended, in order; a 16-byte load gives two, the low half first.
    public let values: [UInt64]
    /// The guest's own checksum over them, as ``checksum(of:)`` computes it.
    public let checksum: UInt64

    /// For each value in turn: rotate left by one bit, then add the value, beginning with 0.
    public static func checksum(of values: some Sequence<UInt64>) -> UInt64 {
        values.reduce(0) { sum, value in (sum << 1 | sum >> 63) &+ value }
    }
}
