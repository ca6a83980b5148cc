// SPDX-License-Identifier: Apache-2.0
//
// A virtual machine: its memory, its vCPUs, and the devices that the kernel emulates for it.

import CKVM
public import LinuxSystem
import Synchronization
import SystemPackage

/// A virtual machine. C: the descriptor that `KVM_CREATE_VM` returns.
///
/// It is shared: each vCPU belongs to one thread and keeps the virtual machine, and any thread may change memory,
/// interrupts and devices meanwhile. The kernel destroys it when this object, every vCPU and every device descriptor
/// are gone. Only the process that created it may use it; KVM answers EIO to others.
public final class VirtualMachine: Sendable {
    /// The descriptor itself.
    public let descriptor: OwnedDescriptor
    private let virtualCPUMappingSize: Int
    /// What each slot shows the guest. Held for the call as well, so that the kernel's slots and these agree.
    private let slots = Mutex<[UInt32: GuestMemory]>([:])
    /// How many vCPUs there are. Held for the call as well, so that the kernel counts them in the same order.
    private let virtualCPUCount = Mutex<UInt32>(0)
    private let parkedAccesses = Mutex<[any ParkedAccesses]>([])

    init(adopting descriptor: consuming OwnedDescriptor, virtualCPUMappingSize: Int) {
        self.descriptor = descriptor
        self.virtualCPUMappingSize = virtualCPUMappingSize
    }

    /// What the kernel says of an optional part, for this virtual machine. C: `KVM_CHECK_EXTENSION`.
    ///
    /// - Returns: 0 where it is absent; otherwise 1, or a number that the capability gives a meaning to.
    /// - Throws: errno of the call.
    public func check(_ capability: Capability) throws(KVMError) -> Int {
        try descriptor.check(capability)
    }

    // MARK: Memory

    /// How a memory slot behaves. C: `KVM_MEM_*`.
    public struct MemoryOptions: OptionSet, Sendable {
        /// The flags of `struct kvm_userspace_memory_region`.
        public let rawValue: UInt32

        /// Takes the kernel's flags.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// Keep a bitmap of the pages that the guest writes. C: `KVM_MEM_LOG_DIRTY_PAGES`.
        public static let logDirtyPages = MemoryOptions(rawValue: CKVM_MEM_LOG_DIRTY_PAGES)
        /// A guest's store exits as MMIO; needs ``Capability/readOnlyMemory``. C: `KVM_MEM_READONLY`.
        public static let readOnly = MemoryOptions(rawValue: CKVM_MEM_READONLY)
    }

    /// Shows the guest `memory` at its address, in place of what the slot showed. C: `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// A slot in use is emptied first: for that moment the guest sees neither, and its accesses there exit as MMIO.
    ///
    /// - Parameters:
    ///   - memory: kept until the slot changes.
    ///   - slot: 0 up to what ``Capability/memorySlots`` says.
    ///   - options: see there.
    /// - Throws: EEXIST if it overlaps another slot, EINVAL for a slot number too high. The slot is empty then.
    public func setMemory(_ memory: GuestMemory, slot: UInt32, options: MemoryOptions = []) throws(KVMError) {
        try slots.withLock { slots throws(KVMError) in
            if slots[slot] != nil { try empty(slot, &slots) }
            var region = kvm_userspace_memory_region(
                slot: slot, flags: options.rawValue, guest_phys_addr: memory.address,
                memory_size: UInt64(memory.count), userspace_addr: UInt64(UInt(bitPattern: unsafe memory.baseAddress)))
            try descriptor.kvm("KVM_SET_USER_MEMORY_REGION", CKVM_SET_USER_MEMORY_REGION, &region)
            slots[slot] = memory
        }
    }

    /// Empties a slot; guest accesses there exit as MMIO from now on. C: `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// - Throws: EINVAL if the slot was empty.
    public func removeMemory(slot: UInt32) throws(KVMError) {
        try slots.withLock { slots throws(KVMError) in try empty(slot, &slots) }
    }

    private func empty(_ slot: UInt32, _ slots: inout [UInt32: GuestMemory]) throws(KVMError) {
        var region = kvm_userspace_memory_region(
            slot: slot, flags: 0, guest_phys_addr: slots[slot]?.address ?? 0, memory_size: 0, userspace_addr: 0)
        try descriptor.kvm("KVM_SET_USER_MEMORY_REGION", CKVM_SET_USER_MEMORY_REGION, &region)
        // Only now: until the call returned the guest could reach the pages.
        slots[slot] = nil
    }

    /// The memory that a slot shows, if any.
    public func memory(slot: UInt32) -> GuestMemory? {
        slots.withLock { $0[slot] }
    }

    /// Says where three pages for Intel's task state segment may lie; needed on Intel CPUs. C: `KVM_SET_TSS_ADDR`.
    ///
    /// - Parameter address: guest physical, below 4 GiB, in no slot.
    /// - Throws: errno of the call.
    public func setTaskStateAddress(_ address: UInt32) throws(KVMError) {
        try descriptor.kvm("KVM_SET_TSS_ADDR", CKVM_SET_TSS_ADDR, UInt(address))
    }

    /// Says where a page for Intel's identity map may lie; before the first vCPU. C: `KVM_SET_IDENTITY_MAP_ADDR`.
    ///
    /// - Parameter address: guest physical, below 4 GiB, in no slot; 0 is the kernel's default.
    /// - Throws: EINVAL once there is a vCPU.
    public func setIdentityMapAddress(_ address: UInt64) throws(KVMError) {
        var address = address
        try descriptor.kvm("KVM_SET_IDENTITY_MAP_ADDR", CKVM_SET_IDENTITY_MAP_ADDR, &address)
    }

    // MARK: vCPUs

    /// Creates a vCPU. C: `KVM_CREATE_VCPU`, `mmap`.
    ///
    /// - Parameter id: the vCPU's number, on x86 also its APIC id.
    /// - Throws: EEXIST if there is one with that id, EINVAL for one too high.
    public func makeVirtualCPU(id: UInt32) throws(KVMError) -> VirtualCPU {
        let (number, index) = try virtualCPUCount.withLock { count throws(KVMError) in
            let number = try descriptor.kvm("KVM_CREATE_VCPU", CKVM_CREATE_VCPU, UInt(id))
            defer { count += 1 }
            return (number, count)
        }
        let vcpu = OwnedDescriptor(adopting: number)
        let mapping: MemoryMapping
        do throws(Errno) {
            mapping = try MemoryMapping(mapping: vcpu, count: virtualCPUMappingSize)
        } catch {
            throw KVMError(call: "mmap vCPU", errno: error)
        }
        return VirtualCPU(
            adopting: vcpu, id: id, index: index, run: RunStructure(mapping), of: self)
    }

    /// Has every vCPU's ``VirtualCPU/run()`` ask `parked` from now on before it returns an access to memory.
    ///
    /// - Parameter parked: kept as long as the virtual machine.
    public func add(_ parked: any ParkedAccesses) {
        parkedAccesses.withLock { $0.append(parked) }
    }

    /// Asks for a parked access, one after the other.
    func resume(_ access: VirtualCPU.MemoryAccess, of vcpu: UInt32) throws(KVMError) -> AccessResumption {
        for parked in parkedAccesses.withLock({ $0 }) {
            let resumption = try parked.resume(access, of: vcpu)
            if resumption != .notParked { return resumption }
        }
        return .notParked
    }

    /// Whether there is anybody to ask.
    var hasParkedAccesses: Bool { parkedAccesses.withLock { !$0.isEmpty } }

    // MARK: Devices in the kernel

    /// Creates a device that the kernel emulates. C: `KVM_CREATE_DEVICE`.
    ///
    /// - Parameter type: `KVM_DEV_TYPE_*`, or a type that a module registered.
    /// - Returns: the device's descriptor, for its ioctls.
    /// - Throws: ENODEV for a type that the kernel does not know; what the device itself answers.
    public func makeDevice(type: UInt32) throws(KVMError) -> OwnedDescriptor {
        var request = kvm_create_device(type: type, fd: 0, flags: 0)
        try descriptor.kvm("KVM_CREATE_DEVICE", CKVM_CREATE_DEVICE, &request)
        return OwnedDescriptor(adopting: CInt(bitPattern: request.fd))
    }

    /// Asks whether ``makeDevice(type:)`` knows a type, and creates nothing. C: `KVM_CREATE_DEVICE_TEST`.
    ///
    /// - Throws: ENODEV for a type that the kernel does not know.
    public func testDevice(type: UInt32) throws(KVMError) {
        var request = kvm_create_device(type: type, fd: 0, flags: UInt32(KVM_CREATE_DEVICE_TEST))
        try descriptor.kvm("KVM_CREATE_DEVICE_TEST", CKVM_CREATE_DEVICE, &request)
    }

    /// Creates the interrupt controllers: a local APIC for each vCPU, an I/O APIC and two 8259. C: `KVM_CREATE_IRQCHIP`.
    ///
    /// Before the first vCPU. From then on a halted vCPU waits in the kernel and ``VirtualCPU/Exit/halt`` never
    /// comes, and each vCPU but number 0 waits for its INIT and start-up messages unless
    /// ``VirtualCPU/setMultiprocessingState(_:)`` makes it runnable.
    ///
    /// - Throws: EEXIST if there are some, EINVAL once there is a vCPU.
    public func makeInterruptControllers() throws(KVMError) {
        try descriptor.kvm("KVM_CREATE_IRQCHIP", CKVM_CREATE_IRQCHIP)
    }

    /// Creates the 8254 interval timer; needs the interrupt controllers. C: `KVM_CREATE_PIT2`.
    ///
    /// - Throws: EEXIST if there is one, ENOENT without interrupt controllers.
    public func makeIntervalTimer() throws(KVMError) {
        var configuration = kvm_pit_config()
        try descriptor.kvm("KVM_CREATE_PIT2", CKVM_CREATE_PIT2, &configuration)
    }
}
