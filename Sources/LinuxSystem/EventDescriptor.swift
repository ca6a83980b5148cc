// SPDX-License-Identifier: Apache-2.0
//
// eventfd(2): a counter that one side adds to and another waits for; how an interrupt or a doorbell crosses
// processes.

import CLinuxSystem
public import SystemPackage

/// An eventfd: adding to it wakes whoever waits, a KVM irqfd or a thread in ``wait()``.
public struct EventDescriptor: ~Copyable, Sendable {
    /// The eventfd itself, to pass on or to poll.
    public let descriptor: OwnedDescriptor

    /// Makes an eventfd with count 0, close-on-exec. C: `eventfd`.
    ///
    /// - Throws: errno of the call, EMFILE above all.
    public init() throws(Errno) {
        descriptor = OwnedDescriptor(adopting: try systemCall(onInterrupt: .retry) { clinux_eventfd() })
    }

    /// Takes over an eventfd that came from elsewhere, over a socket say.
    public init(adopting descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// Adds 1 to the count. C: `eventfd_write`.
    ///
    /// - Throws: errno of the call.
    public func signal() throws(Errno) {
        try systemCall(onInterrupt: .retry) { eventfd_write(descriptor.rawValue, 1) }
    }

    /// Waits until the count is not 0, takes it, and leaves 0. C: `eventfd_read`.
    ///
    /// - Returns: the count, 1 or more.
    /// - Throws: errno of the call: EAGAIN if the descriptor was made non-blocking.
    public func wait() throws(Errno) -> UInt64 {
        var count: UInt64 = 0
        try systemCall(onInterrupt: .retry) { unsafe eventfd_read(descriptor.rawValue, &count) }
        return count
    }
}
