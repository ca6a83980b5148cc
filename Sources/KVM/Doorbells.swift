// SPDX-License-Identifier: Apache-2.0
//
// Guest stores that the kernel takes without an exit: as a signal on an eventfd, or collected in a ring.

import CKVM
public import LinuxSystem

/// A guest address whose stores signal an eventfd. C: `struct kvm_ioeventfd`.
public struct Doorbell: Hashable, Sendable {
    /// Which of the two address spaces.
    public enum Bus: Sendable {
        /// Guest physical memory.
        case memory
        /// I/O ports.
        case port
    }

    /// Memory or ports.
    public var bus: Bus
    /// Guest physical address or port.
    public var address: UInt64
    /// The width in bytes that matches, 1, 2, 4 or 8; 0 for any.
    public var length: UInt32
    /// The value that matches; nil for any.
    public var value: UInt64?

    /// Describes a doorbell.
    ///
    /// - Parameters:
    ///   - address: guest physical address or port.
    ///   - bus: memory or ports.
    ///   - length: the width in bytes that matches, 1, 2, 4 or 8; 0 for any, and then `value` must be nil.
    ///   - value: the value that matches; nil for any.
    public init(at address: UInt64, on bus: Bus = .memory, length: UInt32 = 0, value: UInt64? = nil) {
        self.address = address
        self.bus = bus
        self.length = length
        self.value = value
    }
}

extension VirtualMachine {
    /// Makes `event` an ioeventfd: a store that matches signals it, and the vCPU goes on. C: `KVM_IOEVENTFD`.
    ///
    /// - Throws: EEXIST if another one matches the same stores, EINVAL for a bad width, ENOSPC on a full bus.
    public func assignDoorbell(_ doorbell: Doorbell, to event: borrowing EventDescriptor) throws(KVMError) {
        try ioEventDescriptor(doorbell, event.descriptor.rawValue, flags: 0)
    }

    /// Ends what ``assignDoorbell(_:to:)`` began. C: `KVM_IOEVENTFD` with `KVM_IOEVENTFD_FLAG_DEASSIGN`.
    ///
    /// - Parameters:
    ///   - doorbell: the same as then.
    ///   - event: the same as then.
    /// - Throws: ENOENT if there is none like it.
    public func deassignDoorbell(_ doorbell: Doorbell, from event: borrowing EventDescriptor) throws(KVMError) {
        try ioEventDescriptor(doorbell, event.descriptor.rawValue, flags: CKVM_IOEVENTFD_FLAG_DEASSIGN)
    }

    private func ioEventDescriptor(_ doorbell: Doorbell, _ event: CInt, flags: UInt32) throws(KVMError) {
        var request = kvm_ioeventfd()
        request.addr = doorbell.address
        request.len = doorbell.length
        request.fd = event
        request.flags = flags
        if let value = doorbell.value {
            request.datamatch = value
            request.flags |= CKVM_IOEVENTFD_FLAG_DATAMATCH
        }
        if doorbell.bus == .port { request.flags |= CKVM_IOEVENTFD_FLAG_PIO }
        try descriptor.kvm("KVM_IOEVENTFD", CKVM_IOEVENTFD, &request)
    }

    /// Collects stores to a range in the ring that ``VirtualCPU/takeCoalescedStore()`` reads, and does not exit for
    /// them unless the ring is full. C: `KVM_REGISTER_COALESCED_MMIO`.
    ///
    /// - Throws: ENOSPC on a full bus.
    public func addCoalescedRange(at address: UInt64, count: UInt32) throws(KVMError) {
        try kvmCall("KVM_REGISTER_COALESCED_MMIO") { ckvm_register_coalesced(descriptor.rawValue, address, count) }
    }

    /// Ends what ``addCoalescedRange(at:count:)`` began. C: `KVM_UNREGISTER_COALESCED_MMIO`.
    ///
    /// - Throws: errno of the call; a range that was not added is no error to KVM.
    public func removeCoalescedRange(at address: UInt64, count: UInt32) throws(KVMError) {
        try kvmCall("KVM_UNREGISTER_COALESCED_MMIO") { ckvm_unregister_coalesced(descriptor.rawValue, address, count) }
    }
}
