// SPDX-License-Identifier: Apache-2.0
//
// The emulation process's side of a device: requests out of the kernel, replies in.

import CKVMUser
import Glibc
public import LinuxSystem
public import SystemPackage

/// The emulation descriptor of a KVM_DEV_TYPE_USER device.
///
/// When the last copy of it closes, the guest sees a device that was pulled out: loads read all-ones, stores are
/// dropped.
public struct EmulationDescriptor: ~Copyable, Sendable {
    /// The descriptor itself, to poll or to pass on.
    public let descriptor: OwnedDescriptor
    /// Replies of ``exchange(_:for:)`` that the kernel had given up waiting for.
    public private(set) var staleReplies: UInt64 = 0

    /// Takes over a descriptor that a VMM passed.
    public init(adopting descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// Makes another descriptor of the same device, for a thread of its own. C: `fcntl(F_DUPFD_CLOEXEC)`.
    ///
    /// Each request goes to one of the threads that read.
    ///
    /// - Throws: errno of the call, EMFILE above all.
    public func duplicate() throws(Errno) -> EmulationDescriptor {
        EmulationDescriptor(adopting: try descriptor.duplicate())
    }

    /// What the device offers. C: `KVM_DEV_USER_INFO`.
    ///
    /// - Throws: ``ForwardingError``: ENODEV if the virtual machine is gone, ENOTTY from a module without optional
    ///   parts.
    public func information() throws(ForwardingError) -> DeviceInformation {
        var raw = kvm_dev_user_info()
        do {
            try descriptor.ioctl(CKVMUSER_INFO, &raw)
        } catch {
            throw ForwardingError(call: "KVM_DEV_USER_INFO", errno: error)
        }
        return DeviceInformation(raw)
    }

    /// Takes pending requests, oldest first, waiting for one if there is none. C: `read`.
    ///
    /// - Parameter requests: room for 1 request or more.
    /// - Returns: how many came; 0 when the virtual machine is gone and everything has been read.
    /// - Throws: errno of the call: EINTR if a signal came first, EAGAIN on a non-blocking descriptor, EINVAL if
    ///   there is no room.
    public func read(into requests: inout MutableSpan<ForwardedRequest>) throws(Errno) -> Int {
        let bytes = try unsafe requests.withUnsafeMutableBytes { room throws(Errno) in
            try systemCall(onInterrupt: .fail) {
                unsafe Glibc.read(descriptor.rawValue, room.baseAddress, room.count)
            }
        }
        return bytes / MemoryLayout<ForwardedRequest>.stride
    }

    /// Gives replies, in order. C: `write`.
    ///
    /// - Returns: how many the kernel took; it stops at the first that it refuses.
    /// - Throws: what it says of the very first: EINVAL (answers no request that was sent), ESTALE (the request was
    ///   given up; leave it out and go on), ENODEV (the virtual machine is gone).
    public func write(_ replies: Span<ForwardedReply>) throws(Errno) -> Int {
        let bytes = try unsafe replies.withUnsafeBytes { bytes throws(Errno) in
            try systemCall(onInterrupt: .retry) {
                unsafe Glibc.write(descriptor.rawValue, bytes.baseAddress, bytes.count)
            }
        }
        return bytes / MemoryLayout<ForwardedReply>.stride
    }

    /// Waits until a read would not. C: `poll(POLLIN)`.
    ///
    /// - Parameter milliseconds: how long; -1 for ever, 0 not at all.
    /// - Returns: what is so now; empty if the time ran out.
    /// - Throws: errno of the call: EINTR if a signal came first.
    public func poll(milliseconds: CInt) throws(Errno) -> Readiness {
        var entry = pollfd(fd: descriptor.rawValue, events: CShort(POLLIN | POLLOUT), revents: 0)
        if milliseconds != 0 { entry.events = CShort(POLLIN) }
        try systemCall(onInterrupt: .fail) { unsafe Glibc.poll(&entry, 1, milliseconds) }
        return Readiness(rawValue: entry.revents)
    }

    /// What ``poll(milliseconds:)`` found.
    public struct Readiness: OptionSet, Sendable, Hashable {
        public let rawValue: Int16

        public init(rawValue: Int16) {
            self.rawValue = rawValue
        }

        /// Requests are pending, and may be read.
        public static let readable = Readiness(rawValue: Int16(POLLIN))
        /// Replies may be written: always so.
        public static let writable = Readiness(rawValue: Int16(POLLOUT))
        /// The virtual machine is gone.
        public static let machineGone = Readiness(rawValue: Int16(POLLHUP))
    }
}

extension EmulationDescriptor: RequestTransport {
    public mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        try reply(replies)
        return requests.isEmpty ? 0 : try read(into: &requests)
    }

    /// Writes all replies, leaving out those that nobody waits for any more.
    private mutating func reply(_ replies: Span<ForwardedReply>) throws(Errno) {
        var next = 0
        while next < replies.count {
            do {
                next += try write(replies.extracting(next..<replies.count))
            } catch .stale {
                staleReplies += 1
                next += 1
            } catch .noDevice {
                // Nobody waits for any of them; what the guest last stored can still be read.
                return
            }
        }
    }
}

// The two by the names that the kernel's rules use.
extension Errno {
    /// ESTALE: the request was given up.
    package static var stale: Errno { .staleNFSFileHandle }
    /// ENODEV: the virtual machine, or the module, is gone.
    package static var noDevice: Errno { .operationNotSupportedByDevice }
}
