// SPDX-License-Identifier: Apache-2.0
//
// Single accesses of a guest, when the host asks for them.

import Glibc
import KVM

/// Asks a guest that runs ``GuestProgram/mailbox`` for one access after the other. One thread at a time may ask.
public struct GuestMailbox: Sendable {
    let memory: GuestMemory
    let address: UInt64

    /// One access that was asked for.
    public struct Ticket: Hashable, Sendable {
        let sequence: UInt64
    }

    /// Something that the mailbox could not do.
    public enum Failure: Error, Hashable, Sendable {
        /// No instruction of the guest's makes this access.
        case impossible(GuestAccess)
        /// The guest has not done the access yet.
        case notDone(GuestAccess)
    }

    /// Asks for an access and does not wait for it; the one before must be done.
    ///
    /// - Throws: ``Failure/impossible(_:)`` for a length that the bus does not have.
    public func post(_ access: GuestAccess) throws -> Ticket {
        guard let command = Self.command(access) else { throw Failure.impossible(access) }
        try memory.store(access.address, at: address + 16)
        try memory.store(UInt64(truncatingIfNeeded: access.value), at: address + 24)
        try memory.store(UInt64(truncatingIfNeeded: access.value >> 64), at: address + 32)
        return try post(command)
    }

    /// Whether an access is done: its instruction has been executed, which for a posted store says nothing of the
    /// device.
    public func isDone(_ ticket: Ticket) throws -> Bool {
        try memory.loadAcquiring(at: address + 64) >= ticket.sequence
    }

    /// What the last access loaded, zero-extended; call it once that is done.
    public func loadedValue() throws -> UInt128 {
        let low: UInt64 = try memory.load(at: address + 72)
        let high: UInt64 = try memory.load(at: address + 80)
        return UInt128(high) << 64 | UInt128(low)
    }

    /// Asks for an access and waits until it is done.
    ///
    /// - Parameters:
    ///   - access: what to do.
    ///   - timeout: how long to wait at most.
    /// - Returns: what a load loaded, zero-extended; for a store its value.
    /// - Throws: ``Failure``.
    @discardableResult
    public func perform(_ access: GuestAccess, timeout: Duration = .seconds(10)) throws -> UInt128 {
        let ticket = try post(access)
        let end = ContinuousClock.now + timeout
        while try !isDone(ticket) {
            guard ContinuousClock.now < end else { throw Failure.notDone(access) }
            usleep(50)
        }
        return try loadedValue()
    }

    /// Asks for the program's end and does not wait for it.
    public func end() throws {
        _ = try post(0)
    }

    private func post(_ command: UInt64) throws -> Ticket {
        try memory.store(command, at: address + 8)
        let sequence = try memory.loadAcquiring(at: address) &+ 1
        // Last: the guest sees everything above with it.
        try memory.storeReleasing(sequence, at: address)
        return Ticket(sequence: sequence)
    }

    /// The number that commands.h has for an access.
    static func command(_ access: GuestAccess) -> UInt64? {
        switch (access.bus, access.kind, access.length) {
        case (.memory, .load, 16): return 15
        case (.memory, .store, 16): return 16
        case (let bus, let kind, let length):
            guard let width = GuestProgram.Width(rawValue: length), bus == .memory || width != .eight else {
                return nil
            }
            let first: UInt64 = bus == .memory ? (kind == .load ? 1 : 5) : (kind == .load ? 9 : 12)
            return first + UInt64(length.trailingZeroBitCount)
        }
    }
}
