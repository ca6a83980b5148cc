// SPDX-License-Identifier: Apache-2.0
//
// The memory from which the kernel answers loads without a request.

public import LinuxSystem
import Synchronization
public import SystemPackage

/// Memory that holds registers' values, where a guest's loads find them: the shadow image of a device.
///
/// An emulation process stores values into it, and the kernel loads them while the guest runs: every access here, as
/// every load of the guest's, is single-copy atomic, 1, 2, 4 or 8 bytes wide and aligned to that. A guest that waited
/// for the reply to its store sees what was stored here before that reply was given.
///
/// Any number of threads may load and store at any time. Whatever offset is asked for, nothing here traps.
@safe public struct ShadowImage: ~Copyable, Sendable {
    private let memory: MemoryMapping

    /// Makes an image of its own that no kernel looks into, zeroed: for transports without shadow memory. C: `mmap`.
    ///
    /// - Parameter size: bytes, at least 1.
    /// - Throws: errno of the call: EINVAL for 0, ENOMEM.
    public init(size: Int) throws(Errno) {
        memory = try MemoryMapping(anonymous: size)
    }

    /// Maps an image, or the beginning of one, through a descriptor of its memory. C: `mmap(MAP_SHARED)`.
    ///
    /// - Parameters:
    ///   - descriptor: an emulation descriptor, or a file; the mapping outlives it.
    ///   - size: bytes.
    /// - Throws: errno of the call: EINVAL beyond the end of the device's image, ENODEV if the virtual machine is gone.
    public init(mapping descriptor: borrowing OwnedDescriptor, size: Int) throws(Errno) {
        memory = try MemoryMapping(mapping: descriptor, count: size)
    }

    /// Size in bytes.
    public var size: Int { memory.count }

    /// Why there is no such access to an image.
    public enum Fault: Error, Hashable, Sendable, CustomStringConvertible {
        /// A length that is none of 1, 2, 4 and 8.
        case unsupportedLength(Int)
        /// An offset that is no multiple of the length.
        case unaligned(offset: UInt64, length: Int)
        /// An access beyond the image's end.
        case outside(offset: UInt64, length: Int, size: Int)

        /// What was asked for, and what there is.
        public var description: String {
            switch self {
            case .unsupportedLength(let length):
                "shadow image: \(length) bytes at once; it has to be 1, 2, 4 or 8"
            case .unaligned(let offset, let length):
                "shadow image: \(length) bytes at 0x\(String(offset, radix: 16)), which is no multiple of that"
            case .outside(let offset, let length, let size):
                "shadow image: \(length) bytes at 0x\(String(offset, radix: 16)) are beyond its \(size) bytes"
            }
        }
    }

    /// Reads a value, whole; what its writer stored before it is seen as well (an acquiring load).
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the image, a multiple of `length`.
    ///   - length: 1, 2, 4 or 8 bytes.
    /// - Returns: the value, zero-extended.
    /// - Throws: ``Fault``.
    public func load(at offset: UInt64, length: Int) throws(Fault) -> UInt64 {
        let address = unsafe try pointer(offset, length)
        // SAFETY: inside the mapping, aligned, and only ever accessed atomically.
        return switch length {
        case 1: UInt64(unsafe address.assumingMemoryBound(to: Atomic<UInt8>.self).pointee.load(ordering: .acquiring))
        case 2: UInt64(unsafe address.assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(ordering: .acquiring))
        case 4: UInt64(unsafe address.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring))
        default: unsafe address.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .acquiring)
        }
    }

    /// Writes a value, whole; whoever sees it sees what this thread stored before (a releasing store).
    ///
    /// A reply that is given afterwards publishes it: the vCPU that waits for the reply loads this value, or a later
    /// one.
    ///
    /// - Parameters:
    ///   - value: what to store, of which the lowest `length` bytes count.
    ///   - offset: bytes from the start of the image, a multiple of `length`.
    ///   - length: 1, 2, 4 or 8 bytes.
    /// - Throws: ``Fault``; nothing is stored then.
    public func store(_ value: UInt64, at offset: UInt64, length: Int) throws(Fault) {
        let address = unsafe try pointer(offset, length)
        // SAFETY: inside the mapping, aligned, and only ever accessed atomically.
        switch length {
        case 1:
            unsafe address.assumingMemoryBound(to: Atomic<UInt8>.self).pointee
                .store(UInt8(truncatingIfNeeded: value), ordering: .releasing)
        case 2:
            unsafe address.assumingMemoryBound(to: Atomic<UInt16>.self).pointee
                .store(UInt16(truncatingIfNeeded: value), ordering: .releasing)
        case 4:
            unsafe address.assumingMemoryBound(to: Atomic<UInt32>.self).pointee
                .store(UInt32(truncatingIfNeeded: value), ordering: .releasing)
        default:
            unsafe address.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(value, ordering: .releasing)
        }
    }

    /// Copies this image's first bytes to another one, as far as both go: words of 8, and the rest by single bytes.
    package func copy(to other: borrowing ShadowImage) {
        let end = UInt64(min(size, other.size))
        var offset: UInt64 = 0
        while offset < end {
            let length = end - offset >= 8 ? 8 : 1
            // Both images have these bytes.
            if let value = try? load(at: offset, length: length) {
                try? other.store(value, at: offset, length: length)
            }
            offset += UInt64(length)
        }
    }

    /// Copies the first bytes out, as far as there is room. A value that another thread stores meanwhile may be torn.
    package func copy(to bytes: inout MutableRawSpan, count: Int) {
        unsafe bytes.withUnsafeMutableBytes { bytes in
            // SAFETY: no more than both have.
            let count = min(count, size, bytes.count)
            unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(start: memory.baseAddress, count: count))
        }
    }

    /// Copies bytes to the beginning, as far as there is room; for an image that nobody looks into yet.
    package func copy(from bytes: RawSpan, count: Int) {
        unsafe bytes.withUnsafeBytes { bytes in
            // SAFETY: no more than both have.
            let count = min(count, size, bytes.count)
            unsafe UnsafeMutableRawBufferPointer(start: memory.baseAddress, count: count)
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(count)))
        }
    }

    private func pointer(_ offset: UInt64, _ length: Int) throws(Fault) -> UnsafeMutableRawPointer {
        guard length == 1 || length == 2 || length == 4 || length == 8 else { throw .unsupportedLength(length) }
        guard offset % UInt64(length) == 0 else { throw .unaligned(offset: offset, length: length) }
        guard offset < UInt64(size), UInt64(length) <= UInt64(size) - offset else {
            throw .outside(offset: offset, length: length, size: size)
        }
        return unsafe memory.baseAddress + Int(offset)
    }
}
