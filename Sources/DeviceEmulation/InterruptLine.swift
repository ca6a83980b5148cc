// SPDX-License-Identifier: Apache-2.0
//
// A device's way to interrupt the guest.

public import LinuxSystem
import Synchronization
import SystemPackage

/// An interrupt of a device: what it raises, without knowing what carries it.
///
/// A device holds it as a value and is given none, or one that counts, in its tests. One ``signal()`` is one edge, or
/// one message-signalled interrupt. A device with a level-triggered output keeps the level itself and signals when it
/// rises, as an ISA interrupt line does.
public protocol InterruptLine: Sendable {
    /// Interrupts the guest once. It never blocks.
    func signal()
}

/// An interrupt that an eventfd carries: KVM's irqfd raises it in the guest. C: `eventfd_write`.
public final class EventInterruptLine: InterruptLine {
    private let event: EventDescriptor
    private let failures = Atomic<UInt64>(0)

    /// Signals through `event`, which the VMM has bound to an interrupt with KVM_IRQFD.
    public init(_ event: consuming EventDescriptor) {
        self.event = event
    }

    /// Interrupts that could not be signalled. Not 0 means that the descriptor is no eventfd, or non-blocking with
    /// nobody that takes its count.
    public var failedSignals: UInt64 {
        failures.load(ordering: .relaxed)
    }

    public func signal() {
        do throws(Errno) {
            try event.signal()
        } catch {
            failures.wrappingAdd(1, ordering: .relaxed)
        }
    }
}
