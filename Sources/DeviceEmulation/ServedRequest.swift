// SPDX-License-Identifier: Apache-2.0
//
// A request with its reply, as an observer sees them pass.

public import MMIOForwarding

/// A request, the reply to it, and what became of it on the way: what a ``RequestObserver`` sees.
public struct ServedRequest: Sendable, Hashable {
    /// What became of a request.
    public enum Outcome: Sendable, Hashable {
        /// The device carried it out.
        case done
        /// The device refused it, or a part of it; the first reason.
        case refused(AccessFault)
        /// No guest can make such a request, and the device did not see it.
        case malformed
        /// It was redelivered, and the process before had carried it out: the reply is the one that it recorded.
        case recorded
    }

    /// What the guest asked for.
    public let request: ForwardedRequest
    /// The value that a load reads; 0 for a store.
    public let value: UInt64
    /// What became of it.
    public let outcome: Outcome

    init(_ request: ForwardedRequest, _ reply: ForwardedReply, _ outcome: Outcome) {
        self.request = request
        value = reply.data
        self.outcome = outcome
    }
}

/// Sees every request pass, in the order in which the device carried them out, before the replies leave.
///
/// It runs on the server's thread, and the guest waits for it.
public typealias RequestObserver = @Sendable (ServedRequest) -> Void
