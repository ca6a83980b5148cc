// SPDX-License-Identifier: Apache-2.0
//
// What went wrong in a call to KVM, and what to do about it.

import Glibc
public import SystemPackage

/// A call to KVM that failed: which one, and the kernel's answer.
public struct KVMError: Error, Hashable, Sendable {
    /// The ioctl's name as in the kernel's documentation, "KVM_CREATE_VM" say, or "open /dev/kvm", "mmap vCPU".
    public let call: String
    /// The kernel's answer.
    public let errno: Errno

    /// Makes an error.
    ///
    /// - Parameters:
    ///   - call: the ioctl's name, or what else was tried.
    ///   - errno: the kernel's answer.
    public init(call: String, errno: Errno) {
        self.call = call
        self.errno = errno
    }
}

extension KVMError: CustomStringConvertible {
    /// What was tried, what came back and, where it is known, what to do.
    public var description: String {
        guard let advice else { return "\(call): \(errno)" }
        return "\(call): \(errno): \(advice)"
    }

    /// ENODEV, which swift-system has no name for.
    private static let unknownDevice = Errno(rawValue: ENODEV)

    private var advice: String? {
        if call.hasPrefix("open ") {
            switch errno {
            case .noSuchFileOrDirectory:
                return "load kvm-intel or kvm-amd (modprobe), and see that the firmware leaves virtualisation on"
            case .permissionDenied:
                return "join the group that owns the device node, usually kvm, or run as root"
            case .noSuchAddressOrDevice, Self.unknownDevice:
                return "the node is there but no kernel module serves it; load kvm-intel or kvm-amd (modprobe)"
            default: return nil
            }
        }
        switch (call, errno) {
        case ("KVM_GET_API_VERSION", _):
            return "this kernel's KVM speaks another version of the interface than 12; use a kernel from 2.6.22 on"
        case ("KVM_CREATE_DEVICE", Self.unknownDevice), ("KVM_CREATE_DEVICE_TEST", Self.unknownDevice):
            return "this kernel does not know the device type; is its module loaded?"
        case ("KVM_CREATE_VM", .resourceBusy):
            return "another hypervisor may hold the CPU's virtualisation extensions"
        case ("KVM_SET_USER_MEMORY_REGION", .fileExists):
            return "the memory overlaps another slot"
        case ("KVM_CREATE_VCPU", .fileExists):
            return "there is a vCPU with that id already"
        case (_, .ioError):
            return "only the process that created the VM may use it"
        default:
            return nil
        }
    }
}
