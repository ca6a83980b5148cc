// SPDX-License-Identifier: Apache-2.0
//
// Interrupts through an eventfd.

import DeviceEmulation
import LinuxSystem
import SystemPackage
import Testing

@Suite("Interrupt line")
struct InterruptLineTests {
    @Test("Each signal adds one to the eventfd")
    func signals() throws {
        let event = try EventDescriptor()
        let other = EventDescriptor(adopting: try event.descriptor.duplicate())
        let line = EventInterruptLine(event)
        line.signal()
        line.signal()
        #expect(try other.wait() == 2)
        #expect(line.failedSignals == 0)
    }

    @Test("A descriptor that cannot be signalled is counted, not fatal")
    func failure() throws {
        let line = EventInterruptLine(EventDescriptor(adopting: try OwnedDescriptor.open("/dev/full", .writeOnly)))
        line.signal()
        #expect(line.failedSignals == 1)
    }
}
