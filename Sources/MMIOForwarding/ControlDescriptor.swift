// SPDX-License-Identifier: Apache-2.0
//
// The VMM's side of a device: makes it, says where it answers, hands out the emulation descriptor.

import CKVMUser
public import KVM
public import LinuxSystem
import SystemPackage

/// The control descriptor of a KVM_DEV_TYPE_USER device.
///
/// Only the process that made the virtual machine can use it. Closing it leaves the device, which lives as long as
/// the virtual machine.
public struct ControlDescriptor: ~Copyable, Sendable {
    /// The descriptor itself.
    public let descriptor: OwnedDescriptor
    let parking: DeviceParking

    /// Makes a device. C: `KVM_CREATE_DEVICE`.
    ///
    /// - Parameters:
    ///   - machine: where the device will be.
    ///   - type: the module's type number.
    /// - Throws: ``ForwardingError``: ENODEV if the module is not loaded, ENOMEM.
    public init(in machine: VirtualMachine, type: DeviceType) throws(ForwardingError) {
        do {
            descriptor = try machine.makeDevice(type: type.rawValue)
            parking = DeviceParking(in: machine)
        } catch {
            throw ForwardingError(call: "KVM_CREATE_DEVICE", errno: error.errno)
        }
    }

    /// Makes a device of the type that the loaded module registered.
    ///
    /// - Throws: ``ForwardingError``: ENOENT or ENODEV if the module is not loaded, ENOMEM.
    public init(in machine: VirtualMachine) throws(ForwardingError) {
        try self.init(in: machine, type: try DeviceType.current())
    }

    func call<Argument: BitwiseCopyable>(
        _ name: String, _ command: UInt, _ argument: inout Argument
    ) throws(ForwardingError) -> CInt {
        do {
            return try descriptor.ioctl(command, &argument)
        } catch {
            throw ForwardingError(call: name, errno: error)
        }
    }

    /// What the device offers. C: `KVM_DEV_USER_INFO`.
    public func information() throws(ForwardingError) -> DeviceInformation {
        var raw = kvm_dev_user_info()
        _ = try call("KVM_DEV_USER_INFO", CKVMUSER_INFO, &raw)
        return DeviceInformation(raw)
    }

    /// Makes the emulation descriptor, close-on-exec. C: `KVM_DEV_USER_EMULATION_FD`.
    ///
    /// - Parameter nonBlocking: whether reads fail with EAGAIN where they would wait (O_NONBLOCK).
    /// - Throws: ``ForwardingError``: EBUSY while there is one, EMFILE.
    public func makeEmulationDescriptor(nonBlocking: Bool = false) throws(ForwardingError) -> EmulationDescriptor {
        let options: FileDescriptor.OpenOptions = nonBlocking ? [.closeOnExec, .nonBlocking] : .closeOnExec
        var raw = kvm_dev_user_emulation_fd(flags: UInt32(bitPattern: options.rawValue), pad: 0)
        let number = try call("KVM_DEV_USER_EMULATION_FD", CKVMUSER_EMULATION_FD, &raw)
        return EmulationDescriptor(adopting: OwnedDescriptor(adopting: number))
    }

    /// Has the device answer at `range`; a known id moves there, without a gap. C: `KVM_DEV_USER_PA_RANGE`.
    ///
    /// May be called at any time, the guest running.
    ///
    /// - Parameters:
    ///   - id: names the range in requests; below ``DeviceInformation/maximumRanges``.
    ///   - range: where; its length is 1 byte to 2 GiB - 1.
    /// - Throws: ``ForwardingError``: EINVAL for a range that wraps, is empty or too long, or a port range past 64
    ///   KiB; EEXIST if it overlaps another range of this device; ENOSPC if KVM's bus is full.
    public func setRange(_ id: UInt32, to range: GuestRange) throws(ForwardingError) {
        guard range.length > 0 else {
            throw ForwardingError(call: "KVM_DEV_USER_PA_RANGE", errno: .invalidArgument)
        }
        parking.note(range)
        try setRange(
            kvm_dev_user_pa_range(
                addr: range.address, len: range.length, bus: range.bus.rawValue, id: id, flags: 0, pad: 0))
    }

    /// Has the device answer there no more. C: `KVM_DEV_USER_PA_RANGE` with length 0.
    ///
    /// - Throws: ``ForwardingError``: ENOENT if there is no such range.
    public func removeRange(_ id: UInt32) throws(ForwardingError) {
        try setRange(kvm_dev_user_pa_range(addr: 0, len: 0, bus: 0, id: id, flags: 0, pad: 0))
    }

    private func setRange(_ raw: kvm_dev_user_pa_range) throws(ForwardingError) {
        var raw = raw
        _ = try call("KVM_DEV_USER_PA_RANGE", CKVMUSER_PA_RANGE, &raw)
    }

    /// Sets how long an access waits for a reply, or for space in the queue. C: `KVM_DEV_USER_TIMEOUT`.
    ///
    /// - Parameter limit: a wait is never shorter, and up to two clock ticks longer; nil for no limit. 5 seconds in a new device.
    /// - Throws: ``ForwardingError``: EINVAL for a limit that is not positive, or beyond 584 years.
    public func setTimeout(_ limit: Duration?) throws(ForwardingError) {
        var nanoseconds: UInt64 = 0
        if let limit {
            let (seconds, attoseconds) = limit.components
            let (product, overflow) = UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
            let (sum, carry) = product.addingReportingOverflow(UInt64(clamping: attoseconds / 1_000_000_000))
            guard !overflow, !carry, sum > 0 else {
                throw ForwardingError(call: "KVM_DEV_USER_TIMEOUT", errno: .invalidArgument)
            }
            nanoseconds = sum
        }
        _ = try call("KVM_DEV_USER_TIMEOUT", CKVMUSER_TIMEOUT, &nanoseconds)
    }

    /// Says what accesses get while no emulation descriptor is open. C: `KVM_DEV_USER_ON_CLOSE`.
    ///
    /// It counts before the first descriptor is made as well as after the last one has closed. A change away from
    /// ``ClosePolicy/hold`` while there is none aborts what is held.
    ///
    /// - Parameter policy: ``ClosePolicy/abort`` in a new device.
    /// - Throws: ``ForwardingError``: ENOTTY if the loaded module is older than this call.
    public func setOnClose(policy: ClosePolicy) throws(ForwardingError) {
        var raw = kvm_dev_user_on_close(policy: policy.number, pad: 0)
        _ = try call("KVM_DEV_USER_ON_CLOSE", CKVMUSER_ON_CLOSE, &raw)
    }
}

/// What accesses get while no emulation descriptor is open. C: `KVM_USER_ON_CLOSE_*`.
public enum ClosePolicy: String, Sendable, Hashable, CaseIterable {
    /// Loads read all-ones, stores are dropped, nothing waits: a device that was pulled out.
    case abort
    /// Accesses wait for the next emulation descriptor, a load up to the time limit and a store without space too.
    ///
    /// Requests that were read and not replied to are delivered again, before all others, in their old order, with
    /// ``ForwardedRequest/isRedelivered`` set: no store is lost and none is reordered.
    case hold
    /// Accesses exit to the VMM, KVM_EXIT_MMIO or KVM_EXIT_IO; what was under way at the close is aborted.
    case exit

    fileprivate var number: UInt32 {
        switch self {
        case .abort: UInt32(KVM_USER_ON_CLOSE_ABORT)
        case .hold: UInt32(KVM_USER_ON_CLOSE_HOLD)
        case .exit: UInt32(KVM_USER_ON_CLOSE_EXIT)
        }
    }
}

/// Where a device answers.
public struct GuestRange: Hashable, Sendable {
    /// Which of a guest's address spaces.
    public enum Bus: Sendable, Hashable {
        /// Guest physical memory.
        case memory
        /// I/O ports.
        case ports

        var rawValue: UInt32 {
            switch self {
            case .memory: UInt32(KVM_USER_BUS_MMIO)
            case .ports: UInt32(KVM_USER_BUS_PIO)
            }
        }
    }

    /// Memory or ports.
    public var bus: Bus
    /// First guest physical address, or port.
    public var address: UInt64
    /// Bytes, or ports.
    public var length: UInt64

    /// Makes a range; whether it is possible, the kernel says.
    public init(_ bus: Bus, at address: UInt64, length: UInt64) {
        self.bus = bus
        self.address = address
        self.length = length
    }
}
