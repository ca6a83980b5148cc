// SPDX-License-Identifier: Apache-2.0
//
// /dev/kvm: what this kernel's KVM can do, and where virtual machines come from.

import CKVM
public import LinuxSystem
public import SystemPackage

/// The system descriptor, /dev/kvm.
///
/// ```swift
/// let system = try KVMSystem()
/// let machine = try system.makeVirtualMachine()
/// ```
public struct KVMSystem: ~Copyable, Sendable {
    /// The descriptor itself.
    public let descriptor: OwnedDescriptor

    /// The version of the interface that this library speaks, and every kernel since 2.6.22.
    public static let apiVersion = 12

    /// Opens KVM and checks the version of its interface. C: `open`, `KVM_GET_API_VERSION`.
    ///
    /// - Parameter path: the device node.
    /// - Throws: ENOENT without KVM, EACCES without the right to use it; ENOTSUP for another version than 12.
    public init(path: FilePath = "/dev/kvm") throws(KVMError) {
        let opened: OwnedDescriptor
        do throws(Errno) {
            opened = try OwnedDescriptor.open(path, .readWrite)
        } catch {
            throw KVMError(call: "open \(path)", errno: error)
        }
        guard try opened.kvm("KVM_GET_API_VERSION", CKVM_GET_API_VERSION) == Self.apiVersion else {
            throw KVMError(call: "KVM_GET_API_VERSION", errno: .notSupported)
        }
        descriptor = opened
    }

    /// What the kernel says of an optional part. C: `KVM_CHECK_EXTENSION`.
    ///
    /// - Returns: 0 where it is absent; otherwise 1, or a number that the capability gives a meaning to.
    /// - Throws: errno of the call.
    public func check(_ capability: Capability) throws(KVMError) -> Int {
        try descriptor.check(capability)
    }

    /// The size in bytes of each vCPU's shared `struct kvm_run` and what follows it. C: `KVM_GET_VCPU_MMAP_SIZE`.
    ///
    /// - Throws: errno of the call.
    public func virtualCPUMappingSize() throws(KVMError) -> Int {
        Int(try descriptor.kvm("KVM_GET_VCPU_MMAP_SIZE", CKVM_GET_VCPU_MMAP_SIZE))
    }

    /// The CPUID leaves that KVM can give a guest on this machine. C: `KVM_GET_SUPPORTED_CPUID`.
    ///
    /// - Returns: a table fit for ``VirtualCPU/setCPUID(_:)``, as it is or with features taken away.
    /// - Throws: errno of the call.
    public func supportedCPUID() throws(KVMError) -> [CPUIDEntry] {
        unsafe try CPUIDEntry.table("KVM_GET_SUPPORTED_CPUID") { entries, count in
            unsafe ckvm_supported_cpuid(descriptor.rawValue, entries, &count)
        }
    }

    /// Creates a virtual machine, with no memory and no vCPU. C: `KVM_CREATE_VM`.
    ///
    /// - Parameter type: the architecture's machine type; 0 is the usual one.
    /// - Throws: errno of the call.
    public func makeVirtualMachine(type: UInt = 0) throws(KVMError) -> VirtualMachine {
        let mappingSize = try virtualCPUMappingSize()
        // The kernel makes it close-on-exec.
        let machine = OwnedDescriptor(adopting: try descriptor.kvm("KVM_CREATE_VM", CKVM_CREATE_VM, type))
        return VirtualMachine(adopting: machine, virtualCPUMappingSize: mappingSize)
    }
}

/// An optional part of KVM, for ``KVMSystem/check(_:)`` and ``VirtualMachine/check(_:)``. C: `KVM_CAP_*`.
public struct Capability: RawRepresentable, Hashable, Sendable {
    /// The number in `<linux/kvm.h>`.
    public let rawValue: Int32

    /// Names a capability by its number in `<linux/kvm.h>`.
    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// Interrupt controllers in the kernel.
    public static let irqchip = Capability(rawValue: KVM_CAP_IRQCHIP)
    /// Guest memory slots backed by this process's memory.
    public static let userMemory = Capability(rawValue: KVM_CAP_USER_MEMORY)
    /// How many memory slots a VM has.
    public static let memorySlots = Capability(rawValue: KVM_CAP_NR_MEMSLOTS)
    /// How many vCPUs are recommended at most.
    public static let recommendedVirtualCPUs = Capability(rawValue: KVM_CAP_NR_VCPUS)
    /// How many vCPUs are possible.
    public static let maximumVirtualCPUs = Capability(rawValue: KVM_CAP_MAX_VCPUS)
    /// Stores to MMIO collected in a ring; the value is the ring's page in a vCPU's mapping.
    public static let coalescedMMIO = Capability(rawValue: KVM_CAP_COALESCED_MMIO)
    /// Doorbells: an eventfd signalled by a guest's store.
    public static let ioEventDescriptors = Capability(rawValue: KVM_CAP_IOEVENTFD)
    /// Interrupts injected through an eventfd.
    public static let irqDescriptors = Capability(rawValue: KVM_CAP_IRQFD)
    /// Level interrupts through an eventfd, with another one for the guest's acknowledgement.
    public static let irqDescriptorResample = Capability(rawValue: KVM_CAP_IRQFD_RESAMPLE)
    /// Routes from gsi to pins and messages.
    public static let irqRouting = Capability(rawValue: KVM_CAP_IRQ_ROUTING)
    /// Message-signalled interrupts without a route.
    public static let signalMSI = Capability(rawValue: KVM_CAP_SIGNAL_MSI)
    /// Devices in the kernel, made by type. Older kernels say 0 on x86 and have them all the same:
    /// ``VirtualMachine/testDevice(type:)`` asks for a type itself.
    public static let deviceControl = Capability(rawValue: KVM_CAP_DEVICE_CTRL)
    /// Read-only memory slots: a guest's store to one exits as MMIO.
    public static let readOnlyMemory = Capability(rawValue: KVM_CAP_READONLY_MEM)
    /// KVM_RUN that returns at once when asked to.
    public static let immediateExit = Capability(rawValue: KVM_CAP_IMMEDIATE_EXIT)
}

extension OwnedDescriptor {
    /// Runs a KVM ioctl that takes an integer, and names it in the error.
    @discardableResult
    func kvm(_ name: String, _ command: UInt, _ argument: UInt = 0) throws(KVMError) -> CInt {
        do throws(Errno) {
            return try ioctl(command, argument)
        } catch {
            throw KVMError(call: name, errno: error)
        }
    }

    /// Runs a KVM ioctl that takes a structure, and names it in the error.
    @discardableResult
    func kvm<Argument: BitwiseCopyable>(
        _ name: String, _ command: UInt, _ argument: inout Argument
    ) throws(KVMError) -> CInt {
        do throws(Errno) {
            return try ioctl(command, &argument)
        } catch {
            throw KVMError(call: name, errno: error)
        }
    }

    func check(_ capability: Capability) throws(KVMError) -> Int {
        Int(try kvm("KVM_CHECK_EXTENSION", CKVM_CHECK_EXTENSION, UInt(bitPattern: Int(capability.rawValue))))
    }
}

/// Runs a whole KVM call of the C target, and names it in the error.
func kvmCall(_ name: String, _ call: () -> CInt) throws(KVMError) {
    do throws(Errno) {
        try systemCall(onInterrupt: .retry, call)
    } catch {
        throw KVMError(call: name, errno: error)
    }
}
