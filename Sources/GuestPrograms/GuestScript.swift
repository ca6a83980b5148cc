// SPDX-License-Identifier: Apache-2.0
//
// A list of accesses that a guest makes by itself while the host goes on writing it.

public import KVM

/// The list of accesses of a guest that runs ``GuestProgram/script``. One thread at a time may write and read it.
///
/// With nothing to do the guest exits as a store to ``GuestProgram/idlePort``: whoever runs it may wait there for more.
public struct GuestScript: Sendable {
    let memory: GuestMemory
    let address: UInt64
    /// How many accesses may be asked for and not yet done.
    public let capacity: Int

    private static let entries: UInt64 = 128
    private static let stride: UInt64 = 64

    private func entry(_ number: UInt64) -> UInt64 {
        address + Self.entries + Self.stride * (number % UInt64(capacity))
    }

    /// How many accesses have been asked for since the program was loaded.
    public func asked() throws(GuestMemory.Fault) -> UInt64 {
        try memory.load(at: address)
    }

    /// How many of them are done: their instructions have been executed.
    public func done() throws(GuestMemory.Fault) -> UInt64 {
        try memory.loadAcquiring(at: address + 64)
    }

    /// Asks for one more access.
    ///
    /// - Throws: ``GuestMailbox/Failure/impossible(_:)`` for a length that the bus does not have, or with
    ///   ``capacity`` accesses not done.
    public func append(_ access: GuestAccess) throws {
        guard let command = GuestMailbox.command(access) else { throw GuestMailbox.Failure.impossible(access) }
        guard try asked() - done() < UInt64(capacity) else { throw GuestMailbox.Failure.impossible(access) }
        let entry = entry(try asked())
        try memory.store(access.address, at: entry + 8)
        try memory.store(UInt64(truncatingIfNeeded: access.value), at: entry + 16)
        try memory.store(UInt64(truncatingIfNeeded: access.value >> 64), at: entry + 24)
        try append(command: command)
    }

    /// Asks for the program's end, after all accesses.
    public func end() throws(GuestMemory.Fault) {
        try append(command: 0)
    }

    private func append(command: UInt64) throws(GuestMemory.Fault) {
        let number = try asked()
        try memory.store(command, at: entry(number))
        // Last: the guest sees everything above with it.
        try memory.storeReleasing(number &+ 1, at: address)
    }

    /// What an access loaded, zero-extended: one that is done, of the last ``capacity`` that were asked for.
    ///
    /// - Parameter number: counts the accesses from 0.
    public func loadedValue(_ number: UInt64) throws(GuestMemory.Fault) -> UInt128 {
        let low: UInt64 = try memory.load(at: entry(number) + 32)
        let high: UInt64 = try memory.load(at: entry(number) + 40)
        return UInt128(high) << 64 | UInt128(low)
    }
}
