// SPDX-License-Identifier: Apache-2.0
//
// UNIX sockets that carry messages and descriptors: how a VMM hands a device to its emulation process.

import CLinuxSystem
import Glibc
public import SystemPackage

/// A connected AF_UNIX socket of type SOCK_SEQPACKET: each send is one message, each receive takes one.
public struct UnixSocket: ~Copyable, Sendable {
    /// The socket itself.
    public let descriptor: OwnedDescriptor

    /// Takes over a connected socket.
    public init(adopting descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// Connects to a listener at `path`. C: `socket`, `connect`.
    ///
    /// - Throws: errno: ENOENT, ECONNREFUSED, EACCES, ENAMETOOLONG above 107 bytes.
    public init(connectingTo path: FilePath) throws(Errno) {
        // A signal in the middle leaves a socket that is thrown away, so calling again is right.
        let raw = try systemCall(onInterrupt: .retry) {
            unsafe path.withPlatformString { unsafe clinux_unix_connect($0) }
        }
        descriptor = OwnedDescriptor(adopting: raw)
    }

    /// Makes two sockets connected to each other. C: `socketpair`.
    ///
    /// - Throws: errno of the call, EMFILE above all.
    public static func pair() throws(Errno) -> Pair {
        var ends: (CInt, CInt) = (-1, -1)
        let type = CInt(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
        // SAFETY: a tuple of two CInt has the layout of int[2].
        try systemCall(onInterrupt: .retry) {
            unsafe withUnsafeMutableBytes(of: &ends) {
                unsafe socketpair(AF_UNIX, type, 0, $0.assumingMemoryBound(to: CInt.self).baseAddress!)
            }
        }
        return Pair(
            first: UnixSocket(adopting: OwnedDescriptor(adopting: ends.0)),
            second: UnixSocket(adopting: OwnedDescriptor(adopting: ends.1)))
    }

    /// Both ends of ``pair()``.
    @frozen public struct Pair: ~Copyable {
        public let first: UnixSocket
        public let second: UnixSocket
    }

    /// The process that was at the other end when the connection was made. C: `getsockopt(SO_PEERCRED)`.
    ///
    /// - Throws: errno of the call.
    public func peer() throws(Errno) -> Peer {
        var (process, user, group): (pid_t, uid_t, gid_t) = (0, 0, 0)
        try systemCall(onInterrupt: .retry) {
            unsafe clinux_unix_peer(descriptor.rawValue, &process, &user, &group)
        }
        return Peer(process: process, user: user, group: group)
    }

    /// Who is at the other end: process, user and group IDs as this process's namespaces see them.
    public struct Peer: Sendable, Hashable {
        public let process: Int32
        public let user: UInt32
        public let group: UInt32
    }

    /// Has calls fail with EAGAIN where they would wait. C: `fcntl(F_SETFL, O_NONBLOCK)`.
    ///
    /// - Throws: errno of the call.
    public func setNonBlocking() throws(Errno) {
        try systemCall(onInterrupt: .retry) { fcntl(descriptor.rawValue, F_SETFL, O_NONBLOCK) }
    }

    /// Sends one message, with copies of the descriptors. C: `sendmsg(SCM_RIGHTS)`.
    ///
    /// - Parameters:
    ///   - message: 1 byte or more: an empty message means the end of the connection to the receiver.
    ///   - descriptors: numbers of open descriptors, at most 16; they stay the caller's.
    /// - Throws: errno of the call: EPIPE when the other end is gone, EINVAL for too many descriptors.
    public func send(_ message: [UInt8], descriptors: [CInt] = []) throws(Errno) {
        try systemCall(onInterrupt: .retry) {
            unsafe message.withUnsafeBytes { bytes in
                unsafe descriptors.withUnsafeBufferPointer { numbers in
                    unsafe clinux_send_descriptors(
                        self.descriptor.rawValue, bytes.baseAddress!, bytes.count, numbers.baseAddress, numbers.count)
                }
            }
        }
    }

    /// Waits for one message. C: `recvmsg(SCM_RIGHTS)`.
    ///
    /// - Parameters:
    ///   - capacity: bytes to take; the rest of a longer message is lost.
    ///   - descriptors: how many descriptors may come with it, at most 16.
    /// - Returns: the message; empty bytes mean that the other end closed.
    /// - Throws: errno of the call; EMSGSIZE if more descriptors came, which are closed.
    public func receive(capacity: Int, descriptors maximum: Int = 0) throws(Errno) -> Message {
        var bytes = [UInt8](repeating: 0, count: capacity)
        var numbers = [CInt](repeating: -1, count: max(maximum, 1))
        var came = maximum
        let count = try systemCall(onInterrupt: .retry) {
            unsafe bytes.withUnsafeMutableBytes { bytes in
                unsafe numbers.withUnsafeMutableBufferPointer { numbers in
                    unsafe clinux_receive_descriptors(
                        descriptor.rawValue, bytes.baseAddress!, bytes.count, numbers.baseAddress!, &came)
                }
            }
        }
        return Message(bytes: Array(bytes.prefix(count)), numbers: Array(numbers.prefix(came)))
    }

    /// What ``receive(capacity:descriptors:)`` took: bytes, and descriptors that are closed unless they are taken.
    public struct Message: ~Copyable {
        /// The message; empty at the end of the connection.
        public let bytes: [UInt8]
        private var numbers: [CInt]

        fileprivate init(bytes: [UInt8], numbers: [CInt]) {
            self.bytes = bytes
            self.numbers = numbers
        }

        deinit {
            for number in numbers { _ = Glibc.close(number) }
        }

        /// How many descriptors are left to take.
        public var descriptorCount: Int { numbers.count }

        /// Takes the next descriptor in the order sent.
        ///
        /// - Returns: the descriptor, or nil when none is left.
        public mutating func takeDescriptor() -> OwnedDescriptor? {
            numbers.isEmpty ? nil : OwnedDescriptor(adopting: numbers.removeFirst())
        }
    }
}

/// A listening AF_UNIX socket of type SOCK_SEQPACKET, and its name in the file system.
public struct UnixListener: ~Copyable, Sendable {
    /// The socket itself.
    public let descriptor: OwnedDescriptor
    /// Where clients find it; removed when this value goes.
    public private(set) var path: FilePath

    /// Binds and listens. C: `socket`, `bind`, `listen`.
    ///
    /// - Throws: errno: EADDRINUSE if something is at `path`, EACCES, ENAMETOOLONG above 107 bytes.
    public init(at path: FilePath) throws(Errno) {
        let raw = try systemCall(onInterrupt: .retry) {
            unsafe path.withPlatformString { unsafe clinux_unix_listen($0, 1) }
        }
        descriptor = OwnedDescriptor(adopting: raw)
        self.path = path
    }

    deinit {
        _ = unsafe path.withPlatformString { unsafe unlink($0) }
    }

    /// Gives the socket's file another name, in the same file system. C: `link`, `unlink`.
    ///
    /// - Throws: errno: EEXIST if something is there.
    public mutating func move(to path: FilePath) throws(Errno) {
        let old = self.path
        try systemCall(onInterrupt: .retry) {
            unsafe old.withPlatformString { old in unsafe path.withPlatformString { unsafe link(old, $0) } }
        }
        self.path = path
        try systemCall(onInterrupt: .retry) { unsafe old.withPlatformString { unsafe unlink($0) } }
    }

    /// Waits for a client. C: `accept4`.
    ///
    /// - Throws: errno of the call.
    public func accept() throws(Errno) -> UnixSocket {
        let raw = try systemCall(onInterrupt: .retry) {
            clinux_accept(descriptor.rawValue)
        }
        return UnixSocket(adopting: OwnedDescriptor(adopting: raw))
    }
}
