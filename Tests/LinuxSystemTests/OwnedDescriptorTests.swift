// SPDX-License-Identifier: Apache-2.0
//
// Who closes a descriptor, and when.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

@Suite("Owned descriptor")
struct OwnedDescriptorTests {
    @Test("the end of its life closes it")
    func closesAtEnd() throws {
        let pipe = try Pipe()
        do {
            let writer = OwnedDescriptor(adopting: pipe.writer)
            let open = try !pipe.isWriterClosed()
            #expect(open)
            _ = writer.rawValue
        }
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("close closes it now, once")
    func closesNow() throws {
        let pipe = try Pipe()
        let writer = OwnedDescriptor(adopting: pipe.writer)
        try writer.close()
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("close reports what close(2) says")
    func closeReports() {
        // No descriptor has this number: the limit on open files is far below.
        #expect(errno { () throws(Errno) in try OwnedDescriptor(adopting: CInt.max).close() } == .badFileDescriptor)
    }

    @Test("release leaves it open, and the caller's to close")
    func releases() throws {
        let pipe = try Pipe()
        let number = OwnedDescriptor(adopting: pipe.writer).release()
        #expect(number == pipe.writer)
        let open = try !pipe.isWriterClosed()
        #expect(open)
        try OwnedDescriptor(adopting: number).close()
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("a duplicate is another number for the same file, close-on-exec, with a life of its own")
    func duplicates() throws {
        let pipe = try Pipe()
        let first = OwnedDescriptor(adopting: pipe.writer)
        let second = try first.duplicate()
        #expect(second.rawValue != pipe.writer)
        #expect(fcntl(second.rawValue, F_GETFD) & FD_CLOEXEC != 0)
        try first.close()
        let open = try !pipe.isWriterClosed()
        #expect(open)
        try second.close()
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("an opened file is close-on-exec")
    func opens() throws {
        let null = try OwnedDescriptor.open("/dev/null", .readOnly)
        #expect(fcntl(null.rawValue, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test("a file that is not there is ENOENT, a file below a file ENOTDIR")
    func opensNothing() {
        #expect(
            errno { () throws(Errno) in _ = try OwnedDescriptor.open("/nonexistent", .readOnly) }
                == .noSuchFileOrDirectory)
        #expect(errno { () throws(Errno) in _ = try OwnedDescriptor.open("/dev/null/x", .readOnly) } == .notDirectory)
    }

    @Test("an ioctl that the file does not know is ENOTTY")
    func unknownCommand() throws {
        let null = try OwnedDescriptor.open("/dev/null", .readWrite)
        var argument: UInt64 = 0
        #expect(errno { () throws(Errno) in try null.ioctl(0xAEFF) } == .init(rawValue: ENOTTY))
        #expect(errno { () throws(Errno) in try null.ioctl(0xAEFF, &argument) } == .init(rawValue: ENOTTY))
    }

    @Test("an ioctl writes into its argument")
    func argumentComesBack() throws {
        let pipe = try Pipe()
        let writer = OwnedDescriptor(adopting: pipe.writer)
        _ = try writer.fileDescriptor.writeAll([1, 2, 3])
        var waiting: CInt = 0
        try pipe.reader.ioctl(UInt(FIONREAD), &waiting)
        #expect(waiting == 3)
    }
}
