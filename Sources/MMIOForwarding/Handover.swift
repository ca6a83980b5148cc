// SPDX-License-Identifier: Apache-2.0
//
// How a VMM gives a device to its emulation process: one message on a UNIX socket, with the descriptors. And how it is
// asked for another descriptor, when the process that had the last one is gone.

public import LinuxSystem
public import SystemPackage

/// What an emulation process needs to serve a device: the emulation descriptor, and where it raises its interrupt.
///
/// One message of type SOCK_SEQPACKET carries it: the bytes "mmiofd handover 1", and as SCM_RIGHTS the emulation
/// descriptor and, if the device interrupts, an eventfd.
@frozen public struct Handover: ~Copyable {
    /// Serves the device's accesses.
    public let emulation: EmulationDescriptor
    /// The eventfd that the VMM attached to the device's interrupt, if it has one.
    public let interrupt: EventDescriptor?

    private static var greeting: [UInt8] { Array("mmiofd handover 1".utf8) }

    /// Waits for the VMM's message. C: `recvmsg`.
    ///
    /// - Parameter socket: connected to the VMM.
    /// - Throws: errno of the call: ECONNRESET if the VMM closed the connection, EBUSY if it refused
    ///   (``refuse(over:)``), EPROTO for any other message, EMSGSIZE for more descriptors.
    public init(receivingFrom socket: borrowing UnixSocket) throws(Errno) {
        var message = try socket.receive(capacity: Self.longestMessage, descriptors: 2)
        guard !message.bytes.isEmpty else { throw .connectionReset }
        guard message.bytes != Self.refusal else { throw .resourceBusy }
        guard message.bytes == Self.greeting, let descriptor = message.takeDescriptor() else {
            throw .protocolError
        }
        emulation = EmulationDescriptor(adopting: descriptor)
        if let descriptor = message.takeDescriptor() {
            interrupt = EventDescriptor(adopting: descriptor)
        } else {
            interrupt = nil
        }
    }

    /// Sends a device to its emulation process. C: `sendmsg`.
    ///
    /// The descriptors that go are copies; the device lasts while any is open, so close `emulation` afterwards.
    ///
    /// - Parameters:
    ///   - emulation: the device.
    ///   - interrupt: number of the eventfd that is attached to its interrupt; it stays the caller's.
    ///   - socket: connected to the emulation process.
    /// - Throws: errno of the call: EPIPE if the process is gone.
    public static func send(
        _ emulation: borrowing EmulationDescriptor, interrupt: CInt? = nil, over socket: borrowing UnixSocket
    ) throws(Errno) {
        let interrupts = interrupt.map { [$0] } ?? []
        try socket.send(greeting, descriptors: [emulation.descriptor.rawValue] + interrupts)
    }
}

extension Handover {
    /// Sends copies of what was received on to another process. C: `sendmsg`.
    ///
    /// - Parameter socket: connected to the process that will serve the device.
    /// - Throws: errno of the call: EPIPE if the process is gone.
    public func pass(over socket: borrowing UnixSocket) throws(Errno) {
        switch interrupt {
        case .some(let event): try Self.send(emulation, interrupt: event.descriptor.rawValue, over: socket)
        case .none: try Self.send(emulation, over: socket)
        }
    }
}

/// Another descriptor of the same device, over the connection that brought the first.
///
/// Only the VMM can make one, so whoever keeps a device emulated asks it: the bytes "mmiofd another 1", once the last
/// descriptor is closed everywhere. The answer is one more handover, or "mmiofd busy 1" while the device still has one.
extension Handover {
    private static var request: [UInt8] { Array("mmiofd another 1".utf8) }
    private static var refusal: [UInt8] { Array("mmiofd busy 1".utf8) }
    /// One byte more than any message has, so that a longer one is told from it.
    private static var longestMessage: Int { 32 }

    /// Asks the VMM for another handover, to be received as the first one was. C: `sendmsg`.
    ///
    /// - Throws: errno of the call: EPIPE if the VMM is gone.
    public static func requestAnother(over socket: borrowing UnixSocket) throws(Errno) {
        try socket.send(request)
    }

    /// The VMM's side: takes a message of an emulation process that has its device. C: `recvmsg`.
    ///
    /// - Returns: true if it asks for another handover, false at the end of the connection.
    /// - Throws: errno of the call; EPROTO for any other message.
    public static func takeRequest(from socket: borrowing UnixSocket) throws(Errno) -> Bool {
        let message = try socket.receive(capacity: longestMessage)
        guard !message.bytes.isEmpty else { return false }
        guard message.bytes == request else { throw .protocolError }
        return true
    }

    /// The VMM's side: says that there is no other descriptor while one is open. C: `sendmsg`.
    ///
    /// - Throws: errno of the call: EPIPE if the process is gone.
    public static func refuse(over socket: borrowing UnixSocket) throws(Errno) {
        try socket.send(refusal)
    }
}
