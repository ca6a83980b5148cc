// SPDX-License-Identifier: Apache-2.0
//
// The emulation process's side of a device besides requests: what it asks, and what it sets.

import CKVMUser
import LinuxSystem
import SystemPackage

extension EmulationDescriptor {
    /// Runs a call on the descriptor that configures the device.
    func call<Argument: BitwiseCopyable>(
        _ name: String, _ command: UInt, _ argument: inout Argument
    ) throws(ForwardingError) {
        do {
            try descriptor.ioctl(command, &argument)
        } catch {
            throw ForwardingError(call: name, errno: error)
        }
    }

    /// What the device offers. C: `KVM_DEV_USER_INFO`.
    ///
    /// - Throws: ``ForwardingError``: ENODEV if the virtual machine is gone, ENOTTY from a module without optional
    ///   parts.
    public func information() throws(ForwardingError) -> DeviceInformation {
        var raw = kvm_dev_user_info()
        try call("KVM_DEV_USER_INFO", CKVMUSER_INFO, &raw)
        return DeviceInformation(raw)
    }

    /// Has a thread that waits for requests woken once for several posted stores. C: `KVM_DEV_USER_COALESCE`.
    ///
    /// A load, and whatever waits for stores, wakes it at once all the same. No order changes, and a call that need not
    /// wait takes whatever is pending. The last close switches it off.
    ///
    /// - Parameters:
    ///   - stores: so many wake it at once; at least 1, and more than the queue's depth makes no sense. nil: every
    ///     store does, as at first.
    ///   - time: how long a store may be held back; 1 ns to 1 s. Means nothing without `stores`.
    /// - Throws: ``ForwardingError``: EINVAL for what is out of range, ENOTTY from a module without
    ///   ``DeviceInformation/Features/coalescing``, ENODEV.
    public func setCoalescing(stores: UInt32?, for time: Duration = .microseconds(100)) throws(ForwardingError) {
        let name = "KVM_DEV_USER_COALESCE"
        var raw = kvm_dev_user_coalesce()
        if let stores {
            guard stores > 0, time > .zero, time <= .seconds(1) else {
                throw ForwardingError(call: name, errno: .invalidArgument)
            }
            raw.stores = stores
            raw.ns = UInt64(max(1, time / .nanoseconds(1)))
        }
        try call(name, CKVMUSER_COALESCE, &raw)
    }
}
