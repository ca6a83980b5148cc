// SPDX-License-Identifier: Apache-2.0
//
// The rule F1 under load: emulation processes are killed, others go on, and nobody but the clock notices.

import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import SeededRandom
import Synchronization
import Testing

@Suite("Recovery")
struct RecoveryTests {
    @Test(
        "F1: 1,000 emulation processes killed at random moments while four vCPUs load and store: nothing lost or moved")
    func thousandKills() throws {
        try ModuleUnderTest.load()
        let guest = try BusyGuest()
        let emulations = try KillableEmulation()
        var ledger = DeliveryLedger()
        var random = SeededGenerator(seed: 0xf1)
        for round in 0..<1000 {
            let (batch, replies) = (Int.random(in: 1...64, using: &random), Int.random(in: 1...16, using: &random))
            // Half of them are slow, to be killed with much in hand.
            let pause = Bool.random(using: &random) ? Int.random(in: 100...2000, using: &random) : 0
            let process = try emulations.start(
                try guest.control.makeEmulationDescriptor(), batch: batch, replies: replies, pause: pause)
            if round % 2 == 0 {
                // However slow the machine is: after so many requests.
                let count = Int.random(in: 1...100, using: &random)
                try #require(eventually { emulations.recordedCount >= count }, "round \(round): no requests")
            } else {
                usleep(UInt32.random(in: 0..<5000, using: &random))
            }
            _ = kill(process, SIGKILL)
            try #require(try emulations.waitForEnd() == SIGKILL, "round \(round): it ended of itself")
            let (requests, replied) = emulations.lastRecord()
            try ledger.add(requests, replied: replied, expecting: guest.nextAccess)
        }
        // The last one stays until the guest has all its answers.
        let process = try emulations.start(
            try guest.control.makeEmulationDescriptor(), batch: 64, replies: 64)
        let rounds = try guest.finish()
        _ = kill(process, SIGKILL)
        try #require(try emulations.waitForEnd() == SIGKILL)
        let (requests, replied) = emulations.lastRecord()
        try ledger.add(requests, replied: replied, expecting: guest.nextAccess)

        #expect(guest.missing == 0)
        #expect(rounds.allSatisfy { $0 > 1 }, "\(rounds)")
        // Many were killed with something in hand.
        #expect(ledger.redelivered > 500)
        let counters = try DebugCounters.ofNewestDevice()
        #expect(try #require(counters["redelivered"]) >= ledger.redelivered)
        for name in ["timeouts", "all_ones", "dropped", "late_replies", "invalid_replies"] {
            #expect(counters[name] == 0, "\(name)")
        }
    }
}

/// Four vCPUs that run one program after the other, and compare every value that they load.
private final class BusyGuest: Sendable {
    private static let vcpus: UInt32 = 4
    /// A vCPU's own memory is in a page of its own, so that no access crosses the end of one.
    private static let window: (stride: UInt64, start: UInt64, count: UInt64) = (0x1000, 0x400, 0x400)

    let control: ControlDescriptor
    private let expected: Expected
    private let tasks: [BackgroundTask<Int>]

    /// What the vCPUs share with whoever compares.
    private final class Expected: Sendable {
        let stopping = Atomic(false)
        /// What each vCPU's program does that has not been seen yet.
        let accesses = Mutex<[ArraySlice<GuestAccess>]>(Array(repeating: [], count: Int(BusyGuest.vcpus)))
    }

    init() throws {
        let machine = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: Int(Self.vcpus))
        control = try ControlDescriptor(in: machine.machine)
        try control.setTimeout(.seconds(60))
        try control.setOnClose(policy: .hold)
        try control.setRange(
            0,
            to: GuestRange(.memory, at: ForwardedGuest.base, length: Self.window.stride * UInt64(Self.vcpus)))
        let expected = Expected()
        self.expected = expected
        tasks = try (0..<Self.vcpus).map { index in
            // Made in order: that is how the kernel counts them.
            let vcpu = Box(Mutex(try machine.makeVirtualCPU(id: index)))
            return try BackgroundTask { try Self.run(index, on: vcpu, in: machine, expected) }
        }
    }

    /// Runs programs until it is told to stop.
    ///
    /// - Returns: how many.
    private static func run(
        _ index: UInt32, on vcpu: Box<Mutex<VirtualCPU>>, in machine: GuestMachine, _ expected: Expected
    ) throws -> Int {
        var memory = [UInt8](repeating: 0, count: Int(window.stride))
        let base = ForwardedGuest.base + window.stride * UInt64(index)
        func run(_ program: GuestProgram, count: Int, seed: UInt64) throws {
            let arguments = GuestProgram.Arguments(
                target: base + window.start, count: count, seed: seed, window: window.count)
            let accesses = Array(program.accesses(arguments))
            expected.accesses.withLock { $0[Int(index)] += accesses }
            try vcpu.value.withLock { vcpu in
                try machine.load(program, arguments, on: &vcpu)
                try vcpu.runProgram()
            }
            let results = try machine.results(of: index)
            let values = accesses.compactMap { perform($0, at: Int($0.address - base), on: &memory) }
            guard results.values == values, results.checksum == GuestResults.checksum(of: values) else {
                throw DeliveryLedger.Mismatch("vCPU \(index), seed \(seed): loaded \(results.values)")
            }
        }
        var rounds = 0
        while !expected.stopping.load(ordering: .relaxed) {
            try run(.mixed, count: 200, seed: UInt64(rounds) << 8 | UInt64(index + 1))
            rounds += 1
        }
        // It completes when every store has been replied to (O3).
        try run(.loadLoop(.one), count: 1, seed: 0)
        return rounds
    }

    /// Does an access to plain memory; a load gives its value.
    private static func perform(_ access: GuestAccess, at start: Int, on memory: inout [UInt8]) -> UInt64? {
        switch access.kind {
        case .load:
            return (0..<access.length).reversed().reduce(0) { $0 << 8 | UInt64(memory[start + $1]) }
        case .store:
            for index in 0..<access.length {
                memory[start + index] = UInt8(truncatingIfNeeded: access.value >> UInt128(8 * index))
            }
            return nil
        }
    }

    /// The access that comes next from a vCPU: its offset in the device is that to the first range.
    func nextAccess(of vcpu: UInt32) -> GuestAccess? {
        expected.accesses.withLock { $0.indices.contains(Int(vcpu)) ? $0[Int(vcpu)].popFirst() : nil }
    }

    /// How many accesses have not been seen.
    var missing: Int { expected.accesses.withLock { $0.reduce(0) { $0 + $1.count } } }

    /// Lets the vCPUs end the programs that they are at.
    ///
    /// - Returns: how many each has run.
    func finish() throws -> [Int] {
        expected.stopping.store(true, ordering: .relaxed)
        return try tasks.map { try $0.join() }
    }
}

/// Judges what one emulation process after the other was given.
private struct DeliveryLedger {
    /// Something that F1 or O1 forbids.
    struct Mismatch: Error, CustomStringConvertible {
        let description: String

        init(_ description: String) {
            self.description = description
        }
    }

    /// For each request its place in the order of first deliveries.
    private var places: [UInt64: Int] = [:]
    /// Those whose replies were accepted.
    private var replied: Set<UInt64> = []
    private var processes = 0
    /// Requests that came again.
    private(set) var redelivered = 0

    /// Judges what the next process was given, in order.
    ///
    /// - Parameters:
    ///   - requests: what it has recorded.
    ///   - count: how many of these, from the first on, are known to have been replied to.
    ///   - next: takes a vCPU's next access.
    mutating func add(
        _ requests: [ForwardedRequest], replied count: Int, expecting next: (UInt32) -> GuestAccess?
    ) throws(Mismatch) {
        var latest = -1
        var newOnes = false
        for request in requests {
            if request.isRedelivered && newOnes { throw Mismatch("process \(processes): \(request) after new ones") }
            newOnes = !request.isRedelivered
            latest = try place(request, after: latest, expecting: next)
        }
        replied.formUnion(requests.prefix(count).map(\.sequence))
        processes += 1
    }

    private mutating func place(
        _ request: ForwardedRequest, after latest: Int, expecting next: (UInt32) -> GuestAccess?
    ) throws(Mismatch) -> Int {
        if let place = places[request.sequence] {
            redelivered += 1
            guard request.isRedelivered else { throw Mismatch("process \(processes): \(request) twice, unmarked") }
            guard !replied.contains(request.sequence) else {
                throw Mismatch("process \(processes): \(request) though it was replied to")
            }
            guard place > latest else { throw Mismatch("process \(processes): \(request) out of order") }
            return place
        }
        // One may be killed between the read and the record, but not before there was one.
        guard !request.isRedelivered || processes > 0 else { throw Mismatch("\(request) had not been read") }
        let access = next(request.vcpu)
        guard let access, access.isMade(by: request) else {
            throw Mismatch("process \(processes): \(request) instead of \(access.map { "\($0)" } ?? "none")")
        }
        places[request.sequence] = places.count
        return places.count - 1
    }
}

extension GuestAccess {
    /// Whether a request to range 0 is this access.
    fileprivate func isMade(by request: ForwardedRequest) -> Bool {
        request.kind == (kind == .load ? .load : .store) && request.length == length
            && request.offset == address &- ForwardedGuest.base && request.data == UInt64(truncatingIfNeeded: value)
    }
}
