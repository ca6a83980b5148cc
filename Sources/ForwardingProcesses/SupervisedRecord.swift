// SPDX-License-Identifier: Apache-2.0
//
// The file of a device's record, on its way from a supervisor to the emulation processes that it starts.

import DeviceEmulation
import LinuxSystem
import SystemPackage

/// Memory that outlives the emulation processes that map it, as long as their supervisor lives.
///
/// One message of type SOCK_SEQPACKET carries it: the bytes "mmiofd record 1", and the file as SCM_RIGHTS. The handover
/// comes after it.
struct SupervisedRecord: ~Copyable {
    /// The file of a `DeviceRecord`, which makes it as long as it has to be.
    let file: OwnedDescriptor

    private static var greeting: [UInt8] { Array("mmiofd record 1".utf8) }

    /// Makes an empty one. C: `memfd_create`.
    init() throws(Errno) {
        file = try DeviceRecord.makeFile()
    }

    /// Takes it from the supervisor. C: `recvmsg`.
    ///
    /// - Throws: errno of the call; EPROTO for any other message.
    init(receivingFrom socket: borrowing UnixSocket) throws(Errno) {
        var message = try socket.receive(capacity: Self.greeting.count + 1, descriptors: 1)
        guard message.bytes == Self.greeting, let descriptor = message.takeDescriptor() else {
            throw .protocolError
        }
        file = descriptor
    }

    /// Gives it to an emulation process. C: `sendmsg`.
    func send(over socket: borrowing UnixSocket) throws(Errno) {
        try socket.send(Self.greeting, descriptors: [file.rawValue])
    }
}
