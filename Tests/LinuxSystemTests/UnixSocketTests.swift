// SPDX-License-Identifier: Apache-2.0
//
// Messages and descriptors across a UNIX socket.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

@Suite("UNIX socket")
struct UnixSocketTests {
    @Test("each send is one message")
    func messages() throws {
        let pair = try UnixSocket.pair()
        try pair.first.send([1, 2, 3])
        try pair.first.send([4])
        let first = try pair.second.receive(capacity: 16)
        let second = try pair.second.receive(capacity: 16)
        #expect(first.bytes == [1, 2, 3])
        #expect(second.bytes == [4])
    }

    @Test("the rest of a message that is longer than the capacity is lost")
    func truncated() throws {
        let pair = try UnixSocket.pair()
        try pair.first.send([1, 2, 3])
        try pair.first.send([4])
        let first = try pair.second.receive(capacity: 2)
        let second = try pair.second.receive(capacity: 2)
        #expect(first.bytes == [1, 2])
        #expect(second.bytes == [4])
    }

    @Test("the other end's close is an empty message")
    func endOfConnection() throws {
        let pair = try UnixSocket.pair()
        let other = try UnixSocket(adopting: pair.second.descriptor.duplicate())
        try pair.first.send([9])
        let ends = consume pair
        let first = try other.receive(capacity: 1)
        #expect(first.bytes == [9])
        Self.drop(ends)
        let last = try other.receive(capacity: 1)
        #expect(last.bytes.isEmpty)
        #expect(last.descriptorCount == 0)
    }

    @Test("sending to a closed end is EPIPE, and no signal ends the process")
    func brokenPipe() throws {
        let pair = try UnixSocket.pair()
        let one = try UnixSocket(adopting: pair.first.descriptor.duplicate())
        Self.drop(pair)
        #expect(errno { () throws(Errno) in try one.send([1]) } == .brokenPipe)
    }

    @Test("descriptors arrive in order, as new numbers for the same files, close-on-exec", arguments: [1, 2, 16])
    func descriptors(count: Int) throws {
        let pair = try UnixSocket.pair()
        var events: [CInt] = []
        for _ in 0..<count { events.append(try EventDescriptor().descriptor.duplicate().release()) }
        defer { for event in events { _ = close(event) } }
        try pair.first.send([1], descriptors: events)
        var message = try pair.second.receive(capacity: 1, descriptors: 16)
        #expect(message.descriptorCount == count)

        for event in events {
            let taken = try Self.take(&message)
            #expect(fcntl(taken.rawValue, F_GETFD) & FD_CLOEXEC != 0)
            #expect(taken.rawValue != event)
            #expect(try Self.isSameEvent(EventDescriptor(adopting: taken), event))
        }
        let none = message.takeDescriptor() == nil
        #expect(none)
    }

    @Test("more than 16 descriptors cannot be sent: EINVAL, and nothing goes out")
    func tooManyToSend() throws {
        let pair = try UnixSocket.pair()
        let null = try OwnedDescriptor.open("/dev/null", .readOnly)
        let numbers = [CInt](repeating: null.rawValue, count: 17)
        #expect(errno { () throws(Errno) in try pair.first.send([1], descriptors: numbers) } == .invalidArgument)
        try pair.first.send([2])
        let message = try pair.second.receive(capacity: 1)
        #expect(message.bytes == [2])
    }

    @Test("a number that is not open cannot be sent: EBADF")
    func closedDescriptor() throws {
        let pair = try UnixSocket.pair()
        #expect(errno { () throws(Errno) in try pair.first.send([1], descriptors: [CInt.max]) } == .badFileDescriptor)
    }

    @Test("more descriptors than expected are EMSGSIZE, and all that came are closed", arguments: [0, 1, 2])
    func tooManyToReceive(expected: Int) throws {
        let pair = try UnixSocket.pair()
        let pipe = try Pipe()
        let writer = OwnedDescriptor(adopting: pipe.writer)
        try pair.first.send([1], descriptors: [CInt](repeating: pipe.writer, count: 3))
        try writer.close()
        let open = try !pipe.isWriterClosed()
        #expect(open, "the message holds them")
        let error = errno { () throws(Errno) in _ = try pair.second.receive(capacity: 1, descriptors: expected) }
        #expect(error == .init(rawValue: EMSGSIZE))
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("descriptors that nobody takes are closed with the message")
    func untaken() throws {
        let pair = try UnixSocket.pair()
        let pipe = try Pipe()
        let writer = OwnedDescriptor(adopting: pipe.writer)
        try pair.first.send([1], descriptors: [pipe.writer, pipe.writer])
        try writer.close()
        do {
            var message = try pair.second.receive(capacity: 1, descriptors: 2)
            let taken = message.takeDescriptor()
            #expect(message.descriptorCount == 1)
            let open = try !pipe.isWriterClosed()
            #expect(open)
            _ = consume taken
        }
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("descriptors that were sent and never received are closed with the socket")
    func unreceived() throws {
        let pipe = try Pipe()
        do {
            let pair = try UnixSocket.pair()
            try pair.first.send([1], descriptors: [pipe.writer])
            try OwnedDescriptor(adopting: pipe.writer).close()
            let open = try !pipe.isWriterClosed()
            #expect(open)
        }
        let closed = try pipe.isWriterClosed()
        #expect(closed)
    }

    @Test("the peer is this process")
    func peer() throws {
        let pair = try UnixSocket.pair()
        let peer = try pair.first.peer()
        #expect(peer.process == getpid())
        #expect(peer.user == geteuid())
        #expect(peer.group == getegid())
    }

    private static func drop(_ pair: consuming UnixSocket.Pair) {}

    private static func take(_ message: inout UnixSocket.Message) throws -> OwnedDescriptor {
        guard let taken = message.takeDescriptor() else { throw Errno.badFileDescriptor }
        return taken
    }

    /// Whether an eventfd counts what is written to a descriptor.
    private static func isSameEvent(_ event: consuming EventDescriptor, _ number: CInt) throws -> Bool {
        try systemCall(onInterrupt: .retry) { fcntl(event.descriptor.rawValue, F_SETFL, O_NONBLOCK) }
        var one: UInt64 = 1
        try systemCall(onInterrupt: .retry) { unsafe write(number, &one, 8) }
        return try event.wait() == 1
    }
}

@Suite("UNIX listener")
struct UnixListenerTests {
    @Test("a client's messages reach the accepted socket, and its answers the client")
    func connects() throws {
        let listener = try UnixListener(at: Self.path("connects"))
        let client = try UnixSocket(connectingTo: listener.path)
        let server = try listener.accept()
        try client.send([1, 2])
        let request = try server.receive(capacity: 8)
        #expect(request.bytes == [1, 2])
        try server.send([3])
        let answer = try client.receive(capacity: 8)
        #expect(answer.bytes == [3])
    }

    @Test("the end of the listener removes its name")
    func removesName() throws {
        let path = Self.path("removes")
        do {
            let listener = try UnixListener(at: path)
            #expect(unsafe listener.path.withPlatformString { unsafe access($0, F_OK) } == 0)
        }
        #expect(unsafe path.withPlatformString { unsafe access($0, F_OK) } != 0)
        #expect(errno { () throws(Errno) in _ = try UnixSocket(connectingTo: path) } == .noSuchFileOrDirectory)
    }

    @Test("a second listener at the same path is EADDRINUSE, and the first one's name stays")
    func inUse() throws {
        let first = try UnixListener(at: Self.path("in-use"))
        #expect(errno { () throws(Errno) in _ = try UnixListener(at: first.path) } == .addressInUse)
        _ = try UnixSocket(connectingTo: first.path)
    }

    @Test("a path of 107 bytes is taken, one of 108 is ENAMETOOLONG")
    func longPath() throws {
        let prefix = Self.path("x").string
        let longest = prefix + String(repeating: "x", count: 107 - prefix.utf8.count)
        let listener = try UnixListener(at: FilePath(longest))
        _ = try UnixSocket(connectingTo: listener.path)
        let longer = FilePath(longest + "x")
        #expect(errno { () throws(Errno) in _ = try UnixListener(at: longer) } == .fileNameTooLong)
        #expect(errno { () throws(Errno) in _ = try UnixSocket(connectingTo: longer) } == .fileNameTooLong)
    }

    @Test("a socket that nobody listens on any more is ECONNREFUSED")
    func refused() throws {
        let path = Self.path("refused")
        let bound = try UnixListener(at: path)
        // A second name for the socket outlives the listener, which removes only its own.
        let other = Self.path("refused-too")
        #expect(
            unsafe path.withPlatformString { from in
                unsafe other.withPlatformString { to in unsafe link(from, to) }
            } == 0)
        defer { _ = unsafe other.withPlatformString { unsafe unlink($0) } }
        Self.drop(bound)
        #expect(errno { () throws(Errno) in _ = try UnixSocket(connectingTo: other) } == .connectionRefused)
    }

    private static func path(_ name: String) -> FilePath {
        FilePath("/tmp/mmiofd-\(getpid())-\(name)")
    }

    private static func drop(_ listener: consuming UnixListener) {}
}
