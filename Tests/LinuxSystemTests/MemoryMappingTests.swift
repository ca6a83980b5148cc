// SPDX-License-Identifier: Apache-2.0
//
// What is mapped, and for how long.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

@Suite("Memory mapping")
struct MemoryMappingTests {
    private static let page = sysconf(CInt(_SC_PAGESIZE))

    @Test("anonymous memory is zero and can be written, private and shared", arguments: [false, true])
    func anonymous(shared: Bool) throws {
        let memory = try MemoryMapping(anonymous: Self.page, shared: shared)
        #expect(memory.count == Self.page)
        let base = unsafe memory.baseAddress.assumingMemoryBound(to: UInt8.self)
        #expect((0..<memory.count).allSatisfy { unsafe base[$0] == 0 })
        unsafe base[memory.count - 1] = 0xA5
        #expect(unsafe base[memory.count - 1] == 0xA5)
    }

    @Test("nothing to map is EINVAL, more than the address space ENOMEM")
    func refused() {
        #expect(errno { () throws(Errno) in _ = try MemoryMapping(anonymous: 0) } == .invalidArgument)
        #expect(errno { () throws(Errno) in _ = try MemoryMapping(anonymous: 1 << 60) } == .noMemory)
    }

    @Test("two mappings of a file show each other's writes, also after the descriptor is closed")
    func sharedFile() throws {
        let file = try Self.memoryFile(pages: 2)
        let whole = try MemoryMapping(mapping: file, count: 2 * Self.page)
        let second = try MemoryMapping(mapping: file, offset: Self.page, count: Self.page)
        try file.close()
        unsafe whole.baseAddress.storeBytes(of: 0x1122_3344, toByteOffset: Self.page + 8, as: UInt32.self)
        #expect(unsafe second.baseAddress.load(fromByteOffset: 8, as: UInt32.self) == 0x1122_3344)
    }

    @Test("an offset inside a page is EINVAL")
    func unaligned() throws {
        let file = try Self.memoryFile(pages: 1)
        let error = errno { () throws(Errno) in _ = try MemoryMapping(mapping: file, offset: 1, count: 16) }
        #expect(error == .invalidArgument)
    }

    @Test("what cannot be mapped is ENODEV")
    func unmappable() throws {
        let event = try EventDescriptor()
        let error = errno { () throws(Errno) in _ = try MemoryMapping(mapping: event.descriptor, count: 16) }
        #expect(error == .operationNotSupportedByDevice)
    }

    @Test("the end of its life unmaps it: mappings made and dropped do not add up")
    func doesNotLeak() throws {
        let before = try Self.mappedPages()
        for _ in 0..<200 { _ = try MemoryMapping(anonymous: 1 << 24) }
        let after = try Self.mappedPages()
        // 200 leaked mappings of 16 MiB would be 819,200 pages; other tests map far less.
        #expect(after - before < 400_000)
    }

    private static func memoryFile(pages: Int) throws -> OwnedDescriptor {
        var name = Array("/tmp/mmiofd-mapping-XXXXXX".utf8CString)
        let file = OwnedDescriptor(adopting: try systemCall(onInterrupt: .retry) { unsafe mkstemp(&name) })
        _ = unsafe unlink(name)
        try systemCall(onInterrupt: .retry) { ftruncate(file.rawValue, pages * page) }
        return file
    }

    /// The size of this process's address space in pages (/proc/self/statm).
    private static func mappedPages() throws -> Int {
        let file = try OwnedDescriptor.open("/proc/self/statm", .readOnly)
        var text = [UInt8](repeating: 0, count: 64)
        let count = try systemCall(onInterrupt: .retry) { unsafe read(file.rawValue, &text, text.count) }
        let first = String(decoding: text.prefix(count), as: UTF8.self).prefix { $0 != " " }
        return try #require(Int(first))
    }
}
