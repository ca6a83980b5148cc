// SPDX-License-Identifier: Apache-2.0
//
// The KVM library's own calls, on real KVM.

import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import Synchronization
import SystemPackage
import Testing

@Suite("KVM library", .serialized) final class KVMLibraryTests {
    private static let device: UInt64 = 0xd000_0000
    private let system: KVMSystem

    /// Fails, and does not skip, where there is no KVM.
    init() throws {
        system = try KVMSystem()
    }

    /// A vCPU of a new virtual machine about to run `code`.
    private func makeVirtualCPU(running code: [UInt8], in machine: VirtualMachine) throws -> VirtualCPU {
        let memory = try GuestMemory(at: 0, count: 0x10000)
        try machine.setMemory(memory, slot: 0)
        let tables = try IdentityPageTables(in: memory, at: 0x1000)
        try memory.copy(code, to: 0x8000)
        var vcpu = try machine.makeVirtualCPU(id: 0)
        try vcpu.setCPUID(try system.supportedCPUID())
        try vcpu.startInLongMode(at: 0x8000, stack: 0x10000, pageTables: tables, arguments: [1, 2, 3, 4, 5, 6, 7])
        return vcpu
    }

    // MARK: System

    @Test("The capabilities that this library needs are there")
    func capabilities() throws {
        for capability in [Capability.userMemory, .immediateExit, .irqDescriptors, .ioEventDescriptors] {
            #expect(try system.check(capability) > 0)
        }
        #expect(try system.check(.memorySlots) >= 32)
        #expect(try system.check(Capability(rawValue: 100_000)) == 0)
        #expect(try system.virtualCPUMappingSize() >= 4096)
    }

    @Test("A vCPU keeps the CPUID that it was given")
    func cpuid() throws {
        let supported = try system.supportedCPUID()
        let vendor = try #require(supported.first { $0.function == 0 })
        #expect(vendor.eax > 0)
        let machine = try system.makeVirtualMachine()
        var vcpu = try machine.makeVirtualCPU(id: 0)
        try vcpu.setCPUID(supported)
        let seen = try vcpu.cpuid()
        #expect(seen.map(\.function) == supported.map(\.function))
        #expect(seen.first { $0.function == 0 } == vendor)
    }

    // MARK: Exits

    @Test("HLT is an exit, and the registers are those of the calling convention")
    func halt() throws {
        var vcpu = try makeVirtualCPU(running: [0xf4], in: system.makeVirtualMachine())
        #expect(try vcpu.run() == .halt)
        let registers = try vcpu.registers()
        #expect((registers.rdi, registers.rsi, registers.rdx) == (1, 2, 3))
        #expect((registers.rcx, registers.r8, registers.r9) == (4, 5, 6))
        #expect((registers.rip, registers.rsp) == (0x8001, 0x10000))
        let special = try vcpu.specialRegisters()
        #expect(special.efer & 0x500 == 0x500)
        #expect((special.cs.selector, special.cs.flags) == (8, 0b1010))
        #expect(special.cr3 == 0x1000)
    }

    @Test("An exception without an interrupt table is a shutdown")
    func tripleFault() throws {
        // ud2
        var vcpu = try makeVirtualCPU(running: [0x0f, 0x0b], in: system.makeVirtualMachine())
        #expect(try vcpu.run() == .shutdown)
    }

    @Test("An access is complete after completeAccess, and the next instruction not begun")
    func completeAccess() throws {
        // mov $0xd0000000, %edi; mov (%rdi), %eax; hlt
        let code: [UInt8] = [0xbf, 0, 0, 0, 0xd0, 0x8b, 0x07, 0xf4]
        var vcpu = try makeVirtualCPU(running: code, in: system.makeVirtualMachine())
        #expect(try vcpu.run() == .mmioLoad(.init(address: Self.device, length: 4)))
        vcpu.setLoadedValue(0xffff_ffff_1234_5678)
        #expect(try vcpu.completeAccess() == .interrupted)
        let registers = try vcpu.registers()
        #expect((registers.rax, registers.rip) == (0x1234_5678, 0x8007))
        #expect(try vcpu.run() == .halt)
    }

    @Test("Answers to an exit that asks for none, or for another, do nothing")
    func wrongAnswers() throws {
        // out %al, $0x10; hlt
        var vcpu = try makeVirtualCPU(running: [0xe6, 0x10, 0xf4], in: system.makeVirtualMachine())
        vcpu.setLoadedValue(1)
        #expect(vcpu.portValue() == 0)
        let exit = try vcpu.run()
        #expect(exit == .portStore(.init(port: 0x10, length: 1, count: 1)))
        vcpu.setLoadedValue(.max)
        vcpu.setPortValue(.max)
        #expect(vcpu.portValue(at: 1) == 0)
        #expect(vcpu.portValue(at: -1) == 0)
        #expect(try vcpu.run() == .halt)
    }

    @Test("Registers and a model-specific register come back as they were set")
    func registers() throws {
        let machine = try system.makeVirtualMachine()
        var vcpu = try makeVirtualCPU(running: [0xf4], in: machine)
        var registers = try vcpu.registers()
        (registers.rax, registers.rbx, registers.rbp, registers.r10) = (1, 2, 3, 4)
        (registers.r11, registers.r12, registers.r13, registers.r14, registers.r15) = (5, 6, 7, 8, 9)
        try vcpu.setRegisters(registers)
        #expect(try vcpu.registers() == registers)
        // IA32_SYSENTER_EIP
        try vcpu.setModelSpecificRegister(0x176, 0x1234)
        #expect(try vcpu.modelSpecificRegister(0x176) == 0x1234)
        #expect(throws: KVMError(call: "KVM_GET_MSRS", errno: .invalidArgument)) {
            try vcpu.modelSpecificRegister(0x1234_5678)
        }
        #expect(try vcpu.multiprocessingState() == .runnable)
    }

    @Test("A state that no CPU can be in is refused")
    func badState() throws {
        let machine = try system.makeVirtualMachine()
        var vcpu = try makeVirtualCPU(running: [0xf4], in: machine)
        var special = try vcpu.specialRegisters()
        // Long mode without PAE.
        special.cr4 = 0
        let state = special
        #expect(throws: KVMError(call: "KVM_SET_SREGS", errno: .invalidArgument)) {
            try vcpu.setSpecialRegisters(state)
        }
    }

    // MARK: Interrupting a run

    @Test("An interrupt from another thread ends a run, however long it would last")
    func interruptRunning() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        struct Stop: Error {}
        let running = try guest.start(.mailbox, .init(target: 0, count: 0), on: 0) { exit, vcpu in
            guard exit == .interrupted else { throw UnexpectedExit(vcpu: 0, exit: exit) }
            throw Stop()
        }
        // The guest spins for ever.
        usleep(50_000)
        #expect(!running.hasEnded)
        running.interrupter.interrupt()
        #expect(throws: Stop.self) { try running.join() }
    }

    @Test("An interrupt before the run is not lost, and counts once")
    func interruptBefore() throws {
        var vcpu = try makeVirtualCPU(running: [0xf4], in: system.makeVirtualMachine())
        let interrupter = vcpu.interrupter
        interrupter.interrupt()
        interrupter.interrupt()
        #expect(try vcpu.run() == .interrupted)
        #expect(try vcpu.registers().rip == 0x8000)
        #expect(try vcpu.run() == .halt)
    }

    @Test("Interrupts at any moment: none is lost, the guest goes on")
    func interruptStorm() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        let arguments = GuestProgram.Arguments(target: Self.device, count: 3000, seed: 1)
        let device = KVMReferenceDevice(GuestProgram.storeLoadPairs(.eight).accesses(arguments))
        let count = KVMCounter()
        let running = try guest.start(.storeLoadPairs(.eight), arguments, on: 0) { exit, vcpu in
            if exit == .interrupted { count.add() } else { try device.respond(exit, &vcpu) }
        }
        for _ in 0..<300 where !running.hasEnded {
            let before = count.value
            running.interrupter.interrupt()
            while count.value == before, !running.hasEnded { usleep(20) }
        }
        #expect(try running.join().isFinished)
        #expect(device.missing == 0)
        #expect(count.value > 10)
    }

    @Test("An interrupter may outlive its vCPU")
    func interruptAfter() throws {
        let interrupter: VirtualCPUInterrupter
        do {
            let vcpu = try makeVirtualCPU(running: [0xf4], in: system.makeVirtualMachine())
            interrupter = vcpu.interrupter
        }
        interrupter.interrupt()
    }

    // MARK: Memory

    @Test("A slot can be added, replaced and removed; overlap and an unknown slot are refused")
    func slots() throws {
        let machine = try system.makeVirtualMachine()
        let first = try GuestMemory(at: 0x10000, count: 0x4000)
        let second = try GuestMemory(at: 0x12000, count: 0x4000)
        try machine.setMemory(first, slot: 0)
        #expect(throws: KVMError(call: "KVM_SET_USER_MEMORY_REGION", errno: .fileExists)) {
            try machine.setMemory(second, slot: 1)
        }
        #expect(machine.memory(slot: 1) == nil)
        try machine.setMemory(second, slot: 0)
        #expect(machine.memory(slot: 0) === second)
        try machine.removeMemory(slot: 0)
        #expect(machine.memory(slot: 0) == nil)
        #expect(throws: KVMError(call: "KVM_SET_USER_MEMORY_REGION", errno: .invalidArgument)) {
            try machine.removeMemory(slot: 0)
        }
    }

    @Test("A load from a slot that is there does not exit, and after its removal does")
    func removedSlot() throws {
        let machine = try system.makeVirtualMachine()
        let guest = try GuestMachine(in: machine, vcpus: 1)
        let ram = try GuestMemory(at: Self.device, count: 0x1000)
        try ram.store(0x77 as UInt8, at: Self.device)
        try machine.setMemory(ram, slot: 1)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        let arguments = GuestProgram.Arguments(target: Self.device, count: 1)
        try guest.load(.loadLoop(.one), arguments, on: &vcpu)
        try vcpu.runProgram()
        #expect(try guest.results(of: 0).values == [0x77])
        try machine.removeMemory(slot: 1)
        try guest.load(.loadLoop(.one), arguments, on: &vcpu)
        #expect(try vcpu.run() == .mmioLoad(.init(address: Self.device, length: 1)))
    }

    @Test("A virtual machine keeps the memory of its slots, and a vCPU its virtual machine")
    func lifetimes() throws {
        weak var memory: GuestMemory?
        do {
            var vcpu = try makeVirtualCPU(running: [0xf4], in: system.makeVirtualMachine())
            memory = vcpu.machine.memory(slot: 0)
            #expect(memory != nil)
            #expect(try vcpu.run() == .halt)
        }
        #expect(memory == nil)
    }

    // MARK: Devices and interrupts in the kernel

    @Test("A device type that nobody registered is ENODEV, and testing creates nothing")
    func unknownDevice() throws {
        let machine = try system.makeVirtualMachine()
        #expect(throws: KVMError(call: "KVM_CREATE_DEVICE", errno: Errno(rawValue: ENODEV))) {
            _ = try machine.makeDevice(type: 0xffff)
        }
        #expect(throws: KVMError(call: "KVM_CREATE_DEVICE_TEST", errno: Errno(rawValue: ENODEV))) {
            try machine.testDevice(type: 0xffff)
        }
    }

    @Test("A device type that KVM has can be tested and made")
    func knownDevice() throws {
        let machine = try system.makeVirtualMachine()
        // KVM_DEV_TYPE_VFIO, the one device of x86.
        do {
            try machine.testDevice(type: 4)
        } catch {
            // A KVM built without VFIO does not have it.
            #expect(error.errno == Errno(rawValue: ENODEV))
            return
        }
        _ = try machine.makeDevice(type: 4)
    }

    @Test("irqfd: assigned once, refused twice, deassigned, refused without interrupt controllers")
    func irqDescriptor() throws {
        let event = try EventDescriptor()
        let bare = try system.makeVirtualMachine()
        #expect(throws: KVMError.self) { try bare.assignInterrupt(event, gsi: 5) }
        let machine = try system.makeVirtualMachine()
        try machine.makeInterruptControllers()
        try machine.assignInterrupt(event, gsi: 5)
        #expect(throws: KVMError(call: "KVM_IRQFD", errno: .resourceBusy)) {
            try machine.assignInterrupt(event, gsi: 5)
        }
        try machine.deassignInterrupt(event, gsi: 5)
        let resample = try EventDescriptor()
        try machine.assignInterrupt(event, gsi: 5, resample: resample)
        try machine.deassignInterrupt(event, gsi: 5)
        try machine.setInterruptLine(gsi: 5, asserted: true)
        try machine.setInterruptLine(gsi: 5, asserted: false)
        try machine.setInterruptRoutes([
            InterruptRoute(gsi: 5, to: .pin(.ioAPIC, 5)),
            InterruptRoute(gsi: 24, to: .message(address: 0xfee0_0000, data: 0x30)),
        ])
        try machine.makeIntervalTimer()
    }

    @Test("An irqfd wakes a halted vCPU: the interrupt reaches the guest")
    func irqDescriptorDelivers() throws {
        let machine = try system.makeVirtualMachine()
        try machine.makeInterruptControllers()
        try machine.setInterruptRoutes([InterruptRoute(gsi: 24, to: .message(address: 0xfee0_0000, data: 0x30))])
        let event = try EventDescriptor()
        try machine.assignInterrupt(event, gsi: 24)
        var vcpu = try makeVirtualCPU(running: Self.waitForInterrupt, in: machine)
        let memory = try #require(machine.memory(slot: 0))
        // An interrupt gate for vector 0x30: code selector 0x08, handler at 0x8100.
        try memory.store(0x0000_8e00_0008_8100 as UInt64, at: 0x9000 + 16 * 0x30)
        // The gate is loaded through the segment's descriptor: null, null, code.
        try memory.store(0x00af_9b00_0000_ffff as UInt64, at: 0xa008)
        // out %al, $0x11; hlt
        try memory.copy([0xe6, 0x11, 0xf4], to: 0x8100)
        var special = try vcpu.specialRegisters()
        special.idt = DescriptorTable(base: 0x9000, limit: 0xfff)
        special.gdt = DescriptorTable(base: 0xa000, limit: 0xff)
        try vcpu.setSpecialRegisters(special)
        #expect(try vcpu.run() == .portStore(.init(port: 0x10, length: 1, count: 1)))
        try event.signal()
        #expect(try vcpu.run() == .portStore(.init(port: 0x11, length: 1, count: 1)))
    }

    /// mov $0xfee000f0, %edi; movl $0x1ff, (%rdi) (the local APIC on); out %al, $0x10; sti; hlt; jmp to the hlt.
    private static let waitForInterrupt: [UInt8] = [
        0xbf, 0xf0, 0x00, 0xe0, 0xfe, 0xc7, 0x07, 0xff, 0x01, 0x00, 0x00, 0xe6, 0x10, 0xfb, 0xf4, 0xeb, 0xfd,
    ]

    @Test("A doorbell takes the stores that match, without an exit, and only those")
    func doorbell() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        let event = try EventDescriptor()
        let doorbell = Doorbell(at: Self.device, length: 4, value: 12)
        try guest.machine.assignDoorbell(doorbell, to: event)
        #expect(throws: KVMError(call: "KVM_IOEVENTFD", errno: .fileExists)) {
            try guest.machine.assignDoorbell(doorbell, to: event)
        }
        let arguments = GuestProgram.Arguments(target: Self.device, count: 5, seed: 10)
        let others = GuestProgram.storeLoop(.four).accesses(arguments).filter { $0.value != 12 }
        let device = KVMReferenceDevice(others)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        try guest.load(.storeLoop(.four), arguments, on: &vcpu)
        try vcpu.runProgram(device.respond)
        #expect(device.missing == 0)
        #expect(try event.wait() == 1)
        try guest.machine.deassignDoorbell(doorbell, from: event)
        #expect(throws: KVMError(call: "KVM_IOEVENTFD", errno: .noSuchFileOrDirectory)) {
            try guest.machine.deassignDoorbell(doorbell, from: event)
        }
    }

    @Test("Coalesced stores stay in the ring, in order, with their values")
    func coalesced() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        try guest.machine.addCoalescedRange(at: Self.device, count: 0x1000)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        #expect(vcpu.takeCoalescedStore() == nil)
        try guest.load(.storeLoop(.two), .init(target: Self.device, count: 20, seed: 0xfffa), on: &vcpu)
        try vcpu.runProgram()
        for position in 0..<20 as Range<UInt64> {
            let taken = vcpu.takeCoalescedStore()
            let store = try #require(taken)
            #expect(store.access == .init(address: Self.device, length: 2))
            #expect(store.value == (0xfffa + position) & 0xffff)
        }
        #expect(vcpu.takeCoalescedStore() == nil)
        try guest.machine.removeCoalescedRange(at: Self.device, count: 0x1000)
    }
}

/// A count that several threads share.
final class KVMCounter: Sendable {
    private let count = Atomic<Int>(0)

    /// The count now.
    var value: Int { count.load(ordering: .acquiring) }

    /// Adds 1.
    func add() {
        count.add(1, ordering: .acquiringAndReleasing)
    }
}
