// SPDX-License-Identifier: Apache-2.0
//
// How a VMM gives a device to its emulation process: one message on a UNIX socket, with the descriptors.

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
    /// - Throws: errno of the call: ECONNRESET if the VMM closed the connection, EPROTO for any other message,
    ///   EMSGSIZE for more descriptors.
    public init(receivingFrom socket: borrowing UnixSocket) throws(Errno) {
        var message = try socket.receive(capacity: Self.greeting.count + 1, descriptors: 2)
        guard !message.bytes.isEmpty else { throw .connectionReset }
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
