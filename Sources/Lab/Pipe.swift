// SPDX-License-Identifier: Apache-2.0
//
// pipe(2).

import Glibc
import LinuxSystem
import SystemPackage

/// A pipe, close-on-exec: what a child prints comes out of the reading end, which never blocks.
struct Pipe: ~Copyable {
    let reading: OwnedDescriptor
    let writing: OwnedDescriptor

    /// Makes a pipe. C: `pipe`.
    init() throws(LabError) {
        let ends: (readEnd: FileDescriptor, writeEnd: FileDescriptor)
        do {
            ends = try FileDescriptor.pipe()
        } catch {
            throw .systemCall("pipe", error as? Errno ?? .ioError)
        }
        for end in [ends.readEnd, ends.writeEnd] { _ = fcntl(end.rawValue, F_SETFD, FD_CLOEXEC) }
        reading = OwnedDescriptor(adopting: ends.readEnd.rawValue)
        writing = OwnedDescriptor(adopting: ends.writeEnd.rawValue)
    }

    /// Closes the writing end, so that the reading end sees when the last child has closed its own.
    consuming func closingWriting() -> OwnedDescriptor {
        reading
    }
}
