// SPDX-License-Identifier: Apache-2.0
//
// What an emulation process needs of whatever brings it a guest's accesses.

public import SystemPackage

/// A source of requests and a sink for replies: the emulation descriptor, a socket, a test's memory.
public protocol RequestTransport: ~Copyable {
    /// Gives `replies` back in order, then waits until requests come and takes as many as fit, oldest first.
    ///
    /// Every request taken is owed one reply, a store as well as a load (or, for a store, a later one that is
    /// ``ForwardedReply/isCumulative``), in any order and in any later call. A reply
    /// to a request that the kernel has given up meanwhile (a timeout, a vCPU that was killed) is dropped and counted
    /// in ``staleReplies``.
    ///
    /// - Parameters:
    ///   - replies: replies that are owed; may be empty.
    ///   - requests: room for requests; the first ones are overwritten. If it is empty, the call only gives the
    ///     replies: it never waits, and returns 0.
    /// - Returns: how many requests came, at least 1; 0 once the virtual machine is gone.
    /// - Throws: errno of the call: EINTR if a signal came before any request, all replies having been given; EINVAL
    ///   if a reply answers nothing that is owed.
    mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int

    /// Replies that came too late to matter.
    var staleReplies: UInt64 { get }

    /// Whether ``ForwardedReply/isCumulative`` means something here. Not unless a transport says so.
    var takesCumulativeReplies: Bool { mutating get }

    /// Answers the loads of `map` from an image from here on, without a request, if the transport can.
    ///
    /// - Parameters:
    ///   - map: the loads; it replaces the one before.
    ///   - fill: stores the values that they have now, before the first is answered.
    /// - Returns: the image, to be kept up to date; nil if every load will be a request. A transport has no shadow
    ///   memory unless it says otherwise.
    /// - Throws: ``ForwardingError`` if it should have worked; every load will then be a request.
    mutating func placeShadow(
        _ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void
    ) throws(ForwardingError) -> ShadowImage?
}

extension RequestTransport where Self: ~Copyable {
    /// Every request is owed a reply of its own.
    public var takesCumulativeReplies: Bool { false }

    /// No shadow memory: every load is a request.
    public mutating func placeShadow(
        _ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void
    ) throws(ForwardingError) -> ShadowImage? { nil }
}
