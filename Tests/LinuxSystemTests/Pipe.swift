// SPDX-License-Identifier: Apache-2.0
//
// A pipe, whose reader sees when the last copy of its writing end is closed.

import Glibc
import LinuxSystem
import SystemPackage

/// Both ends of a pipe, close-on-exec.
struct Pipe: ~Copyable {
    let reader: OwnedDescriptor
    /// The writing end's number; whoever takes it closes it.
    let writer: CInt

    init() throws {
        let ends = try FileDescriptor.pipe()
        let numbers = [ends.readEnd.rawValue, ends.writeEnd.rawValue]
        for number in numbers { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
        _ = fcntl(numbers[0], F_SETFL, O_NONBLOCK)
        reader = OwnedDescriptor(adopting: numbers[0])
        writer = numbers[1]
    }

    /// Whether no copy of the writing end is open any more, in this process or in a message under way.
    func isWriterClosed() throws -> Bool {
        var byte: UInt8 = 0
        let count = unsafe read(reader.rawValue, &byte, 1)
        return count == 0
    }
}

/// The error that `body` throws; nil if it throws none.
func errno(of body: () throws(Errno) -> Void) -> Errno? {
    do {
        try body()
        return nil
    } catch {
        return error
    }
}
