// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that are not what they were said to be.

import Glibc
package import LinuxSystem
package import SeededRandom
package import SystemPackage

/// Makes descriptors for a process that expects something else.
package enum HostileDescriptor {
    /// A descriptor of any kind that neither makes its holder wait nor goes on for ever: a file, a pipe or a socket with
    /// random bytes in it and nobody at the other end, an eventfd, a device.
    package static func random(using random: inout SeededGenerator) throws(Errno) -> OwnedDescriptor {
        let descriptor = try any(using: &random)
        try systemCall(onInterrupt: .retry) { fcntl(descriptor.rawValue, F_SETFL, O_NONBLOCK) }
        return descriptor
    }

    private static func any(using random: inout SeededGenerator) throws(Errno) -> OwnedDescriptor {
        switch Int.random(in: 0..<6, using: &random) {
        case 0: return try file(randomBytes(upTo: 400, using: &random))
        case 1: return try pipe(holding: randomBytes(upTo: 400, using: &random))
        case 2: return try socket(sending: &random)
        case 3: return try event(count: .random(in: 1...UInt64.max / 2, using: &random))
        default:
            let paths: [FilePath] = ["/dev/null", "/dev/full"]
            return try OwnedDescriptor.open(paths.randomElement(using: &random) ?? "/dev/null", .readWrite)
        }
    }

    /// A file with these bytes and no name, at its beginning.
    package static func file(_ bytes: [UInt8]) throws(Errno) -> OwnedDescriptor {
        var path = Array("/tmp/mmiofd-hostile.XXXXXX".utf8CString)
        let file = OwnedDescriptor(adopting: try systemCall(onInterrupt: .retry) { unsafe mkstemp(&path) })
        _ = unsafe unlink(path)
        try write(bytes, to: file.rawValue)
        _ = lseek(file.rawValue, 0, SEEK_SET)
        return file
    }

    /// An eventfd, which gives 8 bytes, however many are asked for.
    private static func event(count: UInt64) throws(Errno) -> OwnedDescriptor {
        let event = try EventDescriptor()
        try write((0..<8).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) }, to: event.descriptor.rawValue)
        return try event.descriptor.duplicate()
    }

    /// The reading end of a pipe whose other end is closed.
    private static func pipe(holding bytes: [UInt8]) throws(Errno) -> OwnedDescriptor {
        let ends = try pipe()
        try write(bytes, to: ends.writing.rawValue)
        return ends.closeWriting()
    }

    /// The writing end of a pipe, non-blocking and full but for some bytes, and its reading end.
    package static func pipe(room: Int) throws(Errno) -> PipeEnds {
        let ends = try pipe()
        try systemCall(onInterrupt: .retry) { fcntl(ends.writing.rawValue, F_SETFL, O_NONBLOCK) }
        // Full, then a page less, then all of that page but the room.
        var page = [UInt8](repeating: 0, count: 4096)
        while (try? write(page, to: ends.writing.rawValue)) != nil {}
        try systemCall(onInterrupt: .retry) { unsafe read(ends.reading.rawValue, &page, page.count) }
        try write(Array(page.dropLast(room)), to: ends.writing.rawValue)
        return ends
    }

    /// Both ends of a pipe.
    package static func pipe() throws(Errno) -> PipeEnds {
        var ends: [CInt] = [-1, -1]
        try systemCall(onInterrupt: .retry) { unsafe Glibc.pipe(&ends) }
        return PipeEnds(
            reading: OwnedDescriptor(adopting: ends[0]), writing: OwnedDescriptor(adopting: ends[1]))
    }

    /// Both ends of a pipe.
    package struct PipeEnds: ~Copyable {
        /// Where bytes come out.
        package let reading: OwnedDescriptor
        /// Where they go in.
        package let writing: OwnedDescriptor

        /// Closes the writing end.
        package consuming func closeWriting() -> OwnedDescriptor { reading }
    }

    /// A socket with a few messages in it, whose other end is closed.
    private static func socket(sending random: inout SeededGenerator) throws(Errno) -> OwnedDescriptor {
        let pair = try UnixSocket.pair()
        for _ in 0..<Int.random(in: 0...4, using: &random) {
            let message = randomBytes(upTo: 400, using: &random)
            if !message.isEmpty { try pair.first.send(message) }
        }
        return try pair.second.descriptor.duplicate()
    }

    private static func write(_ bytes: [UInt8], to descriptor: CInt) throws(Errno) {
        try systemCall(onInterrupt: .retry) {
            unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
        }
    }
}

extension OwnedDescriptor {
    /// Whether the other end is closed everywhere: reading gives the end of the file, and at once.
    package func isAtEnd() -> Bool {
        var byte: UInt8 = 0
        _ = fcntl(rawValue, F_SETFL, O_NONBLOCK)
        return unsafe read(rawValue, &byte, 1) == 0
    }
}
