// SPDX-License-Identifier: Apache-2.0
//
// What the servers of a device have done so far.

/// What the servers of one device have done so far: a consistent snapshot, ``SharedDevice/counters``.
///
/// All counts wrap around rather than trap.
public struct ServerCounters: Sendable, Hashable {
    /// Loads that were replied to, refused ones included.
    public internal(set) var loads: UInt64 = 0
    /// Stores that were replied to, refused ones included.
    public internal(set) var stores: UInt64 = 0
    /// Requests that reached the device in more than one part.
    public internal(set) var splits: UInt64 = 0
    /// Accesses (parts of requests) to where there is nothing.
    public internal(set) var noRegister: UInt64 = 0
    /// Accesses of a width that the register does not have.
    public internal(set) var unsupportedWidth: UInt64 = 0
    /// Stores to registers that can only be loaded.
    public internal(set) var readOnly: UInt64 = 0
    /// Loads from registers that can only be stored to.
    public internal(set) var writeOnly: UInt64 = 0
    /// Requests that no guest can make (a length of 0, a range's end beyond 2^64), which no device saw. They are in
    /// neither ``loads`` nor ``stores``.
    public internal(set) var malformed: UInt64 = 0
    /// Requests that another emulation process had read before.
    public internal(set) var redelivered: UInt64 = 0
    /// Replies that came too late: the kernel had given the request up.
    public internal(set) var staleReplies: UInt64 = 0
    /// How many times requests were fetched.
    public internal(set) var batches: UInt64 = 0
    /// Most requests that came at once.
    public internal(set) var largestBatch: Int = 0

    /// All counts zero.
    public init() {}

    /// All requests that were replied to.
    public var requests: UInt64 { loads &+ stores &+ malformed }
    /// Accesses that the device refused, for whatever reason.
    public var faults: UInt64 { noRegister &+ unsupportedWidth &+ readOnly &+ writeOnly }

    /// Adds what was counted elsewhere.
    mutating func add(_ more: ServerCounters) {
        loads &+= more.loads
        stores &+= more.stores
        splits &+= more.splits
        noRegister &+= more.noRegister
        unsupportedWidth &+= more.unsupportedWidth
        readOnly &+= more.readOnly
        writeOnly &+= more.writeOnly
        malformed &+= more.malformed
        redelivered &+= more.redelivered
        staleReplies &+= more.staleReplies
        batches &+= more.batches
        largestBatch = max(largestBatch, more.largestBatch)
    }

    /// Counts a refused access.
    mutating func count(_ fault: AccessFault) {
        switch fault {
        case .noRegister: noRegister &+= 1
        case .unsupportedWidth: unsupportedWidth &+= 1
        case .readOnly: readOnly &+= 1
        case .writeOnly: writeOnly &+= 1
        }
    }
}
