// SPDX-License-Identifier: Apache-2.0
//
// An x86-64 vCPU's registers, and the calls that read and set them.

import CKVM
import LinuxSystem

/// The general registers of an x86-64 vCPU. C: `struct kvm_regs`.
public struct Registers: Hashable, Sendable {
    public var rax: UInt64 = 0
    public var rbx: UInt64 = 0
    public var rcx: UInt64 = 0
    public var rdx: UInt64 = 0
    public var rsi: UInt64 = 0
    public var rdi: UInt64 = 0
    public var rsp: UInt64 = 0
    public var rbp: UInt64 = 0
    public var r8: UInt64 = 0
    public var r9: UInt64 = 0
    public var r10: UInt64 = 0
    public var r11: UInt64 = 0
    public var r12: UInt64 = 0
    public var r13: UInt64 = 0
    public var r14: UInt64 = 0
    public var r15: UInt64 = 0
    /// The next instruction, relative to the code segment's base.
    public var rip: UInt64 = 0
    /// The flags; bit 1 is always 1.
    public var rflags: UInt64 = 2

    /// All zero, and in the flags only the bit that is always 1.
    public init() {}

    init(raw: kvm_regs) {
        (rax, rbx, rcx, rdx) = (raw.rax, raw.rbx, raw.rcx, raw.rdx)
        (rsi, rdi, rsp, rbp) = (raw.rsi, raw.rdi, raw.rsp, raw.rbp)
        (r8, r9, r10, r11) = (raw.r8, raw.r9, raw.r10, raw.r11)
        (r12, r13, r14, r15) = (raw.r12, raw.r13, raw.r14, raw.r15)
        (rip, rflags) = (raw.rip, raw.rflags)
    }

    var raw: kvm_regs {
        kvm_regs(
            rax: rax, rbx: rbx, rcx: rcx, rdx: rdx, rsi: rsi, rdi: rdi, rsp: rsp, rbp: rbp, r8: r8, r9: r9, r10: r10,
            r11: r11, r12: r12, r13: r13, r14: r14, r15: r15, rip: rip, rflags: rflags)
    }
}

/// A segment register with its hidden part. C: `struct kvm_segment`.
public struct Segment: Sendable {
    var raw: kvm_segment

    init(raw: kvm_segment) {
        self.raw = raw
    }

    /// A segment from its selector and the parts of its descriptor.
    ///
    /// - Parameters:
    ///   - selector: the visible part.
    ///   - base: linear address.
    ///   - limit: last offset.
    ///   - access: the descriptor's access byte (type, S, DPL, P).
    ///   - flags: the descriptor's flags nibble (AVL, L, D/B, G).
    public init(selector: UInt16, base: UInt64 = 0, limit: UInt32 = 0xffff_ffff, access: UInt8, flags: UInt8) {
        raw = kvm_segment()
        raw.selector = selector
        raw.base = base
        raw.limit = limit
        raw.type = access & 0xf
        raw.s = access >> 4 & 1
        raw.dpl = access >> 5 & 3
        raw.present = access >> 7 & 1
        raw.avl = flags & 1
        raw.l = flags >> 1 & 1
        raw.db = flags >> 2 & 1
        raw.g = flags >> 3 & 1
        raw.unusable = 1 - raw.present
    }

    /// The visible part.
    public var selector: UInt16 { raw.selector }
    /// Linear address of the segment.
    public var base: UInt64 { raw.base }
    /// Last offset in the segment.
    public var limit: UInt32 { raw.limit }
    /// The descriptor's access byte (type, S, DPL, P).
    public var access: UInt8 { raw.type & 0xf | (raw.s & 1) << 4 | (raw.dpl & 3) << 5 | (raw.present & 1) << 7 }
    /// The descriptor's flags nibble (AVL, L, D/B, G).
    public var flags: UInt8 { raw.avl & 1 | (raw.l & 1) << 1 | (raw.db & 1) << 2 | (raw.g & 1) << 3 }
}

/// The address and size of a descriptor table. C: `struct kvm_dtable`.
public struct DescriptorTable: Hashable, Sendable {
    /// Linear address.
    public var base: UInt64
    /// Last offset in the table.
    public var limit: UInt16

    /// Names a table.
    public init(base: UInt64, limit: UInt16) {
        self.base = base
        self.limit = limit
    }
}

/// Segments, control registers and tables of an x86-64 vCPU. C: `struct kvm_sregs`.
public struct SpecialRegisters: Sendable {
    var raw: kvm_sregs

    /// Code segment.
    public var cs: Segment {
        get { Segment(raw: raw.cs) }
        set { raw.cs = newValue.raw }
    }
    /// Data segment.
    public var ds: Segment {
        get { Segment(raw: raw.ds) }
        set { raw.ds = newValue.raw }
    }
    /// Extra segment.
    public var es: Segment {
        get { Segment(raw: raw.es) }
        set { raw.es = newValue.raw }
    }
    /// Thread-local segment.
    public var fs: Segment {
        get { Segment(raw: raw.fs) }
        set { raw.fs = newValue.raw }
    }
    /// Per-CPU segment.
    public var gs: Segment {
        get { Segment(raw: raw.gs) }
        set { raw.gs = newValue.raw }
    }
    /// Stack segment.
    public var ss: Segment {
        get { Segment(raw: raw.ss) }
        set { raw.ss = newValue.raw }
    }
    /// Task register.
    public var tr: Segment {
        get { Segment(raw: raw.tr) }
        set { raw.tr = newValue.raw }
    }
    /// Local descriptor table.
    public var ldt: Segment {
        get { Segment(raw: raw.ldt) }
        set { raw.ldt = newValue.raw }
    }
    /// Global descriptor table.
    public var gdt: DescriptorTable {
        get { DescriptorTable(base: raw.gdt.base, limit: raw.gdt.limit) }
        set { (raw.gdt.base, raw.gdt.limit) = (newValue.base, newValue.limit) }
    }
    /// Interrupt descriptor table.
    public var idt: DescriptorTable {
        get { DescriptorTable(base: raw.idt.base, limit: raw.idt.limit) }
        set { (raw.idt.base, raw.idt.limit) = (newValue.base, newValue.limit) }
    }
    /// Control register 0.
    public var cr0: UInt64 {
        get { raw.cr0 }
        set { raw.cr0 = newValue }
    }
    /// Control register 2: the address of the last page fault.
    public var cr2: UInt64 {
        get { raw.cr2 }
        set { raw.cr2 = newValue }
    }
    /// Control register 3: physical address of the page tables.
    public var cr3: UInt64 {
        get { raw.cr3 }
        set { raw.cr3 = newValue }
    }
    /// Control register 4.
    public var cr4: UInt64 {
        get { raw.cr4 }
        set { raw.cr4 = newValue }
    }
    /// Control register 8: the task priority.
    public var cr8: UInt64 {
        get { raw.cr8 }
        set { raw.cr8 = newValue }
    }
    /// Extended feature enable register.
    public var efer: UInt64 {
        get { raw.efer }
        set { raw.efer = newValue }
    }
    /// Base address of the local APIC, and its enable bits.
    public var apicBase: UInt64 {
        get { raw.apic_base }
        set { raw.apic_base = newValue }
    }
}

/// Whether a vCPU executes, waits or has not begun. C: `KVM_MP_STATE_*`.
public struct MultiprocessingState: RawRepresentable, Hashable, Sendable {
    /// The number in `<linux/kvm.h>`.
    public let rawValue: UInt32

    /// Names a state by its number in `<linux/kvm.h>`.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// It executes.
    public static let runnable = MultiprocessingState(rawValue: UInt32(KVM_MP_STATE_RUNNABLE))
    /// It has not had its INIT yet.
    public static let uninitialized = MultiprocessingState(rawValue: UInt32(KVM_MP_STATE_UNINITIALIZED))
    /// It has had its INIT and waits for its start-up message.
    public static let initReceived = MultiprocessingState(rawValue: UInt32(KVM_MP_STATE_INIT_RECEIVED))
    /// It has executed HLT and waits for an interrupt.
    public static let halted = MultiprocessingState(rawValue: UInt32(KVM_MP_STATE_HALTED))
}

extension VirtualCPU {
    /// The general registers; see ``completeAccess()`` for when they hold. C: `KVM_GET_REGS`.
    ///
    /// - Throws: errno of the call.
    public func registers() throws(KVMError) -> Registers {
        var raw = kvm_regs()
        try descriptor.kvm("KVM_GET_REGS", CKVM_GET_REGS, &raw)
        return Registers(raw: raw)
    }

    /// Sets the general registers. C: `KVM_SET_REGS`.
    ///
    /// - Throws: errno of the call.
    public mutating func setRegisters(_ registers: Registers) throws(KVMError) {
        var raw = registers.raw
        try descriptor.kvm("KVM_SET_REGS", CKVM_SET_REGS, &raw)
    }

    /// Segments, control registers and tables. C: `KVM_GET_SREGS`.
    ///
    /// - Throws: errno of the call.
    public func specialRegisters() throws(KVMError) -> SpecialRegisters {
        var raw = kvm_sregs()
        try descriptor.kvm("KVM_GET_SREGS", CKVM_GET_SREGS, &raw)
        return SpecialRegisters(raw: raw)
    }

    /// Sets segments, control registers and tables. C: `KVM_SET_SREGS`.
    ///
    /// - Throws: EINVAL for a state that no CPU can be in.
    public mutating func setSpecialRegisters(_ registers: SpecialRegisters) throws(KVMError) {
        var raw = registers.raw
        try descriptor.kvm("KVM_SET_SREGS", CKVM_SET_SREGS, &raw)
    }

    /// What the guest's CPUID returns. C: `KVM_GET_CPUID2`.
    ///
    /// - Throws: errno of the call.
    public func cpuid() throws(KVMError) -> [CPUIDEntry] {
        var entries = unsafe try CPUIDEntry.table("KVM_GET_CPUID2") { entries, count in
            unsafe ckvm_get_cpuid(descriptor.rawValue, entries, &count)
        }
        // Some kernels, 6.1 for one, do not say how many entries they wrote: the rest of the room is zero as it was.
        while entries.last == CPUIDEntry(function: 0) { entries.removeLast() }
        return entries
    }

    /// Sets what the guest's CPUID returns, and with that what the vCPU allows; before its first run. C: `KVM_SET_CPUID2`.
    ///
    /// - Parameter entries: usually ``KVMSystem/supportedCPUID()``.
    /// - Throws: E2BIG for more than 256 entries, EINVAL once it has run.
    public mutating func setCPUID(_ entries: [CPUIDEntry]) throws(KVMError) {
        let raw = entries.map(\.raw)
        try kvmCall("KVM_SET_CPUID2") {
            unsafe raw.withUnsafeBufferPointer {
                unsafe ckvm_set_cpuid(descriptor.rawValue, $0.baseAddress, UInt32($0.count))
            }
        }
    }

    /// A model-specific register. C: `KVM_GET_MSRS`.
    ///
    /// - Throws: EINVAL for a register that KVM does not know.
    public func modelSpecificRegister(_ index: UInt32) throws(KVMError) -> UInt64 {
        var value: UInt64 = 0
        try kvmCall("KVM_GET_MSRS") { unsafe ckvm_get_msr(descriptor.rawValue, index, &value) }
        return value
    }

    /// Sets a model-specific register. C: `KVM_SET_MSRS`.
    ///
    /// - Throws: EINVAL for a register or a value that KVM does not take.
    public mutating func setModelSpecificRegister(_ index: UInt32, _ value: UInt64) throws(KVMError) {
        try kvmCall("KVM_SET_MSRS") { ckvm_set_msr(descriptor.rawValue, index, value) }
    }

    /// Whether the vCPU executes, waits or has not begun. C: `KVM_GET_MP_STATE`.
    ///
    /// - Throws: errno of the call.
    public func multiprocessingState() throws(KVMError) -> MultiprocessingState {
        var raw = kvm_mp_state()
        try descriptor.kvm("KVM_GET_MP_STATE", CKVM_GET_MP_STATE, &raw)
        return MultiprocessingState(rawValue: raw.mp_state)
    }

    /// Makes the vCPU execute, wait or begin anew. C: `KVM_SET_MP_STATE`.
    ///
    /// - Throws: EINVAL for a state other than runnable without interrupt controllers in the kernel.
    public mutating func setMultiprocessingState(_ state: MultiprocessingState) throws(KVMError) {
        var raw = kvm_mp_state(mp_state: state.rawValue)
        try descriptor.kvm("KVM_SET_MP_STATE", CKVM_SET_MP_STATE, &raw)
    }
}
