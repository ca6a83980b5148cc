// SPDX-License-Identifier: Apache-2.0
//
// Accesses that a device keeps while their vCPU is out of KVM_RUN: letting it do so, and completing them.

import CKVMUser
public import KVM
import LinuxSystem
import Synchronization
import SystemPackage

extension ControlDescriptor {
    /// Lets signals end a vCPU's wait for the device, or not. C: `KVM_DEV_USER_PARK`.
    ///
    /// While it is on, a signal to the vCPU's thread, ``VirtualCPUInterrupter`` say, makes `VirtualCPU.run()` return
    /// `.interrupted` however long the device takes, and the next run completes the access. The guest and the emulation
    /// process see it exactly once. Not parked, but waited for, are accesses to ports, what follows a parked access in
    /// its instruction, and 8 bytes that end less than 24 (a load) or 1016 bytes (a store) before a page's end, and not
    /// at it.
    ///
    /// - Parameter enabled: off in a new device. What is parked when it goes off stays so, and is completed.
    /// - Throws: ``ForwardingError``: ENOTTY without ``DeviceInformation/Features/park``; EMFILE, since the virtual
    ///   machine keeps a copy of the descriptor from the first time on.
    public func setParking(_ enabled: Bool) throws(ForwardingError) {
        // First: an exit for a parked access must find somebody to ask.
        if enabled { try parking.begin(on: descriptor) }
        var raw = kvm_dev_user_park(enable: enabled ? 1 : 0, pad: 0)
        _ = try call("KVM_DEV_USER_PARK", CKVMUSER_PARK, &raw)
    }

    /// Waits until a vCPU's parked access is complete, as KVM_RUN would have. C: `KVM_DEV_USER_RESUME`.
    ///
    /// `VirtualCPU.run()` does this for its callers. Any thread of the VMM may.
    ///
    /// - Parameters:
    ///   - vcpu: the vCPU's `index`.
    ///   - address: of the exit, in guest physical memory: an exit at another one is not for what is parked.
    /// - Returns: what it gave; `.notParked` if no access of that vCPU's is parked there; `.interrupted` if a signal came, or
    ///   `immediate_exit` is set in the vCPU's `struct kvm_run`.
    /// - Throws: ``ForwardingError``: EINVAL if there is no such vCPU, EBUSY while another thread waits for it.
    public func resume(vcpu: UInt32, at address: UInt64) throws(ForwardingError) -> AccessResumption {
        try descriptor.resume(vcpu: vcpu, at: address)
    }
}

/// A device's part in its virtual machine's parking.
final class DeviceParking: Sendable {
    private let machine: VirtualMachine
    private let placed = PlacedMemory()
    private let hasBegun = Mutex(false)

    init(in machine: VirtualMachine) {
        self.machine = machine
    }

    /// Notes where the device may answer from now on.
    func note(_ range: GuestRange) {
        if range.bus == .memory { placed.add(range) }
    }

    /// Makes the device one that vCPUs ask, once.
    func begin(on descriptor: borrowing OwnedDescriptor) throws(ForwardingError) {
        let device: ParkingDevice
        do throws(Errno) {
            device = ParkingDevice(try descriptor.duplicate(), placed)
        } catch {
            throw ForwardingError(call: "fcntl(F_DUPFD_CLOEXEC)", errno: error)
        }
        hasBegun.withLock { hasBegun in
            if !hasBegun { machine.add(device) }
            hasBegun = true
        }
    }
}

/// What the virtual machine keeps of a device that parks.
private final class ParkingDevice: ParkedAccesses {
    private let descriptor: OwnedDescriptor
    private let placed: PlacedMemory

    init(_ descriptor: consuming OwnedDescriptor, _ placed: PlacedMemory) {
        self.descriptor = descriptor
        self.placed = placed
    }

    func resume(_ access: VirtualCPU.MemoryAccess, of vcpu: UInt32) throws(KVMError) -> AccessResumption {
        // Spares the exits that are the VMM's own a system call each.
        guard placed.mayHold(access.address) else { return .notParked }
        do throws(ForwardingError) {
            return try descriptor.resume(vcpu: vcpu, at: access.address)
        } catch {
            throw KVMError(call: error.call, errno: error.errno)
        }
    }
}

/// Where in guest physical memory a device has ever been: an access may still be parked where it is no more.
private final class PlacedMemory: Sendable {
    private let bounds = Mutex<ClosedRange<UInt64>?>(nil)

    /// Adds a range, and what lies between it and the others: a guest may move ranges as often as it likes.
    func add(_ range: GuestRange) {
        let (last, overflow) = range.address.addingReportingOverflow(range.length &- 1)
        guard range.length > 0, !overflow else { return }
        bounds.withLock { bounds in
            let before = bounds ?? range.address...last
            bounds = min(before.lowerBound, range.address)...max(before.upperBound, last)
        }
    }

    func mayHold(_ address: UInt64) -> Bool {
        bounds.withLock { $0?.contains(address) ?? false }
    }
}

extension OwnedDescriptor {
    /// KVM_DEV_USER_RESUME, for this descriptor's two owners.
    fileprivate func resume(vcpu: UInt32, at address: UInt64) throws(ForwardingError) -> AccessResumption {
        var raw = kvm_dev_user_resume(addr: address, data: 0, vcpu: vcpu, pad: 0)
        do throws(Errno) {
            try ioctl(CKVMUSER_RESUME, &raw, onInterrupt: .fail)
            return .complete(raw.data)
        } catch {
            switch error {
            case .noSuchFileOrDirectory: return .notParked
            case .interrupted: return .interrupted
            default: throw ForwardingError(call: "KVM_DEV_USER_RESUME", errno: error)
            }
        }
    }
}
