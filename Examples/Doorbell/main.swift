// SPDX-License-Identifier: Apache-2.0

import DeviceEmulation
import LinuxSystem
import MMIOForwarding

/// Counts how often it is rung, and remembers with which value.
struct Doorbell: MMIODevice {
    private var rings: UInt64 = 0
    private var last: UInt64 = 0

    mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        switch (access.offset, access.width) {
        case (0x0, .four): last
        case (0x8, .eight): rings
        default: throw .noRegister
        }
    }

    mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        guard access.offset == 0x0, access.width == .four else { throw .noRegister }
        last = value
        rings &+= 1
    }
}

do {
    let handover = try Handover(receivingFrom: try UnixSocket(connectingTo: "/tmp/doorbell.sock"))
    try DeviceServer(Doorbell(), on: handover.emulation).run()
} catch {
    print("no doorbell: \(error); a VMM has to listen at /tmp/doorbell.sock")
}
