// SPDX-License-Identifier: Apache-2.0
//
// What a guest program left in its RAM.

import KVM

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

extension GuestResults {
    /// The first words come before the values.
    static let headerCount = 64

    /// Reads what is at `start`, whatever a guest has written there.
    ///
    /// - Parameters:
    ///   - memory: the guest's.
    ///   - start: a multiple of 8.
    ///   - capacity: how many values there is room for.
    /// - Throws: ``KVM/GuestMemory/Fault`` for a place outside of the memory.
    init(in memory: GuestMemory, at start: UInt64, capacity: Int) throws(GuestMemory.Fault) {
        // The end first: what it says comes after everything else.
        let isFinished = try memory.loadAcquiring(at: start + 16) != 0
        let count = try memory.load(UInt64.self, at: start)
        let checksum = try memory.load(UInt64.self, at: start + 8)
        var values: [UInt64] = []
        // The guest's own count is not to be trusted with more than there is room for.
        for position in 0..<min(count, UInt64(capacity)) {
            values.append(try memory.load(at: start + UInt64(Self.headerCount) + 8 * position))
        }
        self.init(isFinished: isFinished, values: values, checksum: checksum)
    }
}
