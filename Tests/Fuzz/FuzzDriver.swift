// SPDX-License-Identifier: Apache-2.0
//
// A run: does the operations one by one against the module, and tells the model.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import KVM
import MMIOForwarding
import SeededRandom
import Synchronization
import SystemPackage

/// Runs a ``FuzzCase`` on a virtual machine of its own.
///
/// One thread acts, so that a seed gives the same actions; only how far the guest has come meanwhile differs.
public final class FuzzDriver {
    let plan: FuzzCase
    let model: Model
    var machine: FuzzedMachine?
    let devices: [FuzzedDevice]
    let arena: Arena
    /// Children that hold copies of all descriptors, and of which devices.
    var children: [(process: Int64, devices: Set<Int>)] = []
    var hasSlot = false
    private let counterFiles: [String]
    /// What each device's counters said last.
    private var counted: [Int: [String: Int]] = [:]
    var tampering: FuzzTampering?
    /// Whether something was hidden from the model.
    public internal(set) var hasTampered = false
    private let progress: FuzzProgress

    /// Makes the machine and its devices.
    ///
    /// - Parameters:
    ///   - plan: what to do.
    ///   - tampering: what the driver hides from the model, to see whether that is caught.
    ///   - progress: told of every action.
    public init(_ plan: FuzzCase, tampering: FuzzTampering? = nil, progress: FuzzProgress = FuzzProgress()) throws {
        self.plan = plan
        self.tampering = tampering
        self.progress = progress
        arena = try Arena(pages: 16)
        let machine = try FuzzedMachine(vcpus: plan.vcpus)
        self.machine = machine
        var devices: [FuzzedDevice] = []
        var files: [String] = []
        try ModuleState.withQueueDepth(plan.depth) {
            for (index, character) in plan.devices.enumerated() {
                let before = Set(ModuleState.devices())
                devices.append(try FuzzedDevice(index, character, try ControlDescriptor(in: machine.guest.machine)))
                files += ModuleState.devices().filter { !before.contains($0) }.prefix(1)
            }
        }
        self.devices = devices
        counterFiles = files
        model = Model(devices: devices.count, vcpus: plan.vcpus, depth: plan.depth)
        for device in devices { try prepare(device) }
    }

    /// No limit to waits, one range, and for a steady device nothing that loses an access.
    private func prepare(_ device: FuzzedDevice) throws {
        arena.put(0 as UInt64, at: arena.start)
        try expect(control(device, CKVMUSER_TIMEOUT, arena.start), [0], "TIMEOUT 0")
        if device.isSteady && device.has(CKVMUSER_FEATURE_ON_CLOSE) {
            try setPolicy(device, UInt32(KVM_USER_ON_CLOSE_HOLD))
        }
        try open(device, 0)
        try place(device, 0, (.memory, device.memory.lowerBound, 0x2000))
        var random = SeededGenerator(seed: plan.seed &+ UInt64(device.index))
        guard random.oneIn(2) else { return }
        try shadowSize(device, &random)
        try map(device, &random)
        try shadowMap(device, &random)
    }

    /// Puts a line into the kernel's log: what the kernel reports next belongs to this case.
    public static func announce(_ plan: FuzzCase) { ModuleState.log("case \(plan.seed)") }

    /// What happened last, a line each.
    public var trail: [String] { model.trail }

    /// Does all operations, and ends everything.
    ///
    /// - Throws: ``Discrepancy``, and what should never fail.
    public func run() throws {
        for (position, operation) in plan.operations {
            progress.note(position, operation)
            model.note("\(position): \(operation)")
            try perform(operation)
        }
        progress.note(-1, nil)
        try settle()
        for counters in counted.values { progress.add(counters) }
        try tearDown()
    }

    private func perform(_ operation: FuzzOperation) throws {
        let device = devices[operation.device % devices.count]
        var random = SeededGenerator(seed: operation.parameter)
        try harvest()
        try machine?.check()
        switch operation.kind {
        case .access: try access(device, &random)
        case .signal: for vcpu in 0...random.below(plan.vcpus) { machine?.interrupt(vcpu) }
        case .slot: try changeSlot()
        case .nap: usleep(UInt32(200 + random.below(2000)))
        case .serve: try serve(device, reversed: random.oneIn(2), rounds: 1 + random.below(4))
        case .read: try read(device, &random)
        case .write: try write(device, &random)
        case .exchange: try exchange(device, &random)
        case .poll: try poll(device)
        case .nonblocking: try setNonBlocking(device, random.oneIn(2))
        case .coalesce: try coalesce(device, &random)
        case .badEmulationCall: try badEmulationCall(device, &random)
        case .range: try range(device, &random)
        case .badRange: try badRange(device, &random)
        case .timeout: try timeout(device, &random)
        case .onClose: try onClose(device, &random)
        case .park: try park(device, &random)
        case .resume: try resume(device, &random)
        case .info: try information(device, &random)
        case .badControlCall: try badControlCall(device, &random)
        case .open: try open(device, UInt32(random.pick([0, O_CLOEXEC, O_NONBLOCK, O_CLOEXEC | O_NONBLOCK])))
        case .close: try close(device, &random)
        case .duplicate: try duplicate(device, &random)
        case .pass: try pass(device, &random)
        case .fork: try fork()
        case .endFork: try endFork()
        case .foreignCall: try foreignCall(device)
        case .shadowSize: try shadowSize(device, &random)
        case .shadowMap: try shadowMap(device, &random)
        case .map: try map(device, &random)
        case .unmap: try unmap(device, &random)
        case .image: try image(device, &random)
        case .ring: try makeRing(device, &random)
        case .ringMap: try mapRing(device, &random)
        case .ringGive: try ringGive(device, &random)
        case .ringEnter: try ringEnter(device, &random)
        case .ringAwait: try ringAwait(device, &random)
        case .ringTake: try ringTake(device, &random)
        case .ringScribble: try ringScribble(device, &random)
        case .ringJump: try ringJump(device, &random)
        case .ringRace: try ringRace(device, &random)
        case .settle: try settle()
        }
    }

    // MARK: What every operation needs

    func model(_ device: FuzzedDevice) -> DeviceModel { model.devices[device.index] }

    /// Looks how far the guest has come.
    func harvest() throws {
        model.tick()
        guard let machine else { return }
        let done = try machine.scripts.map { Int(try $0.done()) }
        // After it: replies that those accesses waited for have been looked at by now.
        for device in devices { try syncRing(device, exactly: true) }
        for (vcpu, script) in machine.scripts.enumerated() {
            // Whatever those accesses brought to the VMM is in the list as well.
            for exit in machine.takeExits(vcpu) { try model.exited(exit.fragment, on: vcpu, given: exit.given) }
            try model.completed(vcpu, upTo: done[vcpu]) { try script.loadedValue(UInt64($0)) }
        }
        model.tick()
    }

    /// A call of the control descriptor.
    func control(_ device: FuzzedDevice, _ command: UInt, _ address: UInt64) -> Int64 {
        device.controlNumber.map { cfuzz_ioctl($0, UInt64(command), address) } ?? Int64(-EBADF)
    }

    /// Demands one of some results.
    func expect(_ result: Int64, _ allowed: [Int32], _ what: @autoclosure () -> String) throws(Discrepancy) {
        try demand(
            allowed.contains { Int64($0) == result }, "\(what()) gave \(result), and not \(allowed.map(String.init))")
    }

    // MARK: The guest

    func access(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        // One that is idle if there is: what is made long after it was issued meets devices that are others by then.
        let first = random.below(plan.vcpus)
        let vcpus = (0..<plan.vcpus).map { ($0 + first) % plan.vcpus }
        let backlog = { (vcpu: Int) in self.model.vcpus[vcpu].accesses.count - self.model.vcpus[vcpu].done }
        guard let vcpu = vcpus.first(where: { backlog($0) == 0 }) ?? vcpus.first, backlog(vcpu) < 12 else { return }
        for _ in 0...random.below(6) {
            try issue(device.access(model(device), &random), on: vcpu, to: device)
        }
        try machine?.wake(vcpu)
    }

    /// Puts an access on a vCPU's list, if there is room.
    func issue(_ access: GuestAccess, on vcpu: Int, to device: FuzzedDevice) throws {
        guard let script = machine?.scripts[vcpu] else { return }
        // One place is for the end.
        guard try script.asked() - script.done() < UInt64(script.capacity - 1) else { return }
        model.issued(access, on: vcpu, to: device.index)
        try script.append(access)
    }

    /// Shows the guest some more memory, or takes it away: nothing that a device does may hold that up.
    private func changeSlot() throws {
        guard let virtualMachine = machine?.guest.machine else { return }
        if hasSlot {
            try virtualMachine.removeMemory(slot: 5)
        } else {
            try virtualMachine.setMemory(try GuestMemory(at: 0x8000_0000, count: 8192), slot: 5)
        }
        hasSlot.toggle()
    }

    // MARK: Everything at rest

    /// Serves every device until no vCPU has anything to do, and compares what the kernel counted.
    func settle() throws {
        while !children.isEmpty { try endFork() }
        repeat {
            progress.count()
            try harvest()
            try machine?.check()
            for device in devices {
                if !model(device).isOpen { try open(device, 0) }
                try serve(device, reversed: false, rounds: .max)
            }
            if !model.isIdle { usleep(300) }
        } while !model.isIdle
        try harvest()
        for device in devices {
            try serve(device, reversed: false, rounds: .max)
            try demand(model(device).outstanding.isEmpty, "device \(device.index) is owed replies that it refuses")
            try compareCounters(device)
        }
    }

    private func compareCounters(_ device: FuzzedDevice) throws {
        let deviceModel = model(device)
        let lost = try model.settled(device.index)
        guard device.index < counterFiles.count else { return }
        let counters = try ModuleState.counters(counterFiles[device.index])
        counted[device.index] = counters
        let refused = deviceModel.counters.invalid + deviceModel.counters.late + deviceModel.counters.refused
        var expected: [String: Int] = [:]
        if deviceModel.counters.refused == 0 {
            expected["invalid_replies"] = deviceModel.counters.invalid
            expected["late_replies"] = deviceModel.counters.late
        } else {
            let counted = (counters["invalid_replies"] ?? 0) + (counters["late_replies"] ?? 0)
            try demand(
                counted == refused, "device \(device.index) refused \(counted) replies, and the model \(refused)")
        }
        // Of what was given up the model learns too late.
        if !deviceModel.limited && !deviceModel.mayAbandon {
            expected["redelivered"] = deviceModel.counters.redelivered
        }
        if !deviceModel.isVague {
            expected["all_ones"] = deviceModel.counters.lostLoads
            expected["dropped"] = lost
            expected["shadow_hits"] = deviceModel.counters.shadowHits
        }
        for (name, value) in expected.sorted(by: { $0.key < $1.key }) {
            guard let counted = counters[name] else { continue }
            try demand(counted == value, "device \(device.index) counted \(counted) \(name), and the model \(value)")
        }
    }
}
