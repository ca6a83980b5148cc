// SPDX-License-Identifier: Apache-2.0
//
// Mapped memory with exactly one owner.

import CLinuxSystem
import Glibc
public import SystemPackage

/// Memory that mmap(2) gave and that is unmapped when this value goes.
///
/// Others may write the same pages at any time (a guest, a device, the kernel); a reader must take a value once and
/// check what it took.
@safe public struct MemoryMapping: ~Copyable, @unchecked Sendable {
    // SAFETY (@unchecked Sendable): the pages are plain shared memory, and the address is fixed for life.

    /// The mapping's first byte; valid as long as this value.
    @unsafe public let baseAddress: UnsafeMutableRawPointer
    /// The mapping's size in bytes.
    public let count: Int

    /// Maps zeroed memory that belongs to this process. C: `mmap(MAP_ANONYMOUS)`.
    ///
    /// - Parameters:
    ///   - count: bytes; the kernel rounds up to whole pages.
    ///   - shared: whether a process forked later sees the same pages.
    /// - Throws: errno of the call: EINVAL for 0 bytes, ENOMEM.
    public init(anonymous count: Int, shared: Bool = false) throws(Errno) {
        let sharing = (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE
        try self.init(count: count, flags: sharing, descriptor: -1, offset: 0)
    }

    /// Maps part of a file, readable and writable, shared. C: `mmap(MAP_SHARED)`.
    ///
    /// - Parameters:
    ///   - descriptor: what to map; the mapping outlives it.
    ///   - offset: where to begin in it, a multiple of the page size.
    ///   - count: bytes.
    /// - Throws: errno of the call.
    public init(mapping descriptor: borrowing OwnedDescriptor, offset: Int = 0, count: Int) throws(Errno) {
        try self.init(count: count, flags: MAP_SHARED, descriptor: descriptor.rawValue, offset: offset)
    }

    private init(count: Int, flags: CInt, descriptor: CInt, offset: Int) throws(Errno) {
        let address = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, flags, descriptor, offset)
        // MAP_FAILED is -1 as a pointer, which Swift does not import.
        guard let address = unsafe address, UInt(bitPattern: address) != UInt.max else {
            throw Errno(rawValue: errno)
        }
        unsafe baseAddress = unsafe address
        self.count = count
    }

    deinit {
        _ = unsafe munmap(baseAddress, count)
    }
}

extension OwnedDescriptor {
    /// Makes a file of zeroed memory without a name, for processes to share, close-on-exec. C: `memfd_create`.
    ///
    /// - Parameter count: its size in bytes.
    /// - Throws: errno of the calls: EMFILE, EINVAL for a negative size.
    public static func memoryFile(count: Int) throws(Errno) -> OwnedDescriptor {
        OwnedDescriptor(adopting: try systemCall(onInterrupt: .retry) { clinux_memory_file(count) })
    }

    /// Makes a file at least this long; what is added is zero. C: `fstat`, `ftruncate`.
    ///
    /// - Throws: errno of the calls.
    package func grow(to count: Int) throws(Errno) {
        var status = stat()
        try systemCall(onInterrupt: .retry) { unsafe fstat(rawValue, &status) }
        guard status.st_size < count else { return }
        try systemCall(onInterrupt: .retry) { ftruncate(rawValue, count) }
    }
}
