// SPDX-License-Identifier: Apache-2.0
//
// A vCPU: runs the guest until something needs the virtual machine monitor, and says what.

import CKVM
public import LinuxSystem
import Synchronization
import SystemPackage

/// A vCPU. C: the descriptor that `KVM_CREATE_VCPU` returns, and its `struct kvm_run`.
///
/// Use it from one thread, which waits in ``run()``; only ``interrupter`` is for others.
///
/// ```swift
/// while true {
///     switch try vcpu.run() {
///     case .mmioLoad(let access): vcpu.setLoadedValue(device.load(access.address, access.length))
///     case .mmioStore(let access, let value): device.store(value, access.address, access.length)
///     case .halt: return
///     case let exit: throw Unexpected(exit)
///     }
/// }
/// ```
public struct VirtualCPU: ~Copyable, Sendable {
    /// The descriptor itself.
    public let descriptor: OwnedDescriptor
    /// The vCPU's number, on x86 also its APIC id.
    public let id: UInt32
    /// How many vCPUs its virtual machine had before it: what parts of the kernel call a vCPU's index.
    public let index: UInt32
    /// The virtual machine that it belongs to and keeps alive.
    public let machine: VirtualMachine
    private let shared: RunStructure
    /// What ``setLoadedValue(_:)`` and the port functions refer to.
    private var pending = Exit.halt
    /// The access to memory in whose middle ``run()`` was interrupted, nil if there is none: a part of the kernel has
    /// it and has not answered yet. The registers are those before the instruction.
    public private(set) var parkedAccess: Exit?

    init(
        adopting descriptor: consuming OwnedDescriptor, id: UInt32, index: UInt32, run: RunStructure,
        of machine: VirtualMachine
    ) {
        self.descriptor = descriptor
        self.id = id
        self.index = index
        self.machine = machine
        shared = run
    }

    // MARK: Running

    /// A guest's access to memory that no slot shows.
    public struct MemoryAccess: Hashable, Sendable {
        /// Guest physical address.
        public let address: UInt64
        /// Bytes, 1 to 8, and not always a power of two: an access that crosses a page comes in two parts.
        public let length: Int

        /// Names an access, to compare with.
        public init(address: UInt64, length: Int) {
            self.address = address
            self.length = length
        }
    }

    /// A guest's access to I/O ports: one, or with a string instruction several of the same kind to the same port.
    public struct PortAccess: Hashable, Sendable {
        /// The port.
        public let port: UInt16
        /// Bytes of each access: 1, 2 or 4.
        public let length: Int
        /// How many accesses, 1 or more.
        public let count: Int

        /// Names an access, to compare with.
        public init(port: UInt16, length: Int, count: Int) {
            self.port = port
            self.length = length
            self.count = count
        }
    }

    /// Why ``VirtualCPU/run()`` returned. C: `KVM_EXIT_*`.
    public enum Exit: Hashable, Sendable {
        /// A load from memory that no slot shows: ``VirtualCPU/setLoadedValue(_:)``, then run on.
        case mmioLoad(MemoryAccess)
        /// A store to memory that no slot shows, and its value, the bytes beyond its length zero.
        case mmioStore(MemoryAccess, UInt64)
        /// IN or INS: ``VirtualCPU/setPortValue(_:at:)`` for each access, then run on.
        case portLoad(PortAccess)
        /// OUT or OUTS: the values are ``VirtualCPU/portValue(at:)``.
        case portStore(PortAccess)
        /// HLT, without interrupt controllers in the kernel.
        case halt
        /// A triple fault, or the guest asked for it.
        case shutdown
        /// Another thread or a signal ended the run, between instructions or in the midst of a parked access. Run on.
        case interrupted
        /// The guest can take an interrupt now: ``VirtualCPU/requestInterruptWindow(_:)`` had asked for it.
        case interruptWindowOpen
        /// The guest asks for a shutdown, reset and so on. C: `KVM_SYSTEM_EVENT_*`.
        case systemEvent(type: UInt32)
        /// The hardware refused the guest's state; the reason is the hardware's own.
        case failEntry(hardwareReason: UInt64)
        /// KVM could not go on: 1 for an instruction that it cannot emulate. C: `KVM_INTERNAL_ERROR_*`.
        case internalError(suberror: UInt32)
        /// An exit that this library has no case for. C: `exit_reason` of `struct kvm_run`.
        case unknown(reason: UInt32)

        var memoryAccess: MemoryAccess? {
            switch self {
            case .mmioLoad(let access), .mmioStore(let access, _): access
            default: nil
            }
        }
    }

    /// Runs the guest until something needs the virtual machine monitor. C: `KVM_RUN`.
    ///
    /// The access of the last exit is completed first, so the answer to a load must be there before. A signal ends
    /// the run as ``Exit/interrupted``, even in the middle of an access that a part of the kernel had parked for it
    /// (``VirtualMachine/add(_:)``); the next run then begins with waiting for that one.
    ///
    /// - Throws: errno of the call: EFAULT if the memory behind a slot is gone, EIO in another process.
    public mutating func run() throws(KVMError) -> Exit {
        letKicksIn()
        if let exit = try resumeParkedAccess() { return exit }
        repeat {
            try leaveGuest()
        } while try takeResumed()
        return pending
    }

    /// Has ``VirtualCPUInterrupter`` find this thread.
    private func letKicksIn() {
        let thread = ckvm_thread_id()
        guard shared.thread.load(ordering: .relaxed) != thread else { return }
        ckvm_unblock_kick_signal()
        // An interrupt() that still misses it has set immediate_exit before, which the kernel then finds.
        shared.thread.store(thread, ordering: .sequentiallyConsistent)
    }

    private mutating func leaveGuest() throws(KVMError) {
        do throws(Errno) {
            try enter()
            noteExit()
        } catch .interrupted {
            shared.clearImmediateExit()
            pending = .interrupted
        } catch {
            throw KVMError(call: "KVM_RUN", errno: error)
        }
    }

    private func enter() throws(Errno) {
        while true {
            do throws(Errno) {
                try descriptor.ioctl(CKVM_RUN, onInterrupt: .fail)
                return
            } catch .resourceTemporarilyUnavailable {
                // A vCPU that waited for its start-up message has been woken: KVM wants to be called again.
                continue
            }
        }
    }

    /// Takes the exit out of the run structure, and remembers it for what answers it.
    @discardableResult
    mutating func noteExit() -> Exit {
        pending = exit()
        return pending
    }

    /// What the kernel wrote, each field read once.
    private func exit() -> Exit {
        let run = unsafe shared.run
        let reason = unsafe ckvm_run_exit_reason(run)
        switch Int32(bitPattern: reason) {
        case KVM_EXIT_MMIO: return memoryExit()
        case KVM_EXIT_IO: return portExit()
        case KVM_EXIT_HLT: return .halt
        case KVM_EXIT_SHUTDOWN: return .shutdown
        case KVM_EXIT_INTR: return .interrupted
        case KVM_EXIT_IRQ_WINDOW_OPEN: return .interruptWindowOpen
        case KVM_EXIT_SYSTEM_EVENT: return .systemEvent(type: unsafe ckvm_run_system_event_type(run))
        case KVM_EXIT_FAIL_ENTRY: return .failEntry(hardwareReason: unsafe ckvm_run_entry_failure_reason(run))
        case KVM_EXIT_INTERNAL_ERROR: return .internalError(suberror: unsafe ckvm_run_internal_suberror(run))
        default: return .unknown(reason: reason)
        }
    }

    private func memoryExit() -> Exit {
        let run = unsafe shared.run
        let length = min(Int(unsafe ckvm_run_mmio_length(run)), 8)
        let access = MemoryAccess(address: unsafe ckvm_run_mmio_address(run), length: length)
        guard unsafe ckvm_run_mmio_is_write(run) != 0 else { return .mmioLoad(access) }
        // A smart shift: 64 for length 0 gives 0 and does not trap.
        return .mmioStore(access, unsafe ckvm_run_mmio_data(run) & (UInt64.max >> UInt64(64 - 8 * length)))
    }

    private func portExit() -> Exit {
        let run = unsafe shared.run
        let access = PortAccess(
            port: unsafe ckvm_run_io_port(run), length: Int(unsafe ckvm_run_io_size(run)),
            count: Int(unsafe ckvm_run_io_count(run)))
        return unsafe ckvm_run_io_is_out(run) != 0 ? .portStore(access) : .portLoad(access)
    }

    // MARK: Parked accesses

    /// Waits for the access in whose middle the last run ended, if it did.
    ///
    /// - Returns: nil to run on; else what ``run()`` is to return.
    private mutating func resumeParkedAccess() throws(KVMError) -> Exit? {
        guard let exit = parkedAccess, let access = exit.memoryAccess else { return nil }
        switch try machine.resume(access, of: index) {
        case .complete(let value):
            unsafe ckvm_run_set_mmio_data(shared.run, value)
            parkedAccess = nil
            return nil
        case .notParked:
            parkedAccess = nil
            pending = exit
        case .interrupted:
            shared.clearImmediateExit()
            pending = .interrupted
        }
        return pending
    }

    /// Finds out, without waiting, whether the exit is for a parked access: a signal has come then.
    ///
    /// - Returns: whether it is complete by now; KVM is to complete the instruction and to go no further.
    private mutating func takeResumed() throws(KVMError) -> Bool {
        guard let access = pending.memoryAccess, machine.hasParkedAccesses else { return false }
        shared.beginProbe()
        parkedAccess = pending
        switch try machine.resume(access, of: index) {
        case .complete(let value):
            unsafe ckvm_run_set_mmio_data(shared.run, value)
            parkedAccess = nil
            return true
        case .notParked:
            shared.endProbe()
            parkedAccess = nil
        case .interrupted:
            shared.clearImmediateExit()
            pending = .interrupted
        }
        return false
    }

    // MARK: Completing an access

    /// Answers ``Exit/mmioLoad(_:)``: the guest's register gets `value`, of which the access's bytes count.
    ///
    /// After any other exit it does nothing.
    public mutating func setLoadedValue(_ value: UInt64) {
        if case .mmioLoad = pending { unsafe ckvm_run_set_mmio_data(shared.run, value) }
    }

    /// Answers one access of ``Exit/portLoad(_:)``; the bytes beyond its length do not count.
    ///
    /// After any other exit, or beyond its count, it does nothing.
    public mutating func setPortValue(_ value: UInt32, at position: Int = 0) {
        guard case .portLoad(let access) = pending, let element = unsafe portElement(position, access) else { return }
        var value = value.littleEndian
        // SAFETY: portElement has checked that `length` bytes are there, and `length` is at most 4.
        unsafe withUnsafeBytes(of: &value) {
            unsafe element.copyMemory(from: $0.baseAddress!, byteCount: access.length)
        }
    }

    /// The value of one access of ``Exit/portStore(_:)``, the bytes beyond its length zero.
    ///
    /// - Returns: 0 after any other exit, or beyond its count.
    public func portValue(at position: Int = 0) -> UInt32 {
        guard case .portStore(let access) = pending, let element = unsafe portElement(position, access) else {
            return 0
        }
        var value: UInt32 = 0
        unsafe withUnsafeMutableBytes(of: &value) {
            unsafe $0.baseAddress!.copyMemory(from: element, byteCount: access.length)
        }
        return UInt32(littleEndian: value)
    }

    private func portElement(_ position: Int, _ access: PortAccess) -> UnsafeMutableRawPointer? {
        guard position >= 0, position < access.count, access.length <= 4 else { return nil }
        let (start, overflow) = unsafe ckvm_run_io_data_offset(shared.run)
            .addingReportingOverflow(UInt64(position * access.length))
        return overflow ? nil : unsafe shared.bytes(at: start, count: access.length)
    }

    /// Completes the access of the last exit and lets the guest execute nothing beyond it.
    ///
    /// The registers are those after the instruction only then: call it before saving or changing them. A string
    /// instruction may go on with its next access instead.
    ///
    /// - Returns: `.interrupted` when all is complete, or, with ``parkedAccess`` not nil, if a signal came while it
    ///   waited for that, or if what the instruction goes on with has to wait; otherwise the next exit of the same
    ///   instruction.
    /// - Throws: errno of the call.
    public mutating func completeAccess() throws(KVMError) -> Exit {
        letKicksIn()
        if let exit = try resumeParkedAccess() { return exit }
        shared.requestExit()
        return try run()
    }

    /// A handle with which any thread can end ``run()``.
    ///
    /// The first use in a process gives SIGRTMIN a handler that does nothing; ``run()`` unblocks that signal in its
    /// thread.
    public var interrupter: VirtualCPUInterrupter {
        precondition(VirtualCPUInterrupter.isReady, "sigaction refuses SIGRTMIN a handler")
        return VirtualCPUInterrupter(run: shared)
    }

    /// Takes the oldest store out of the virtual machine's ring of coalesced stores.
    ///
    /// The ring is one for the whole virtual machine: any vCPU gives all stores, and two threads must not take at once.
    ///
    /// - Returns: nil for an empty ring.
    public mutating func takeCoalescedStore() -> (access: MemoryAccess, value: UInt64)? {
        guard let page = unsafe shared.coalescedRing else { return nil }
        var store = kvm_coalesced_mmio()
        guard unsafe ckvm_coalesced_take(page, &store) != 0 else { return nil }
        let length = min(Int(store.len), 8)
        let value = unsafe withUnsafeBytes(of: store.data) { unsafe $0.loadUnaligned(as: UInt64.self) }
        return (
            MemoryAccess(address: store.phys_addr, length: length),
            UInt64(littleEndian: value) & (UInt64.max >> UInt64(64 - 8 * length))
        )
    }

    // MARK: Interrupts without interrupt controllers in the kernel

    /// Asks ``run()`` to return ``Exit/interruptWindowOpen`` as soon as the guest can take an interrupt.
    public mutating func requestInterruptWindow(_ requested: Bool) {
        unsafe ckvm_run_set_request_interrupt_window(shared.run, requested ? 1 : 0)
    }

    /// Whether ``injectInterrupt(vector:)`` would be taken now; valid after ``run()``.
    public var isReadyForInterrupt: Bool { unsafe ckvm_run_ready_for_interrupt(shared.run) != 0 }

    /// Injects an interrupt. C: `KVM_INTERRUPT`.
    ///
    /// - Throws: EEXIST if one is waiting already, ENXIO with interrupt controllers in the kernel.
    public mutating func injectInterrupt(vector: UInt8) throws(KVMError) {
        var request = kvm_interrupt(irq: UInt32(vector))
        try descriptor.kvm("KVM_INTERRUPT", CKVM_INTERRUPT, &request)
    }
}
