// SPDX-License-Identifier: Apache-2.0
//
// How a row is measured: passes over the same scenario, each for one kind of figure.

import CBenchmark
import GuestPrograms
import SystemPackage

/// Measures one scenario.
struct Measurement {
    private let testbed: Testbed
    private let plan: Plan
    private let work: Operation.Work
    /// Of a tick of the TSC, in the row's unit.
    private let unitsPerTick: Double

    private var scenario: Scenario { testbed.scenario }

    init(_ scenario: Scenario, _ plan: Plan) throws {
        testbed = try Testbed(scenario, plan)
        self.plan = plan
        work = scenario.operation.work(count: plan.count, width: scenario.width, bus: scenario.bus)
        switch plan.mode {
        case .instructions: unitsPerTick = 1
        case .time: unitsPerTick = 1e6 / (try testbed.tscFrequency())
        }
    }

    /// All passes.
    func row(wakeupPreemption: Bool) throws -> Row {
        let warmup = scenario.operation.work(count: plan.warmup, width: scenario.width, bus: scenario.bus)
        _ = try run(warmup.full, of: warmup)
        var rounds: [Double] = []
        var cpuTime = (vmm: 0.0, emulation: 0.0)
        let before = testbed.counted
        for _ in 0..<plan.rounds {
            let empty = try run(work.empty, of: work)
            let (vmm, emulation) = self.cpuTime
            let full = try run(work.full, of: work)
            cpuTime.vmm += self.cpuTime.vmm - vmm
            cpuTime.emulation += self.cpuTime.emulation - emulation
            rounds.append((Double(full) - Double(empty)) * unitsPerTick / perRound)
        }
        var row = Row(scenario, wakeupPreemption: wakeupPreemption, rounds: rounds)
        let after = testbed.counted
        if after.batches > before.batches {
            row.requestsPerRead = Double(after.requests - before.requests) / Double(after.batches - before.batches)
        }
        row.counts = try countingPass()
        row.latency = try latencyPass()
        return row
    }

    /// Accesses of a round, on all vCPUs.
    private var perRound: Double { Double(work.accesses * scenario.vcpus) }

    private var cpuTime: (vmm: Double, emulation: Double) {
        (Double(cbench_cpu_time(0)), testbed.emulation.process.map { Double(cbench_cpu_time($0)) } ?? 0)
    }

    /// Runs the guest's program and checks that the device has seen all of it.
    private func run(_ extent: Operation.Extent, of work: Operation.Work) throws -> UInt64 {
        let before = testbed.counted
        let ticks = try testbed.run(work.program, extent, seed: plan.seed)
        if extent == work.full, let stores = work.stores { try check(stores, work.accesses - stores, since: before.stores, before.loads) }
        return ticks
    }

    private func check(_ stores: Int, _ loads: Int, since storesBefore: UInt64, _ loadsBefore: UInt64) throws {
        // A signal has no value, and its fence has counted; what shadow memory answers nobody sees.
        guard !scenario.path.isSignal else { return }
        let counted = testbed.counted
        let seen = (counted.stores - storesBefore, counted.loads - loadsBefore)
        let expected = UInt64(stores * scenario.vcpus)
        let atLeast = scenario.path == .descriptorShadow ? 0 : UInt64(loads * scenario.vcpus)
        guard seen.0 == expected, seen.1 >= atLeast else {
            throw MeasuringFailure(
                "\(scenario): the device saw \(seen.0) stores and \(seen.1) loads instead of \(expected) and \(atLeast)")
        }
    }

    // MARK: Counts

    private func countingPass() throws -> Row.Counts {
        let counters = try EventCounters(and: testbed.emulation.process)
        let full = try counters.count { _ = try run(work.full, of: work) }
        let empty = try counters.count { _ = try run(work.empty, of: work) }
        func perAccess(_ event: EventCounters.Event) -> Double {
            ((full[event] ?? 0) - (empty[event] ?? 0)) / perRound
        }
        return Row.Counts(
            contextSwitches: perAccess(.contextSwitches), systemCalls: perAccess(.systemCalls),
            wakeups: perAccess(.wakeups))
    }

    // MARK: Latency

    /// Single accesses by the guest's clock; nil for those that no program times.
    private func latencyPass() throws -> Row.Latency? {
        nil
    }
}
