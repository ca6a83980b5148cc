// SPDX-License-Identifier: Apache-2.0
//
// Memory that a guest sees at a guest physical address and that this process reads and writes by that address.

import CKVM
public import LinuxSystem
import SystemPackage

/// Guest RAM: pages of this process, and the guest physical address of the first one.
///
/// The guest sees them from ``VirtualMachine/setMemory(_:slot:options:)`` on. The virtual machine keeps the object as
/// long as the slot uses it, and every vCPU keeps its virtual machine, so the pages outlive whatever can reach them.
///
/// Any address may be given, also one that a guest chose: outside the memory an access throws and does nothing. The
/// guest may write at any time, so take a value once and check what was taken.
@safe public final class GuestMemory: Sendable {
    /// Guest physical address of the first byte.
    public let address: UInt64
    private let mapping: MemoryMapping

    /// Maps zeroed memory that belongs to this process. C: `mmap(MAP_ANONYMOUS)`.
    ///
    /// - Parameters:
    ///   - address: guest physical address of the first byte, a multiple of the page size.
    ///   - count: bytes, a multiple of the page size and not 0.
    /// - Throws: EINVAL for an unaligned address or size, or an end above 2^64; ENOMEM.
    public convenience init(at address: UInt64, count: Int) throws(KVMError) {
        try Self.check(address, count)
        let mapping: MemoryMapping
        do throws(Errno) {
            mapping = try MemoryMapping(anonymous: count)
        } catch {
            throw KVMError(call: "mmap guest memory", errno: error)
        }
        self.init(at: address, adopting: mapping)
    }

    /// Maps part of a file, a memfd say, that other processes can map as well. C: `mmap(MAP_SHARED)`.
    ///
    /// - Parameters:
    ///   - address: guest physical address of the first byte, a multiple of the page size.
    ///   - descriptor: the file, which has to be large enough; the mapping outlives the descriptor.
    ///   - offset: where to begin in it, a multiple of the page size.
    ///   - count: bytes, a multiple of the page size and not 0.
    /// - Throws: EINVAL for an unaligned argument, or an end above 2^64; errno of the call.
    public convenience init(
        at address: UInt64, mapping descriptor: borrowing OwnedDescriptor, offset: Int = 0, count: Int
    ) throws(KVMError) {
        try Self.check(address, count)
        let mapping: MemoryMapping
        do throws(Errno) {
            mapping = try MemoryMapping(mapping: descriptor, offset: offset, count: count)
        } catch {
            throw KVMError(call: "mmap guest memory", errno: error)
        }
        self.init(at: address, adopting: mapping)
    }

    private init(at address: UInt64, adopting mapping: consuming MemoryMapping) {
        self.address = address
        self.mapping = mapping
    }

    private static func check(_ address: UInt64, _ count: Int) throws(KVMError) {
        let pageMask = UInt64(pageSize - 1)
        guard count > 0, (address | UInt64(count)) & pageMask == 0,
            !address.addingReportingOverflow(UInt64(count) - 1).overflow
        else { throw KVMError(call: "mmap guest memory", errno: .invalidArgument) }
    }

    /// The size of an x86 page in bytes: slots begin and end on one.
    public static let pageSize = 4096

    /// Size in bytes.
    public var count: Int { mapping.count }

    /// Where the memory is in this process; valid as long as this object.
    @unsafe public var baseAddress: UnsafeMutableRawPointer { unsafe mapping.baseAddress }

    /// Whether all of the `count` bytes from `address` on are in this memory.
    public func contains(_ address: UInt64, count: Int) -> Bool {
        offset(of: address, count: count) != nil
    }

    /// Reads an integer, at any alignment.
    ///
    /// - Throws: ``Fault`` unless all of it is in this memory.
    public func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type = Value.self, at address: UInt64
    ) throws(Fault) -> Value {
        unsafe try pointer(address, MemoryLayout<Value>.size).loadUnaligned(as: Value.self)
    }

    /// Writes an integer, at any alignment.
    ///
    /// - Throws: ``Fault`` unless all of it is in this memory.
    public func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at address: UInt64) throws(Fault) {
        unsafe try pointer(address, MemoryLayout<Value>.size).storeBytes(of: value, as: Value.self)
    }

    /// Reads a word in one access; what the guest stored before that word is then seen as well.
    ///
    /// - Parameter address: a multiple of 8.
    /// - Throws: ``Fault`` unless all of it is in this memory and the address is aligned.
    public func loadAcquiring(at address: UInt64) throws(Fault) -> UInt64 {
        unsafe ckvm_load_acquire_64(try pointer(address, 8, alignment: 8))
    }

    /// Writes a word in one access; a guest that sees it sees everything that this thread wrote before.
    ///
    /// - Parameter address: a multiple of 8.
    /// - Throws: ``Fault`` unless all of it is in this memory and the address is aligned.
    public func storeReleasing(_ value: UInt64, at address: UInt64) throws(Fault) {
        unsafe ckvm_store_release_64(try pointer(address, 8, alignment: 8), value)
    }

    /// Copies bytes out.
    ///
    /// - Throws: ``Fault`` unless all of them are in this memory.
    public func bytes(at address: UInt64, count: Int) throws(Fault) -> [UInt8] {
        let start = unsafe try pointer(address, count)
        return unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: count))
    }

    /// Copies bytes in.
    ///
    /// - Throws: ``Fault`` unless there is room for all of them; nothing is written then.
    public func copy(_ bytes: RawSpan, to address: UInt64) throws(Fault) {
        let start = unsafe try pointer(address, bytes.byteCount)
        unsafe bytes.withUnsafeBytes { source in
            guard let first = source.baseAddress else { return }
            unsafe start.copyMemory(from: first, byteCount: source.count)
        }
    }

    /// Copies bytes in.
    ///
    /// - Throws: ``Fault`` unless there is room for all of them; nothing is written then.
    public func copy(_ bytes: [UInt8], to address: UInt64) throws(Fault) {
        unsafe try copy(bytes.span.bytes, to: address)
    }

    /// Sets `count` bytes to `value`.
    ///
    /// - Throws: ``Fault`` unless all of them are in this memory; nothing is written then.
    public func fill(_ value: UInt8 = 0, at address: UInt64, count: Int) throws(Fault) {
        _ = unsafe try pointer(address, count).initializeMemory(as: UInt8.self, repeating: value, count: count)
    }

    /// Gives `body` the bytes themselves, for a loader to read a file into say.
    ///
    /// - Throws: ``Fault`` unless all of them are in this memory, and whatever `body` throws.
    @unsafe public func withUnsafeMutableBytes<Result>(
        at address: UInt64, count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Result
    ) throws -> Result {
        let start = unsafe try pointer(address, count)
        return unsafe try body(UnsafeMutableRawBufferPointer(start: start, count: count))
    }

    /// An access to guest memory outside of it, or unaligned where alignment counts.
    public struct Fault: Error, Hashable, Sendable, CustomStringConvertible {
        /// The guest physical address that was asked for.
        public let address: UInt64
        /// How many bytes were asked for.
        public let count: Int

        /// Names an access that cannot be.
        public init(address: UInt64, count: Int) {
            self.address = address
            self.count = count
        }

        /// What was asked for.
        public var description: String {
            "guest memory: \(count) bytes at 0x\(String(address, radix: 16)) are outside of it or not aligned"
        }
    }

    private func pointer(
        _ address: UInt64, _ count: Int, alignment: UInt64 = 1
    ) throws(Fault) -> UnsafeMutableRawPointer {
        guard address % alignment == 0, let offset = offset(of: address, count: count) else {
            throw Fault(address: address, count: count)
        }
        // SAFETY: offset + count lies inside the mapping, which lives as long as this object.
        return unsafe mapping.baseAddress + offset
    }

    private func offset(of address: UInt64, count: Int) -> Int? {
        guard address >= self.address, count >= 0 else { return nil }
        let offset = address - self.address
        guard offset <= UInt64(mapping.count), UInt64(count) <= UInt64(mapping.count) - offset else { return nil }
        return Int(offset)
    }
}
