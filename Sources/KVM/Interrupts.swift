// SPDX-License-Identifier: Apache-2.0
//
// How interrupts reach a virtual machine: by line, by message, by eventfd; and the routes from gsi to pin or message.

import CKVM
public import LinuxSystem

extension VirtualMachine {
    /// Makes `event` an irqfd: each time it is signalled the kernel raises `gsi`. C: `KVM_IRQFD`.
    ///
    /// The interrupt is an edge. The kernel keeps the eventfd open until ``deassignInterrupt(_:gsi:)`` or the end of
    /// the virtual machine. Any process that has the eventfd can signal it.
    ///
    /// - Parameters:
    ///   - event: an eventfd that is no irqfd yet.
    ///   - gsi: the global system interrupt, as the routes say.
    /// - Throws: EBUSY if it is an irqfd already, EINVAL without interrupt controllers.
    public func assignInterrupt(_ event: borrowing EventDescriptor, gsi: UInt32) throws(KVMError) {
        try irqDescriptor(event.descriptor.rawValue, gsi: gsi)
    }

    /// Makes `event` an irqfd for a level interrupt. C: `KVM_IRQFD` with `KVM_IRQFD_FLAG_RESAMPLE`.
    ///
    /// Signalling `event` asserts `gsi`; when the guest acknowledges the interrupt the kernel deasserts it and signals
    /// `resample`, upon which the device signals `event` again if it still has a reason to.
    ///
    /// - Parameters:
    ///   - event: an eventfd that is no irqfd yet.
    ///   - gsi: the global system interrupt, routed to a pin of an interrupt controller.
    ///   - resample: what the kernel signals.
    /// - Throws: EBUSY if it is an irqfd already, EINVAL without interrupt controllers.
    public func assignInterrupt(
        _ event: borrowing EventDescriptor, gsi: UInt32, resample: borrowing EventDescriptor
    ) throws(KVMError) {
        try irqDescriptor(
            event.descriptor.rawValue, gsi: gsi, flags: CKVM_IRQFD_FLAG_RESAMPLE,
            resample: resample.descriptor.rawValue)
    }

    /// Ends what ``assignInterrupt(_:gsi:)`` began. C: `KVM_IRQFD` with `KVM_IRQFD_FLAG_DEASSIGN`.
    ///
    /// - Throws: EINVAL without interrupt controllers.
    public func deassignInterrupt(_ event: borrowing EventDescriptor, gsi: UInt32) throws(KVMError) {
        try irqDescriptor(event.descriptor.rawValue, gsi: gsi, flags: CKVM_IRQFD_FLAG_DEASSIGN)
    }

    private func irqDescriptor(
        _ event: CInt, gsi: UInt32, flags: UInt32 = 0, resample: CInt = 0
    ) throws(KVMError) {
        var request = kvm_irqfd()
        request.fd = UInt32(bitPattern: event)
        request.gsi = gsi
        request.flags = flags
        request.resamplefd = UInt32(bitPattern: resample)
        try descriptor.kvm("KVM_IRQFD", CKVM_IRQFD, &request)
    }

    /// Sets the level of an interrupt line. C: `KVM_IRQ_LINE`.
    ///
    /// An edge interrupt is a rise and a fall: true, then false.
    ///
    /// - Throws: ENXIO without interrupt controllers.
    public func setInterruptLine(gsi: UInt32, asserted: Bool) throws(KVMError) {
        try kvmCall("KVM_IRQ_LINE") { ckvm_irq_line(descriptor.rawValue, gsi, asserted ? 1 : 0) }
    }

    /// Sends a message-signalled interrupt, without a route. C: `KVM_SIGNAL_MSI`.
    ///
    /// - Returns: whether a vCPU took it; false if the guest blocks it.
    /// - Throws: EINVAL without interrupt controllers.
    @discardableResult
    public func signalMessage(address: UInt64, data: UInt32) throws(KVMError) -> Bool {
        var message = kvm_msi()
        message.address_lo = UInt32(truncatingIfNeeded: address)
        message.address_hi = UInt32(truncatingIfNeeded: address >> 32)
        message.data = data
        return try descriptor.kvm("KVM_SIGNAL_MSI", CKVM_SIGNAL_MSI, &message) > 0
    }

    /// Replaces all routes from gsi to interrupt. C: `KVM_SET_GSI_ROUTING`.
    ///
    /// A virtual machine begins with the PC's routes: gsi 0 to 15 to the 8259s and the I/O APIC, 16 to 23 to the
    /// I/O APIC.
    ///
    /// - Throws: EINVAL for a pin that does not exist or too many routes.
    public func setInterruptRoutes(_ routes: [InterruptRoute]) throws(KVMError) {
        let entries = routes.map(\.entry)
        try kvmCall("KVM_SET_GSI_ROUTING") {
            unsafe entries.withUnsafeBufferPointer {
                unsafe ckvm_set_gsi_routing(descriptor.rawValue, $0.baseAddress, UInt32($0.count))
            }
        }
    }
}

/// What raising a gsi does. C: `struct kvm_irq_routing_entry`.
public struct InterruptRoute: Hashable, Sendable {
    /// An interrupt controller in the kernel.
    public enum Controller: UInt32, Sendable {
        /// The first 8259: pins 0 to 7.
        case firstPIC = 0
        /// The second 8259: pins 0 to 7.
        case secondPIC = 1
        /// The I/O APIC: pins 0 to 23.
        case ioAPIC = 2
    }

    /// Where an interrupt goes.
    public enum Destination: Hashable, Sendable {
        /// A pin of an interrupt controller.
        case pin(Controller, UInt32)
        /// A message: what a PCI function's MSI capability holds.
        case message(address: UInt64, data: UInt32)
    }

    /// The global system interrupt.
    public var gsi: UInt32
    /// Where it goes.
    public var destination: Destination

    /// Makes a route; a gsi may have several to pins, and only one to a message.
    public init(gsi: UInt32, to destination: Destination) {
        self.gsi = gsi
        self.destination = destination
    }

    var entry: kvm_irq_routing_entry {
        switch destination {
        case .pin(let controller, let pin): ckvm_route_to_irqchip(gsi, controller.rawValue, pin)
        case .message(let address, let data): ckvm_route_to_msi(gsi, address, data)
        }
    }
}
