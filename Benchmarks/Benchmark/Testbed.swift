// SPDX-License-Identifier: Apache-2.0
//
// A row's virtual machine, its devices and its two processes.

import CBenchmark
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import SystemPackage

/// Why a row could not be measured.
public struct MeasuringFailure: Error, CustomStringConvertible {
    /// What was tried, and what came of it.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// A vCPU with what its loop in C needs.
@safe final class Processor: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): handed to one thread at a time.
    var vcpu: VirtualCPU
    private let mapping: MemoryMapping
    private var state: cbench_vcpu
    /// errno of the last run, negative, or 0.
    private(set) var result: CInt = 0

    init(_ vcpu: consuming VirtualCPU, _ state: (UnsafeMutablePointer<kvm_run>) -> cbench_vcpu) throws {
        let size = try KVMSystem().virtualCPUMappingSize()
        mapping = try MemoryMapping(mapping: vcpu.descriptor, count: size)
        self.vcpu = vcpu
        // SAFETY: the mapping begins with this structure, and lives as long as this object.
        unsafe self.state = state(mapping.baseAddress.assumingMemoryBound(to: kvm_run.self))
        unsafe self.state.descriptor = self.vcpu.descriptor.rawValue
    }

    func run(storesPerFence: Int) {
        unsafe state.stores = UInt32(storesPerFence)
        unsafe result = cbench_run(&state)
    }

    var start: UInt64 { unsafe state.start }
    var end: UInt64 { unsafe state.end }
    var exitReason: UInt32 {
        unsafe mapping.baseAddress.assumingMemoryBound(to: kvm_run.self).pointee.exit_reason
    }
}

/// A row's virtual machine, its devices and its two processes, ready to run guest programs.
final class Testbed {
    let scenario: Scenario
    let emulation: EmulationProcess
    private let shared: SharedState
    private let guest: GuestMachine
    private var processors: [Processor] = []
    private let channel: Channel
    private let devices: Devices

    /// The VMM's ends of what connects the processes.
    private final class Channel {
        let raw: cbench_channel

        init(_ path: Path) throws(Errno) {
            var channel = cbench_channel()
            let result = unsafe cbench_make_channel(path.raw, &channel)
            guard result == 0 else { throw Errno(rawValue: -result) }
            raw = channel
        }

        deinit { cbench_close_ends(raw.vmm_in, raw.vmm_out) }
    }

    /// What keeps the devices there.
    private final class Devices {
        var controls: [Control] = []
        var images: [Image] = []

        final class Control {
            let control: ControlDescriptor
            init(_ control: consuming ControlDescriptor) { self.control = control }
        }
        final class Image {
            let image: ShadowImage
            init(_ image: consuming ShadowImage) { self.image = image }
        }
    }

    /// Makes it all: the emulation process first, as long as there are no threads and no guest memory.
    init(_ scenario: Scenario, _ plan: Plan) throws {
        self.scenario = scenario
        shared = try SharedState()
        channel = try Channel(scenario.path)
        let cpus = plan.pinning
        let yields = sysconf(CInt(_SC_NPROCESSORS_ONLN)) == 1 || Set(cpus ?? [0, 1]).count == 1
        emulation = try EmulationProcess(
            scenario.path, shared, channel.raw, descriptors: scenario.path.isForwarded ? scenario.devices : 0,
            yields: yields, cpu: cpus?.first)
        let machine = try KVMSystem().makeVirtualMachine()
        // The latency pass records as many values as it makes accesses.
        guest = try GuestMachine(
            in: machine, vcpus: scenario.vcpus, capacity: max(plan.count, plan.warmup, 64))
        devices = Devices()
        try placeDevices(in: machine)
        for index in 0..<scenario.vcpus {
            let cpu = cpus.map { $0.count > 1 ? $0[1 + index % ($0.count - 1)] : $0[0] }
            let processor = try unsafe Processor(try guest.makeVirtualCPU(id: UInt32(index))) { run in
                unsafe cbench_vcpu(
                    path: scenario.path.raw, descriptor: -1, run: run, shared: shared.pointer,
                    base: Self.base(scenario),
                    in: channel.raw.vmm_in, out: channel.raw.vmm_out, yields: yields ? 1 : 0, cpu: CInt(cpu ?? -1),
                    stores: 0, start: 0, end: 0)
            }
            processors.append(processor)
        }
    }

    // MARK: The devices

    /// Where a range of a device begins.
    private static func address(device: Int, range: Int, on bus: GuestProgram.Bus) -> UInt64 {
        let position = UInt64(device * 64 + range)
        return bus == .memory ? 0xd000_0000 + 0x4000 * position : 0x1000 + 16 * position
    }

    /// Where the guest's accesses go: to the last range of the last device.
    private static func base(_ scenario: Scenario) -> UInt64 {
        address(device: scenario.devices - 1, range: scenario.ranges - 1, on: scenario.bus)
    }

    private func placeDevices(in machine: VirtualMachine) throws {
        let base = Self.base(scenario)
        if scenario.path.isForwarded {
            for device in 0..<scenario.devices { try forward(device, in: machine) }
        } else if scenario.path.isSignal {
            let copy = fcntl(channel.raw.vmm_in, F_DUPFD_CLOEXEC, 0)
            guard copy >= 0 else { throw Errno(rawValue: errno) }
            let event = EventDescriptor(adopting: OwnedDescriptor(adopting: copy))
            try machine.assignDoorbell(
                Doorbell(
                    at: base, on: scenario.bus == .memory ? .memory : .port, length: UInt32(scenario.width.rawValue)),
                to: event)
        } else if scenario.path == .coalesced {
            try machine.addCoalescedRange(at: base, count: UInt32(GuestProgram.fenceDistance(.memory)))
        }
    }

    private func forward(_ device: Int, in machine: VirtualMachine) throws {
        let control = try ControlDescriptor(in: machine)
        for range in 0..<scenario.ranges {
            let address = Self.address(device: device, range: range, on: scenario.bus)
            let length = 2 * GuestProgram.fenceDistance(scenario.bus)
            try control.setRange(
                UInt32(range),
                to: GuestRange(scenario.bus == .memory ? .memory : .ports, at: address, length: length))
        }
        let descriptor = try control.makeEmulationDescriptor()
        if scenario.path == .descriptorShadow {
            var map = ShadowMap(imageSize: GuestMemory.pageSize)
            try map.add(
                .init(
                    rangeID: UInt32(scenario.ranges - 1), offset: 0, length: UInt64(CBENCH_REGISTERS_SIZE),
                    imageOffset: 0, widths: .all))
            guard let image = try descriptor.placeShadow(map, { _ in }) else {
                throw MeasuringFailure("the module has no shadow memory")
            }
            try image.store(SharedState.firstValue, at: 0, length: 8)
            devices.images.append(.init(image))
        }
        try withHandover { try Handover.send(descriptor, over: $0) }
        devices.controls.append(.init(control))
    }

    /// The socket to the emulation process, which stays the channel's.
    private func withHandover(_ body: (borrowing UnixSocket) throws -> Void) throws {
        let copy = fcntl(channel.raw.vmm_out, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw Errno(rawValue: errno) }
        try body(UnixSocket(adopting: OwnedDescriptor(adopting: copy)))
    }

    // MARK: Running

    /// Runs a program on all vCPUs at once.
    ///
    /// - Returns: ticks of the TSC from the first one's start to the last one's end.
    func run(_ program: GuestProgram, _ extent: Operation.Extent, seed: UInt64) throws -> UInt64 {
        for (index, processor) in processors.enumerated() {
            try guest.load(
                program,
                .init(
                    target: Self.base(scenario), count: extent.count, seed: seed &+ UInt64(index),
                    window: extent.window),
                on: &processor.vcpu)
        }
        unsafe shared.pointer.pointee.barrier = UInt32(processors.count)
        try runProcessors(storesPerFence: extent.storesPerFence)
        for processor in processors where processor.result != 0 {
            let error = unsafe shared.pointer.pointee.error
            throw MeasuringFailure(
                "\(scenario): vCPU failed with \(Errno(rawValue: -processor.result)), exit reason "
                    + "\(processor.exitReason); emulation process: \(error == 0 ? "no error" : "\(Errno(rawValue: error))")"
            )
        }
        let start = processors.map(\.start).min() ?? 0
        let end = processors.map(\.end).max() ?? 0
        return end - start
    }

    private func runProcessors(storesPerFence: Int) throws {
        guard processors.count > 1 else { return processors[0].run(storesPerFence: storesPerFence) }
        var threads: [Running] = []
        for processor in processors {
            threads.append(Running(try NativeThread { processor.run(storesPerFence: storesPerFence) }))
        }
        for thread in threads { thread.join() }
    }

    /// A thread that can be kept in an array.
    private final class Running {
        private var thread: NativeThread?
        init(_ thread: consuming NativeThread) { self.thread = consume thread }
        func join() {
            if let thread = thread.take() { thread.join() }
        }
    }

    /// The values that a vCPU's program left.
    func values(of index: Int) throws -> [UInt64] { try guest.results(of: UInt32(index)).values }

    /// What the device and the emulation process have counted so far.
    var counted: (loads: UInt64, stores: UInt64, batches: UInt64, requests: UInt64) { shared.counted }

    /// What the register holds that the guest accesses.
    var register: UInt64 { shared.register }

    /// Frequency of the TSC in kHz.
    func tscFrequency() throws -> Double {
        let frequency = cbench_tsc_khz(processors[0].vcpu.descriptor.rawValue)
        guard frequency > 0 else { throw KVMError(call: "KVM_GET_TSC_KHZ", errno: Errno(rawValue: -frequency)) }
        return Double(frequency)
    }
}
