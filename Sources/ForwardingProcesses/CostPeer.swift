// SPDX-License-Identifier: Apache-2.0
//
// The emulation process of a cost comparison: the same device, however its accesses come.

import DeviceEmulation
import Glibc
import LinuxSystem
import MMIOForwarding
import ReferenceDevices
import SystemPackage

/// The other process of ``CostComparison``, started by it.
public enum CostPeer: String, CaseIterable, Sendable {
    /// Gets an emulation descriptor over its standard input, and serves it.
    case descriptor
    /// Gets each access as a message on its standard input, and replies to each.
    case messages
    /// The same, without replies to stores.
    case postedMessages = "posted-messages"

    /// Serves until the other side is gone.
    ///
    /// - Throws: errno of the transport.
    public func run() throws {
        let input = OwnedDescriptor(adopting: STDIN_FILENO)
        switch self {
        case .descriptor:
            let handover = try Handover(receivingFrom: UnixSocket(adopting: input))
            let emulation = handover.emulation
            try DeviceServer(Scratch(), on: emulation).run()
        case .messages:
            try DeviceServer(Scratch(), on: SocketTransport(input, stores: .acknowledged), batch: 1).run()
        case .postedMessages:
            try DeviceServer(Scratch(), on: SocketTransport(input, stores: .posted), batch: 1).run()
        }
    }
}
