// SPDX-License-Identifier: Apache-2.0
//
// Where an emulation process finds the VMM: a socket with an owner and a mode.

import Glibc
import LinuxSystem
public import SystemPackage

/// The VMM's listening socket, and who may connect to it.
public struct HandoverSocket: ~Copyable {
    private let listener: UnixListener

    /// Who may connect: those who may write to the socket's file.
    public struct Access: Hashable, Sendable {
        /// The file's mode, 0o600 say.
        public var mode: UInt32
        /// The file's group; nil leaves this process's own.
        public var group: UInt32?

        /// Takes both.
        public init(mode: UInt32 = 0o600, group: UInt32? = nil) {
            self.mode = mode
            self.group = group
        }
    }

    /// Makes the socket; a file of a VMM that is no more is replaced. C: `bind`, `listen`, `chown`, `chmod`,
    /// `link`.
    ///
    /// - Parameters:
    ///   - path: where.
    ///   - access: who may connect.
    /// - Throws: ``HandoverError``: EADDRINUSE if another VMM waits there, EACCES, ENOENT, EPERM for another's group.
    public init(at path: FilePath, _ access: Access = Access()) throws(HandoverError) {
        // Under another name until its mode is right: nobody finds it too early, and nobody is refused too early.
        let draft = FilePath("\(path).\(getpid())")
        var listener = try Self.listener(at: draft, for: path)
        do throws(Errno) {
            try Self.set(access, at: draft)
        } catch {
            throw HandoverError(action: .setAccess, path: path, errno: error)
        }
        UnixListener.removeStale(at: path)
        do throws(Errno) {
            try listener.move(to: path)
        } catch {
            throw HandoverError(action: .listen, path: path, errno: error == .fileExists ? .addressInUse : error)
        }
        self.listener = listener
    }

    private static func listener(at draft: FilePath, for path: FilePath) throws(HandoverError) -> UnixListener {
        do throws(Errno) {
            return try UnixListener(at: draft)
        } catch {
            throw HandoverError(action: .listen, path: path, errno: error)
        }
    }

    private static func set(_ access: Access, at path: FilePath) throws(Errno) {
        if let group = access.group {
            try systemCall(onInterrupt: .retry) {
                unsafe path.withPlatformString { unsafe chown($0, uid_t.max, group) }
            }
        }
        try systemCall(onInterrupt: .retry) { unsafe path.withPlatformString { unsafe chmod($0, access.mode) } }
    }

    /// The group of that name, or of that number in digits; nil if there is none.
    public static func group(named name: String) -> UInt32? {
        if let number = UInt32(name) { return number }
        return unsafe getgrnam(name)?.pointee.gr_gid
    }

    /// Number of the listening descriptor, to poll.
    var rawValue: CInt { listener.descriptor.rawValue }

    /// Takes the first process that connects, and ends listening: the file goes.
    consuming func accept() throws(HandoverError) -> UnixSocket {
        do throws(Errno) {
            return try listener.accept()
        } catch {
            throw HandoverError(action: .accept, path: listener.path, errno: error)
        }
    }
}

/// A VMM and an emulation process that did not find together.
public struct HandoverError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was tried.
    public enum Action: String, Sendable {
        /// The VMM: to make the socket.
        case listen = "listen at"
        /// The VMM: to set the socket file's group and mode.
        case setAccess = "set the group and mode of"
        /// The VMM: to take a connection.
        case accept = "accept a connection at"
        /// The emulation process: to reach the VMM.
        case connect = "connect to"
        /// The emulation process: to get the device.
        case receive = "receive a device from"
    }

    /// What was tried.
    public let action: Action
    /// The socket's file.
    public let path: FilePath
    /// What came back.
    public let errno: Errno

    public var description: String {
        let tried = "\(action.rawValue) \(path): \(errno)"
        return remedy.map { "\(tried); \($0)" } ?? tried
    }

    /// What to do, where that is known.
    private var remedy: String? {
        switch (action, errno) {
        case (.connect, .noSuchFileOrDirectory), (.connect, .connectionRefused):
            "no VMM waits there; start one with `mmiofd vmm --socket \(path)`"
        case (.connect, .permissionDenied):
            "let this user in with --socket-mode and --socket-group of `mmiofd vmm`, or use another directory"
        case (.connect, .protocolWrongTypeForSocket):
            "what listens there is no VMM of mmiofd's; choose the --socket of one"
        case (.receive, .timedOut):
            "what listens there hands over no device: it is stopped, or no VMM; --wait says how long to wait"
        case (.receive, .connectionReset):
            "the VMM ended before it handed the device over; see what it says"
        case (.receive, .resourceBusy):
            "the last emulation descriptor is still open in some process; end that"
        case (.receive, .protocolError):
            "what listens there is no VMM of this version"
        case (.listen, .addressInUse):
            "another VMM waits there, or a file is in the way; choose another --socket"
        case (.listen, .fileNameTooLong), (.connect, .fileNameTooLong):
            "a socket's path has at most 107 bytes; choose a shorter --socket"
        case (.listen, _):
            "choose a --socket in a directory that this user may write to"
        case (.setAccess, .notPermitted):
            "only a group that this user is in can be set"
        default:
            nil
        }
    }
}
