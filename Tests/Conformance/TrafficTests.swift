// SPDX-License-Identifier: Apache-2.0
//
// Real traffic through the server: every value and the order of every access, against a replay on the host.

import DeviceEmulation
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import Synchronization
import SystemPackage
import Testing

@Suite("Traffic")
struct TrafficTests {
    @Test(
        "four vCPUs, 100,000 mixed accesses each, value by value and in order (O1, O3)", arguments: [1, 2])
    func fourCPUs(threads: Int) throws {
        try ModuleUnderTest.load()
        let count = Effort.scaled(100_000)
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 4, capacity: count)
        // Each vCPU has 4 KiB of its own, across a page boundary.
        let arguments = (0..<UInt64(4)).map { vcpu in
            GuestProgram.Arguments(
                target: ForwardedGuest.base + 0x2000 * vcpu + 0x800, count: count, seed: vcpu + 1)
        }
        let checker = OrderChecker(arguments.map { GuestProgram.mixed.accesses($0) })
        let server = try ServedMachine(guest, WindowMemory(count: 0x8000), threads: threads, checker.check)
        let programs = try arguments.enumerated().map { vcpu, arguments in
            try guest.start(.mixed, arguments, on: UInt32(vcpu))
        }
        for (vcpu, program) in programs.enumerated() {
            let results = try program.join()
            #expect(results.isFinished)
            #expect(results.checksum == GuestResults.checksum(of: results.values))
            #expect(results.values == KVMReferenceDevice.loadedValues(GuestProgram.mixed.accesses(arguments[vcpu])))
        }
        let counters = try server.finish()
        #expect(checker.mismatch == nil)
        #expect(checker.missing == 0)
        #expect(counters.faults == 0)
        #expect(counters.staleReplies == 0)
        #expect(server.device.withDevice { $0.improper } == 0)
    }

    /// Programs whose accesses KVM splits, or that are not aligned.
    static let awkward: [GuestProgram] =
        [.straddling, .sixteenBytes, .mixed]
        + GuestProgram.Width.allCases.flatMap { [.stringStores($0), .stringCopyOut($0), .stringCopyIn($0)] }

    @Test(
        "page-crossing, 16-byte, odd-size and string accesses reach a device as whole, aligned values, the data right",
        arguments: awkward)
    func wholeValues(program: GuestProgram) throws {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let arguments = GuestProgram.Arguments(target: ForwardedGuest.base + 0x1000, count: 100, seed: 77)
        let checker = OrderChecker([program.accesses(arguments)])
        let server = try ServedMachine(guest, WindowMemory(count: 0x8000), threads: 1, checker.check)
        let results = try guest.start(program, arguments, on: 0).join()
        _ = try server.finish()
        #expect(results.values == KVMReferenceDevice.loadedValues(program.accesses(arguments)))
        #expect(checker.mismatch == nil)
        #expect(checker.missing == 0)
        #expect(server.device.withDevice { $0.improper } == 0)
    }

    /// Programs on the port bus.
    static let ports: [GuestProgram] = GuestProgram.Width.ports.flatMap {
        [.portStoreLoop($0), .portLoadLoop($0), .portStringStores($0), .portStringLoads($0)]
    }

    @Test("port I/O, single and by string instructions, comes one by one with its data", arguments: ports)
    func portAccesses(program: GuestProgram) throws {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(5, to: GuestRange(.ports, at: 0x600, length: 4))
        let emulation = try control.makeEmulationDescriptor()
        let arguments = GuestProgram.Arguments(target: 0x600, count: 50, seed: 3)
        let running = try guest.start(program, arguments, on: 0)
        var given: [UInt64] = []
        for access in program.accesses(arguments) {
            let request = try emulation.take(exactly: 1)[0]
            #expect(request.rangeID == 5)
            #expect(request.offset == 0)
            #expect(request.length == access.length)
            #expect(request.kind == (access.kind == .load ? .load : .store))
            #expect(request.data == UInt64(truncatingIfNeeded: access.value))
            let value = request.sequence &* 0x9e37_79b9_7f4a_7c15
            if access.kind == .load { given.append(value & ForwardedRequest.mask(access.length)) }
            try emulation.reply(request, value)
        }
        #expect(try running.join().values == given)
    }
}

/// A guest machine with a device that servers of this process serve.
private struct ServedMachine {
    let device: SharedDevice<WindowMemory>
    private let emulation: Box<EmulationDescriptor>
    private let threads: Mutexed

    private final class Mutexed: Sendable {
        let threads = Mutex<[Box<Mutex<ServerThread?>>]>([])
    }

    init(
        _ guest: GuestMachine, _ memory: WindowMemory, threads count: Int, _ observer: @escaping RequestObserver
    ) throws {
        let control = try ControlDescriptor(in: guest.machine)
        try control.setTimeout(.seconds(60))
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: UInt64(memory.bytes.count)))
        emulation = Box(try control.makeEmulationDescriptor())
        device = SharedDevice(memory)
        threads = Mutexed()
        for _ in 0..<count {
            let server = DeviceServer(device, on: try emulation.value.duplicate(), observer: observer)
            let thread = Box(Mutex<ServerThread?>(try server.start()))
            threads.threads.withLock { $0.append(thread) }
        }
    }

    /// Lets the servers take what is still pending, and ends them.
    func finish() throws -> ServerCounters {
        #expect(try eventually { try !emulation.value.poll(milliseconds: 0).contains(.readable) })
        device.stop()
        for thread in threads.threads.withLock({ $0 }) {
            if let thread = thread.value.withLock({ $0.take() }) { try thread.wait() }
        }
        return device.counters
    }
}

/// Compares what servers see, request by request, with the replays of the vCPUs' programs.
private final class OrderChecker: Sendable {
    private struct Expected {
        var accesses: GuestReplay.Iterator
        var fragments: ArraySlice<GuestAccess> = []

        mutating func next() -> GuestAccess? {
            if fragments.isEmpty { fragments = accesses.next()?.fragments[...] ?? [] }
            return fragments.popFirst()
        }
    }

    private let state: Mutex<(expected: [Expected], mismatch: String?)>

    init(_ replays: [GuestReplay]) {
        state = Mutex((replays.map { Expected(accesses: $0.makeIterator()) }, nil))
    }

    /// The first request that was not what the replay says.
    var mismatch: String? { state.withLock { $0.mismatch } }

    /// How many accesses have not come; for after the run.
    var missing: Int {
        state.withLock { state in
            var missing = 0
            for vcpu in state.expected.indices {
                while state.expected[vcpu].next() != nil { missing += 1 }
            }
            return missing
        }
    }

    @Sendable func check(_ served: ServedRequest) {
        let request = served.request
        state.withLock { state in
            let vcpu = Int(request.vcpu)
            guard state.mismatch == nil else { return }
            guard vcpu < state.expected.count, let access = state.expected[vcpu].next(),
                request.kind == (access.kind == .load ? .load : .store), request.length == access.length,
                request.offset == access.address &- ForwardedGuest.base,
                request.data == UInt64(truncatingIfNeeded: access.value)
            else {
                state.mismatch = "\(request)"
                return
            }
        }
    }
}
