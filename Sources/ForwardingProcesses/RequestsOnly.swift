// SPDX-License-Identifier: Apache-2.0
//
// A transport without its shadow memory, for comparison and for seeing every access.

import MMIOForwarding
import SystemPackage

/// Brings every load as a request, whatever the transport could answer itself.
struct RequestsOnly<Transport: RequestTransport & ~Copyable & Sendable>: RequestTransport, ~Copyable, Sendable {
    private var transport: Transport

    init(_ transport: consuming Transport) {
        self.transport = transport
    }

    var staleReplies: UInt64 { transport.staleReplies }

    mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        try transport.exchange(replies, for: &requests)
    }
}
