// SPDX-License-Identifier: Apache-2.0
//
// A server's connection to an InMemoryBus.

public import MMIOForwarding
public import SystemPackage

/// One server's connection to an ``InMemoryBus``, for the price of no kernel.
public struct InMemoryTransport: RequestTransport, ~Copyable, Sendable {
    private let bus: InMemoryBus
    public private(set) var staleReplies: UInt64 = 0

    init(_ bus: InMemoryBus) {
        self.bus = bus
    }

    public mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        for index in replies.indices where try !bus.accept(replies[index]) {
            staleReplies &+= 1
        }
        return requests.isEmpty ? 0 : try bus.take(&requests)
    }

    public mutating func placeShadow(
        _ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void
    ) throws(ForwardingError) -> ShadowImage? {
        do throws(Errno) {
            return try bus.placeShadow(map, fill)
        } catch {
            throw ForwardingError(call: "memfd_create", errno: error)
        }
    }
}
