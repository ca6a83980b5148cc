// SPDX-License-Identifier: Apache-2.0
//
// The kernel did something that the model has no room for.

/// What was expected, and what came.
public struct Discrepancy: Error, Hashable, Sendable, CustomStringConvertible {
    /// One sentence for a reader who has the sequence of operations before them.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Throws unless `condition` holds.
func demand(_ condition: Bool, _ complaint: @autoclosure () -> String) throws(Discrepancy) {
    if !condition { throw Discrepancy(complaint()) }
}

/// A number as it is written in complaints.
func hex(_ value: some BinaryInteger) -> String {
    "0x" + String(value, radix: 16)
}
