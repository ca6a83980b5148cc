// SPDX-License-Identifier: Apache-2.0
//
// What came of running guest programs.

/// What guests did, and whether every value was right.
public struct GuestReport: Hashable, Sendable {
    /// Accesses that guests' instructions made.
    public internal(set) var accesses = 0
    /// Requests that the device got for them, those for reading back included.
    public internal(set) var requests = RequestCounts()
    /// Accesses that came to the VMM instead, which answered them with all-ones or dropped them.
    public internal(set) var unforwarded = RequestCounts()
    /// Values that were compared with what they had to be.
    public internal(set) var checks = 0
    /// How many of them were wrong.
    public internal(set) var mismatchCount = 0
    /// The first of those, in words.
    public internal(set) var mismatches: [String] = []
    /// How long the guests ran, reading back included.
    public internal(set) var elapsed = Duration.zero

    /// Whether everything was compared and was right.
    public var allHeld: Bool { checks > 0 && mismatchCount == 0 }

    /// Mismatches to describe at most.
    private static let described = 10

    /// Compares a value with what it has to be.
    mutating func check(_ value: UInt64, _ expected: UInt64, _ what: @autoclosure () -> String) {
        checks += 1
        guard value != expected else { return }
        mismatchCount += 1
        guard mismatches.count < Self.described else { return }
        let (got, wanted) = (String(value, radix: 16), String(expected, radix: 16))
        mismatches.append("\(what()): 0x\(got) instead of 0x\(wanted)")
    }

    /// Adds what another vCPU did at the same time.
    mutating func merge(_ other: GuestReport) {
        accesses += other.accesses
        requests += other.requests
        checks += other.checks
        mismatchCount += other.mismatchCount
        mismatches += other.mismatches.prefix(Self.described - mismatches.count)
    }
}
