// SPDX-License-Identifier: Apache-2.0
//
// Requests and replies as messages on a socket: how a VMM reaches an emulation process without the module.

import Glibc
import LinuxSystem
import MMIOForwarding
import SystemPackage

/// Brings a device the requests that a VMM sends as messages, one each, and takes the replies back.
struct SocketTransport: RequestTransport, ~Copyable, Sendable {
    /// Whether the VMM waits for the reply to a store; if not, none is sent.
    enum Stores {
        case acknowledged
        case posted
    }

    private let socket: OwnedDescriptor
    private let stores: Stores

    let staleReplies: UInt64 = 0

    init(_ socket: consuming OwnedDescriptor, stores: Stores) {
        self.socket = socket
        self.stores = stores
    }

    mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        for index in replies.indices where stores == .acknowledged || replies[index].kind == .load {
            try sendMessage(replies[index], over: socket.rawValue)
        }
        guard !requests.isEmpty else { return 0 }
        guard let request = try receiveMessage(requests[0], over: socket.rawValue) else { return 0 }
        requests[0] = request
        return 1
    }
}

/// Sends a value as one message. C: `send`.
func sendMessage<Message: BitwiseCopyable>(_ message: Message, over socket: CInt) throws(Errno) {
    // SAFETY: the bytes of a value are readable for the call.
    let result = unsafe withUnsafeBytes(of: message) { bytes in
        var result = -1
        repeat {
            result = unsafe send(socket, bytes.baseAddress, bytes.count, CInt(MSG_NOSIGNAL))
        } while result == -1 && errno == EINTR
        return result
    }
    guard result != -1 else { throw Errno(rawValue: errno) }
}

/// Waits for a message that is a value of this type. C: `recv`.
///
/// - Parameter placeholder: a value of the type, which the message overwrites.
/// - Returns: the message, nil at the end of the connection.
func receiveMessage<Message: BitwiseCopyable>(_ placeholder: Message, over socket: CInt) throws(Errno) -> Message? {
    var message = placeholder
    // SAFETY: any bytes are a value of a BitwiseCopyable C structure, and no more are written than it has.
    let count = try unsafe withUnsafeMutableBytes(of: &message) { bytes throws(Errno) in
        try systemCall(onInterrupt: .fail) { unsafe recv(socket, bytes.baseAddress, bytes.count, 0) }
    }
    if count == 0 { return nil }
    guard count == MemoryLayout<Message>.size else { throw .badMessage }
    return message
}
