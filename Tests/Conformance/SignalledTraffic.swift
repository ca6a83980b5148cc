// SPDX-License-Identifier: Apache-2.0
//
// vCPUs that run a program on a slow device while signals hit them, and a model that says what everybody must see.

import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import SeededRandom
import Synchronization
import SystemPackage

/// Signals at random moments against vCPUs that run one program over and over on a device that parks.
///
/// The device gives each load another value and compares each request with the replay of its vCPU's program: an access
/// that comes twice, not at all or out of order shows there, and a value that goes astray in what the guest keeps.
struct SignalledTraffic {
    let program: GuestProgram
    /// Accesses or rounds in each run of the program.
    let count: Int
    let vcpus: UInt32
    let signals: Int
    let seed: UInt64

    /// What came of it.
    struct Report {
        /// Signals that came in the middle of a load.
        var parkedLoads = 0
        /// Signals that came in the middle of a store.
        var parkedStores = 0
        /// The first thing that was not as the model says.
        var mismatch: String?
    }

    /// Each vCPU has 8 KiB of the device to itself, and a page begins where its accesses are.
    private func replay(_ vcpu: UInt32, _ run: Int) -> (arguments: GuestProgram.Arguments, accesses: GuestReplay) {
        let arguments = GuestProgram.Arguments(
            target: ForwardedGuest.base + 0x2000 * UInt64(vcpu) + 0x1000, count: count,
            seed: seed &+ UInt64(vcpu) << 32 &+ UInt64(run) << 16, window: 256)
        return (arguments, program.accesses(arguments))
    }

    /// Goes on to the last signal, and to the end of the runs that are under way then.
    func run() throws -> Report {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: Int(vcpus))
        let control = try ControlDescriptor.parking(in: guest.machine, length: 0x2000 * UInt64(vcpus))
        let emulation = try control.makeEmulationDescriptor(nonBlocking: true)

        let targets = try (0..<vcpus).map { try SignalledVirtualCPU($0, in: guest) }
        let tasks = try targets.map { target in
            try BackgroundTask {
                try target.run(program) { replay(target.index, $0).arguments }
            }
        }
        let signaller = try BackgroundTask { SignalledVirtualCPU.signal(targets, signals, seed: ~seed) }
        var device = SlowDevice(vcpus: vcpus, seed: seed) { replay($0, $1).accesses }
        try device.serve(emulation) { tasks.allSatisfy(\.hasEnded) }
        try signaller.join()
        for task in tasks { try task.join() }

        var report = Report(mismatch: device.mismatch)
        for target in targets {
            let outcome = target.outcome
            report.parkedLoads += outcome.parkedLoads
            report.parkedStores += outcome.parkedStores
            report.mismatch = report.mismatch ?? device.difference(from: outcome.values, of: target.index)
        }
        return report
    }
}

/// A vCPU that others interrupt.
final class SignalledVirtualCPU: Sendable {
    struct Outcome {
        var parkedLoads = 0
        var parkedStores = 0
        /// What each run loaded.
        var values: [[UInt64]] = []
    }

    let index: UInt32
    let interrupter: VirtualCPUInterrupter
    private let guest: GuestMachine
    private let vcpu: Mutex<VirtualCPU>
    private let state = Mutex((outcome: Outcome(), noticed: 0, goesOn: true, isWell: true))

    init(_ index: UInt32, in guest: GuestMachine) throws {
        self.index = index
        self.guest = guest
        let vcpu = try guest.makeVirtualCPU(id: index)
        interrupter = vcpu.interrupter
        self.vcpu = Mutex(vcpu)
    }

    /// How often a signal took it out of the guest.
    var noticed: Int { state.withLock { $0.noticed } }
    /// Whether its thread has not failed.
    var isWell: Bool { state.withLock { $0.isWell } }
    var outcome: Outcome { state.withLock { $0.outcome } }

    func endAfterThisRun() {
        state.withLock { $0.goesOn = false }
    }

    /// Runs the program over and over; `respond` gets the run's number and each exit that is no signal's.
    func run(
        _ program: GuestProgram, _ arguments: (Int) -> GuestProgram.Arguments,
        respond: @Sendable (Int, VirtualCPU.Exit, inout VirtualCPU) throws -> Void = { try unexpectedExit($1, &$2) }
    ) throws {
        do {
            var run = 0
            while state.withLock({ $0.goesOn }) {
                let number = run
                try runOnce(program, arguments(number)) { try respond(number, $0, &$1) }
                run += 1
            }
        } catch {
            state.withLock { $0.isWell = false }
            throw error
        }
    }

    private func runOnce(
        _ program: GuestProgram, _ arguments: GuestProgram.Arguments,
        _ respond: @Sendable (VirtualCPU.Exit, inout VirtualCPU) throws -> Void
    ) throws {
        try vcpu.withLock { vcpu in
            try guest.load(program, arguments, on: &vcpu)
            try vcpu.runProgram { exit, vcpu in
                guard exit == .interrupted else { return try respond(exit, &vcpu) }
                self.notice(vcpu.parkedAccess)
            }
        }
        let values = try guest.results(of: index).values
        state.withLock { $0.outcome.values.append(values) }
    }

    /// Interrupts the vCPUs at random moments, so often in all, and has their threads end.
    static func signal(_ targets: [SignalledVirtualCPU], _ signals: Int, seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var sent = targets.map { _ in 0 }
        var left = signals
        while left > 0, targets.allSatisfy(\.isWell) {
            let choice = Int.random(in: targets.indices, using: &random)
            let pause = UInt32.random(in: 0..<300, using: &random)
            // Two before the vCPU notices would count as one.
            if targets[choice].noticed >= sent[choice] {
                targets[choice].interrupter.interrupt()
                sent[choice] += 1
                left -= 1
            }
            if pause < 200 { usleep(pause) }
        }
        for target in targets { target.endAfterThisRun() }
    }

    private func notice(_ parked: VirtualCPU.Exit?) {
        state.withLock { state in
            state.noticed += 1
            switch parked {
            case .mmioLoad: state.outcome.parkedLoads += 1
            case .mmioStore: state.outcome.parkedStores += 1
            default: break
            }
        }
    }
}

extension EmulationDescriptor {
    /// Takes a few requests at a time and replies in any order, with what `take` gives for each, until nothing more can
    /// come.
    func serveSlowly(
        seed: UInt64, until hasEnded: () -> Bool, take: (ForwardedRequest) -> UInt64
    ) throws {
        var random = SeededGenerator(seed: seed)
        var owed: [(request: ForwardedRequest, value: UInt64)] = []
        while true {
            // Before the look at the queue: what was stored by then is there.
            let isLast = hasEnded()
            let isReadable = try poll(milliseconds: owed.isEmpty ? 5 : 0).contains(.readable)
            if isReadable {
                owed += try takeNow(Int.random(in: 1...4, using: &random)).map { ($0, take($0)) }
            }
            if let position = owed.indices.randomElement(using: &random) {
                let (request, value) = owed.remove(at: position)
                try reply(request, value)
            } else if isLast, !isReadable {
                return
            }
            if Int.random(in: 0..<4, using: &random) == 0 { usleep(UInt32.random(in: 0..<300, using: &random)) }
        }
    }
}

/// A device that takes its time, and knows what must come.
private struct SlowDevice {
    /// What comes from a vCPU, request by request.
    private struct Expected {
        let replay: (Int) -> GuestReplay
        var runs = 0
        var accesses: GuestReplay.Iterator?
        var fragments: ArraySlice<GuestAccess> = []

        mutating func next() -> GuestAccess {
            while fragments.isEmpty {
                if let access = accesses?.next() {
                    fragments = access.fragments[...]
                } else {
                    accesses = replay(runs).makeIterator()
                    runs += 1
                }
            }
            return fragments.removeFirst()
        }

        /// Whether everything of so many runs has come, and no more.
        mutating func isComplete(after count: Int) -> Bool {
            runs == count && fragments.isEmpty && accesses?.next() == nil
        }
    }

    private var expected: [Expected]
    /// What each vCPU's loads were given.
    private var given: [[UInt64]]
    private var random: SeededGenerator
    private(set) var mismatch: String?

    init(vcpus: UInt32, seed: UInt64, _ replay: @escaping (UInt32, Int) -> GuestReplay) {
        expected = (0..<vcpus).map { vcpu in Expected { replay(vcpu, $0) } }
        given = expected.map { _ in [] }
        random = SeededGenerator(seed: seed)
    }

    /// Serves until nothing more can come.
    mutating func serve(_ emulation: borrowing EmulationDescriptor, until hasEnded: () -> Bool) throws {
        try emulation.serveSlowly(seed: random.next(), until: hasEnded) { take($0) }
    }

    private mutating func take(_ request: ForwardedRequest) -> UInt64 {
        let vcpu = Int(request.vcpu)
        let value = random.next()
        guard mismatch == nil else { return value }
        let access = expected[vcpu].next()
        guard request.kind == (access.kind == .load ? .load : .store), request.length == access.length,
            request.offset == access.address &- ForwardedGuest.base,
            request.data == UInt64(truncatingIfNeeded: access.value)
        else {
            mismatch = "\(request) instead of \(access)"
            return value
        }
        if request.kind == .load { given[vcpu].append(value & ForwardedRequest.mask(request.length)) }
        return value
    }

    /// What was not as it had to be in what a vCPU's runs loaded, if anything; for after the last run.
    mutating func difference(from values: [[UInt64]], of vcpu: UInt32) -> String? {
        var given = self.given[Int(vcpu)][...]
        for (run, values) in values.enumerated() {
            var wanted: [UInt64] = []
            for access in expected[Int(vcpu)].replay(run) where access.kind == .load {
                wanted += Self.value(of: access, from: &given)
            }
            if values != wanted { return "vCPU \(vcpu) loaded other values than it was given in run \(run)" }
        }
        guard given.isEmpty, expected[Int(vcpu)].isComplete(after: values.count) else {
            return "vCPU \(vcpu) has not made all of its accesses"
        }
        return nil
    }

    /// What the parts of a load give together: two values if there are more than 8 bytes.
    private static func value(of access: GuestAccess, from given: inout ArraySlice<UInt64>) -> [UInt64] {
        var (value, done) = (UInt128(0), 0)
        for fragment in access.fragments {
            value |= UInt128(given.popFirst() ?? 0) << UInt128(8 * done)
            done += fragment.length
        }
        let low = UInt64(truncatingIfNeeded: value)
        return access.length > 8 ? [low, UInt64(truncatingIfNeeded: value >> 64)] : [low]
    }
}
