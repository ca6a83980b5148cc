// SPDX-License-Identifier: Apache-2.0
//
// The emulation process's side of a device: requests out of the kernel, replies in.

import CKVMUser
import Glibc
public import LinuxSystem
public import SystemPackage

/// The emulation descriptor of a KVM_DEV_TYPE_USER device.
///
/// When the last copy of it closes, the guest sees what ``ControlDescriptor/setOnClose(policy:)`` says: by default a
/// device that was pulled out, whose loads read all-ones and whose stores are dropped.
public struct EmulationDescriptor: ~Copyable, Sendable {
    /// The descriptor itself, to poll or to pass on.
    public let descriptor: OwnedDescriptor
    /// Replies of ``exchange(_:for:)`` that the kernel had given up waiting for.
    public private(set) var staleReplies: UInt64 = 0
    /// What the module offers, once it was asked.
    var features: DeviceInformation.Features?

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
    /// One system call where the module has KVM_DEV_USER_EXCHANGE, a write and a read where it has not.
    ///
    /// On a non-blocking descriptor it throws EAGAIN where it would wait, or EINTR if it gave replies before.
    public mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        if !requests.isEmpty, has(.exchange) { return try exchangeAtOnce(replies, for: &requests) }
        try reply(replies)
        return requests.isEmpty ? 0 : try read(into: &requests)
    }

    /// True with a module that has ``DeviceInformation/Features/cumulativeReplies``.
    public var takesCumulativeReplies: Bool {
        mutating get { has(.cumulativeReplies) }
    }

    /// Whether the module has it; it is asked once.
    private mutating func has(_ feature: DeviceInformation.Features) -> Bool {
        if let features { return features.contains(feature) }
        // A module that does not know the question has no features.
        let features = (try? information().features) ?? []
        self.features = features
        return features.contains(feature)
    }

    /// Gives all replies, leaving out those that nobody waits for any more, and takes requests with the last.
    private mutating func exchangeAtOnce(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        var given = 0
        while true {
            do {
                let (accepted, came) = try callExchange(replies.extracting(given..<replies.count), for: &requests)
                given += accepted
                if came > 0 { return came }
                if given == replies.count { break }
            } catch .stale {
                staleReplies += 1
                given += 1
            } catch .noDevice {
                // Nobody waits for a reply; what the guest last stored can still be read.
                return try read(into: &requests)
            }
        }
        // No request: a signal, the machine's end, or a descriptor that does not wait. Only without replies it is
        // certain not to be a signal, and a read tells which.
        guard replies.isEmpty else { throw .interrupted }
        return try read(into: &requests)
    }

    /// KVM_DEV_USER_EXCHANGE: how many replies were accepted, and how many requests came.
    private func callExchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> (accepted: Int, came: Int) {
        var raw = kvm_dev_user_exchange()
        raw.nr_replies = UInt32(clamping: replies.count)
        raw.nr_requests = UInt32(clamping: requests.count)
        raw.flags = UInt32(KVM_USER_EXCHANGE_WAIT)
        // SAFETY: both buffers live through the call, which reads one and writes whole requests to the other.
        try unsafe replies.withUnsafeBytes { replies throws(Errno) in
            raw.replies = UInt64(UInt(bitPattern: replies.baseAddress))
            try unsafe requests.withUnsafeMutableBytes { requests throws(Errno) in
                raw.requests = UInt64(UInt(bitPattern: requests.baseAddress))
                try descriptor.ioctl(CKVMUSER_EXCHANGE, &raw, onInterrupt: .fail)
            }
        }
        return try Self.counts(of: raw, replies: replies.count, requests: requests.count)
    }

    /// What a call says it did. The module takes a reply or fails: whatever says otherwise is none of its own.
    static func counts(
        of raw: kvm_dev_user_exchange, replies: Int, requests: Int
    ) throws(Errno) -> (accepted: Int, came: Int) {
        let (accepted, came) = (Int(raw.nr_replies), Int(raw.nr_requests))
        guard accepted <= replies, came <= requests, accepted > 0 || replies == 0 else { throw .ioError }
        return (accepted, came)
    }

    /// Writes all replies, leaving out those that nobody waits for any more.
    private mutating func reply(_ replies: Span<ForwardedReply>) throws(Errno) {
        var next = 0
        while next < replies.count {
            do {
                next += try writeSome(replies.extracting(next..<replies.count))
            } catch .stale {
                staleReplies += 1
                next += 1
            } catch .noDevice {
                // Nobody waits for any of them; what the guest last stored can still be read.
                return
            }
        }
    }

    /// Writes 1 reply or more.
    private func writeSome(_ replies: Span<ForwardedReply>) throws(Errno) -> Int {
        let count = try write(replies)
        // The module takes a reply or fails: a descriptor that takes less is none of its own.
        if count == 0 { throw .ioError }
        return count
    }
}

// The two by the names that the kernel's rules use.
extension Errno {
    /// ESTALE: the request was given up.
    package static var stale: Errno { .staleNFSFileHandle }
    /// ENODEV: the virtual machine, or the module, is gone.
    package static var noDevice: Errno { .operationNotSupportedByDevice }
}
