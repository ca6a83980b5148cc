// SPDX-License-Identifier: Apache-2.0
//
// Each guest program on real KVM, every access an exit that is compared with the replay.

import GuestPrograms
import KVM
import Synchronization
import SystemPackage
import Testing

@Suite("KVM runs the guest programs", .serialized) final class KVMGuestProgramTests {
    private static let device: UInt64 = 0xd000_0000
    private static let port: UInt64 = 0x3f8

    private let system: KVMSystem

    /// Fails, and does not skip, where there is no KVM.
    init() throws {
        system = try KVMSystem()
    }

    /// Runs a program on one vCPU and checks every access, every loaded value and the checksum.
    private func check(_ program: GuestProgram, _ arguments: GuestProgram.Arguments) throws {
        let accesses = Array(program.accesses(arguments))
        let expected = KVMReferenceDevice.loadedValues(accesses)
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1, capacity: max(expected.count, 4096))
        let device = KVMReferenceDevice(accesses)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        try guest.load(program, arguments, on: &vcpu)
        try vcpu.runProgram(device.respond)
        let results = try guest.results(of: 0)
        #expect(device.missing == 0)
        #expect(results.isFinished)
        #expect(results.values == expected)
        #expect(results.checksum == GuestResults.checksum(of: expected))
    }

    @Test("Stores of each width arrive one by one, with their values", arguments: GuestProgram.Width.allCases)
    func stores(width: GuestProgram.Width) throws {
        // 0x1fe: the low byte wraps, the second one counts.
        try check(.storeLoop(width), .init(target: Self.device, count: 1000, seed: 0xfedc_ba98_7654_31fe))
    }

    @Test("Loads of each width give the register what the device answered", arguments: GuestProgram.Width.allCases)
    func loads(width: GuestProgram.Width) throws {
        try check(.loadLoop(width), .init(target: Self.device + 8, count: 500))
    }

    @Test("A load after a store gives the value stored", arguments: GuestProgram.Width.allCases)
    func pairs(width: GuestProgram.Width) throws {
        try check(.storeLoadPairs(width), .init(target: Self.device + 16, count: 500, seed: 0x1122_3344_5566_7788))
    }

    @Test("Mixed accesses come as the replay says", arguments: [GuestProgram.mixed, .mixedAligned])
    func mixed(program: GuestProgram) throws {
        try check(program, .init(target: Self.device, count: 4000, seed: 42, window: 0x3000))
    }

    @Test(
        "Accesses that cross a page come in two, odd ones within a page whole",
        arguments: [0x1000, 0x1010, 0x2ff9] as [UInt64])
    func straddling(offset: UInt64) throws {
        try check(.straddling, .init(target: Self.device + offset, count: 20, seed: 5))
    }

    @Test(
        "A 16-byte access comes as its two halves, and in three parts across a page",
        arguments: [0, 8, 3, 0xff0, 0xff8, 0xffc, 0xfff] as [UInt64])
    func sixteen(offset: UInt64) throws {
        try check(.sixteenBytes, .init(target: Self.device + offset, count: 50, seed: 77))
    }

    @Test("REP STOS, and REP MOVS in both directions, access each element", arguments: GuestProgram.Width.allCases)
    func strings(width: GuestProgram.Width) throws {
        let arguments = GuestProgram.Arguments(target: Self.device, count: 700, seed: 0x8877_6655_4433_2211)
        try check(.stringStores(width), arguments)
        try check(.stringCopyOut(width), arguments)
        try check(.stringCopyIn(width), arguments)
    }

    @Test("IN, OUT, INS and OUTS access each element", arguments: GuestProgram.Width.ports)
    func ports(width: GuestProgram.Width) throws {
        let arguments = GuestProgram.Arguments(target: Self.port, count: 1500, seed: 0xa1b2_c3d4)
        try check(.portStoreLoop(width), arguments)
        try check(.portLoadLoop(width), arguments)
        try check(.portStringStores(width), arguments)
        try check(.portStringLoads(width), arguments)
    }

    @Test("A program with count 0 ends without an access", arguments: GuestProgram.all.filter { $0 != .mailbox })
    func nothing(program: GuestProgram) throws {
        try check(program, .init(target: Self.device, count: 0))
    }

    @Test("Four vCPUs run at once, each with its own seed and window")
    func severalVirtualCPUs() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 4, capacity: 2000)
        let plans = (0..<4).map { index in
            GuestProgram.Arguments(
                target: Self.device + UInt64(index) * 0x1_0000, count: 2000, seed: UInt64(index) + 1, window: 0x2000)
        }
        let devices = plans.map { KVMReferenceDevice(GuestProgram.mixed.accesses($0)) }
        let running = try plans.indices.map { index in
            try guest.start(.mixed, plans[index], on: UInt32(index), respond: devices[index].respond)
        }
        for (index, program) in running.enumerated() {
            let results = try program.join()
            let expected = KVMReferenceDevice.loadedValues(GuestProgram.mixed.accesses(plans[index]))
            #expect(results.isFinished)
            #expect(results.values == expected)
            #expect(results.checksum == GuestResults.checksum(of: expected))
            #expect(devices[index].missing == 0)
        }
    }

    @Test("Programs run to their end with interrupt controllers in the kernel, on vCPUs other than 0 too")
    func withInterruptControllers() throws {
        let machine = try system.makeVirtualMachine()
        try machine.makeInterruptControllers()
        let guest = try GuestMachine(in: machine, vcpus: 2)
        let arguments = GuestProgram.Arguments(target: Self.device, count: 100, seed: 9)
        for index in [0, 1] as [UInt32] {
            let device = KVMReferenceDevice(GuestProgram.storeLoadPairs(.four).accesses(arguments))
            let results = try guest.start(.storeLoadPairs(.four), arguments, on: index, respond: device.respond).join()
            #expect(results.isFinished)
            #expect(results.values == (0..<100).map { 9 + $0 })
            #expect(device.missing == 0)
        }
    }

    @Test("A vCPU can run one program after the other")
    func again() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        for seed in [1, 2, 3] as [UInt64] {
            let arguments = GuestProgram.Arguments(target: Self.device, count: 20, seed: seed)
            let device = KVMReferenceDevice(GuestProgram.mixed.accesses(arguments))
            try guest.load(.mixed, arguments, on: &vcpu)
            try vcpu.runProgram(device.respond)
            #expect(device.missing == 0)
            let expected = KVMReferenceDevice.loadedValues(GuestProgram.mixed.accesses(arguments))
            #expect(try guest.results(of: 0).values == expected)
        }
    }

    @Test("Arguments for which there is no room are refused")
    func capacity() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1, capacity: 100)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        let refused = KVMError(call: "load guest program", errno: .invalidArgument)
        for (program, count) in [(GuestProgram.loadLoop(.one), 101), (.straddling, 10), (.sixteenBytes, .max)] {
            #expect(throws: refused) {
                try guest.load(program, .init(target: Self.device, count: count), on: &vcpu)
            }
        }
    }

    @Test("The mailbox makes every access on demand, and ends")
    func mailbox() throws {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        var accesses: [GuestAccess] = []
        for length in [1, 2, 4, 8, 16] {
            let value: UInt128 = 0xfedc_ba98_7654_3210_0f1e_2d3c_4b5a_6978
            accesses.append(.store(value, length, at: Self.device + 0xffe))
            accesses.append(.load(length, at: Self.device + 0xffe))
        }
        for length in [1, 2, 4] {
            accesses.append(.store(0x1234_5678, length, at: Self.port, on: .port))
            accesses.append(.load(length, at: Self.port, on: .port))
        }
        let device = KVMReferenceDevice(accesses)
        let running = try guest.start(
            .mailbox, .init(target: 0, count: 0), on: 0, respond: device.respond)
        let mailbox = guest.mailbox(of: 0)
        var loaded: [UInt64] = []
        for access in accesses {
            let value = try mailbox.perform(access)
            guard access.kind == .load else { continue }
            loaded.append(UInt64(truncatingIfNeeded: value))
            if access.length == 16 { loaded.append(UInt64(value >> 64)) }
        }
        try mailbox.end()
        #expect(try running.join().isFinished)
        #expect(loaded == KVMReferenceDevice.loadedValues(accesses))
        #expect(device.missing == 0)
        #expect(throws: GuestMailbox.Failure.self) { try mailbox.post(.load(3, at: Self.device)) }
        #expect(throws: GuestMailbox.Failure.self) { try mailbox.post(.load(8, at: Self.port, on: .port)) }
    }

    // MARK: Programs for measuring

    /// Runs a program whose accesses all exit, each load of which gets 7.
    private func exits(
        of program: GuestProgram, _ arguments: GuestProgram.Arguments
    ) throws -> (exits: [VirtualCPU.Exit], results: GuestResults) {
        let guest = try GuestMachine(in: system.makeVirtualMachine(), vcpus: 1)
        var vcpu = try guest.makeVirtualCPU(id: 0)
        try guest.load(program, arguments, on: &vcpu)
        let exits = Mutex<[VirtualCPU.Exit]>([])
        try vcpu.runProgram { exit, vcpu in
            exits.withLock { $0.append(exit) }
            vcpu.setLoadedValue(7)
            vcpu.setPortValue(7)
        }
        return (exits.withLock { $0 }, try guest.results(of: 0))
    }

    @Test("Bursts are as many stores as asked for, and a fence", arguments: GuestProgram.Width.allCases)
    func bursts(width: GuestProgram.Width) throws {
        let (exits, results) = try exits(
            of: .storeBursts(width), .init(target: Self.device, count: 3, seed: 5, window: 2))
        let fence = VirtualCPU.Exit.mmioLoad(
            .init(address: Self.device + GuestProgram.fenceDistance(.memory), length: 4))
        func store(_ value: UInt64) -> VirtualCPU.Exit {
            .mmioStore(.init(address: Self.device, length: width.rawValue), value)
        }
        #expect(exits == [store(5), store(6), fence, store(7), store(8), fence, store(9), store(10), fence])
        #expect(results.isFinished && results.values.isEmpty)
    }

    @Test("Bursts of no stores are fences", arguments: [GuestProgram.Bus.memory, .port])
    func emptyBursts(bus: GuestProgram.Bus) throws {
        let target = bus == .memory ? Self.device : UInt64(Self.port)
        let (exits, _) = try exits(of: .storeBursts(.four, on: bus), .init(target: target, count: 2, window: 0))
        let fence = target + GuestProgram.fenceDistance(bus)
        let expected: VirtualCPU.Exit =
            bus == .memory
            ? .mmioLoad(.init(address: fence, length: 4))
            : .portLoad(.init(port: UInt16(fence), length: 4, count: 1))
        #expect(exits == [expected, expected])
    }

    @Test("Timed accesses take some time each, and end with a fence", arguments: GuestProgram.Width.ports)
    func timed(width: GuestProgram.Width) throws {
        for program in [
            GuestProgram.timedLoads(width), .timedStores(width), .timedLoads(width, on: .port),
            .timedStores(width, on: .port),
        ] {
            let target = program.name.contains("in") || program.name.contains("out") ? UInt64(Self.port) : Self.device
            let (exits, results) = try exits(of: program, .init(target: target, count: 20, window: 0))
            #expect(exits.count == 21)
            #expect(results.values.count == 20)
            // An exit is thousands of instructions, and a test's no hours.
            #expect(results.values.allSatisfy { (500...1 << 42).contains($0) }, "\(program): \(results.values)")
        }
    }

    @Test("At a fixed rate an access is measured from when it was due")
    func fixedRate() throws {
        // So soon one after the other that each is late by all that those before it took.
        let (_, results) = try exits(of: .timedLoads(.four), .init(target: Self.device, count: 50, window: 1))
        #expect(zip(results.values, results.values.dropFirst()).allSatisfy { $0 < $1 })
        // So far apart that none is.
        let interval: UInt64 = 1 << 26
        // A busy machine may have other things to do, and then all that were due meanwhile are late.
        let onTime = try (0..<3).map { _ in
            let (_, apart) = try exits(of: .timedLoads(.four), .init(target: Self.device, count: 20, window: interval))
            return apart.values.count { $0 < interval }
        }
        #expect(onTime.contains { $0 >= 10 }, "\(onTime)")
    }
}
