// SPDX-License-Identifier: Apache-2.0
//
// How a row is measured: passes over the same scenario, each for one kind of figure.

import CBenchmark
import Glibc
import GuestPrograms
import Histogram
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

    /// The measured pass: some rounds after a warm-up.
    func rounds(_ number: Int) throws -> (values: [Double], spent: CPUClocks) {
        let warmup = scenario.operation.work(count: plan.warmup, width: scenario.width, bus: scenario.bus)
        _ = try run(warmup.full, of: warmup)
        var values: [Double] = []
        var spent = CPUClocks()
        for _ in 0..<number {
            let empty = try run(work.empty, of: work)
            let start = clocks
            let full = try run(work.full, of: work)
            spent += clocks - start
            values.append((Double(full) - Double(empty)) * unitsPerTick / perRound)
        }
        return (values, spent)
    }

    /// All passes.
    ///
    /// - Parameter earlier: rounds that have been measured already.
    func row(wakeupPreemption: Bool, after earlier: [Double]) throws -> Row {
        let before = testbed.counted
        let number = plan.rounds - earlier.count
        let (values, spent) = try rounds(number)
        var row = Row(scenario, wakeupPreemption: wakeupPreemption, rounds: earlier + values)
        row.cpuTime = spent.perAccess(perRound * Double(number), hasKernel: plan.mode == .time)
        let after = testbed.counted
        if after.batches > before.batches {
            row.requestsPerRead = Double(after.requests - before.requests) / Double(after.batches - before.batches)
        }
        row.counts = try countingPass()
        row.latency = try latencyPass()
        if plan.stages, plan.asksKernel, scenario.hasStages { row.stages = try stagePass(value: row.value) }
        return row
    }

    /// Accesses of a round, on all vCPUs.
    private var perRound: Double { Double(work.accesses * scenario.vcpus) }

    private var clocks: CPUClocks { CPUClocks(and: testbed.emulation.process) }

    /// Runs the guest's program and checks that the device has seen all of it.
    private func run(_ extent: Operation.Extent, of work: Operation.Work) throws -> UInt64 {
        let before = testbed.counted
        let ticks = try testbed.run(work.program, extent, seed: plan.seed)
        if extent == work.full, let stores = work.stores {
            try check(stores, work.accesses - stores, since: before.stores, before.loads)
            if work.recordsLoads { try checkValues(count: extent.count) }
        }
        return ticks
    }

    private func check(_ stores: Int, _ loads: Int, since storesBefore: UInt64, _ loadsBefore: UInt64) throws {
        // A signal has no value, and its fence has counted; what shadow memory answers nobody sees. The VMM's device
        // counts for one vCPU at a time.
        guard !scenario.path.isSignal, scenario.path != .exit || scenario.vcpus == 1 else { return }
        let counted = testbed.counted
        let seen = (counted.stores - storesBefore, counted.loads - loadsBefore)
        let expected = UInt64(stores * scenario.vcpus)
        let atLeast = scenario.path == .descriptorShadow ? 0 : UInt64(loads * scenario.vcpus)
        guard seen.0 == expected, seen.1 >= atLeast else {
            throw MeasuringFailure(
                "\(scenario): the device saw \(seen.0) stores and \(seen.1) loads instead of \(expected) and \(atLeast)"
            )
        }
    }

    /// Every load must have got what the register holds.
    private func checkValues(count: Int) throws {
        let expected = testbed.register & (.max >> UInt64(64 - 8 * scenario.width.rawValue))
        for index in 0..<scenario.vcpus {
            let values = try testbed.values(of: index)
            guard values.count == count else {
                throw MeasuringFailure("\(scenario): vCPU \(index) made \(values.count) loads instead of \(count)")
            }
            if let wrong = values.first(where: { $0 != expected }) {
                throw MeasuringFailure("\(scenario): a load gave \(wrong) instead of \(expected)")
            }
        }
    }

    // MARK: Counts

    private func countingPass() throws -> Row.Counts? {
        guard plan.asksKernel else { return nil }
        let counters = try EventCounters(and: testbed.emulation.process)
        defer {
            counters.close()
            EventCounters.settle()
        }
        let full = try counters.count { _ = try run(work.full, of: work) }
        let empty = try counters.count { _ = try run(work.empty, of: work) }
        func perAccess(_ event: EventCounters.Event) -> Double {
            ((full[event] ?? 0) - (empty[event] ?? 0)) / perRound
        }
        return Row.Counts(
            contextSwitches: perAccess(.contextSwitches), systemCalls: perAccess(.systemCalls),
            wakeups: perAccess(.wakeups))
    }

    // MARK: Stages

    /// Where the cost lies; the rest of `value` is the last stage.
    private func stagePass(value: Double) throws -> [Row.Stage] {
        guard let emulation = testbed.emulation.process else { return [] }
        let trace = try EventTrace()
        var breakdown = StageBreakdown(vmm: Int(getpid()), emulation: Int(emulation))
        let count = 200
        let work = scenario.operation.work(count: count, width: scenario.width, bus: scenario.bus)
        // Of loads, since each goes the whole way; how many stores go at once may change from run to run.
        let loads = Operation.load.work(count: count, width: scenario.width, bus: scenario.bus)
        _ = try run(loads.full, of: loads)
        let plain = try run(loads.full, of: loads)
        for group in StageBreakdown.groups {
            var traced: UInt64 = 0
            let events = try trace.trace(group) { traced = try run(loads.full, of: loads) }
            guard !events.isEmpty else { continue }
            let cost = (Double(traced) - Double(plain)) / Double(events.count)
            for name in Set(events.map(\.name)) { breakdown.costs[name] = cost }
        }
        let events = try trace.trace(StageBreakdown.groups.flatMap { $0 }) { _ = try run(work.full, of: work) }
        var stages = breakdown.usualStages(events).map { Row.Stage(name: $0.name, value: $0.ticks * unitsPerTick) }
        stages.append(Row.Stage(name: "rest", value: value - stages.map(\.value).reduce(0, +)))
        return stages
    }

    // MARK: Latency

    /// Single accesses by the guest's clock; nil for those that no program times.
    private func latencyPass() throws -> Row.Latency? {
        let interval = plan.rate.map { ticksPerSecond / $0 } ?? 0
        guard
            let work = scenario.operation.timedWork(
                count: plan.count, interval: UInt64(interval), width: scenario.width, bus: scenario.bus)
        else { return nil }
        _ = try run(work.full, of: work)
        // Five digits: every count of instructions in question is a bucket of its own.
        var histogram = Histogram<UInt32>(highestTrackableValue: 1 << 40, numberOfSignificantValueDigits: .five)
        for index in 0..<scenario.vcpus {
            for ticks in try testbed.values(of: index) { histogram.record(ticks) }
        }
        return Row.Latency(histogram, unitsPerTick: unitsPerTick)
    }

    private var ticksPerSecond: Double { 1e9 / unitsPerTick }
}

extension Row.Latency {
    /// The usual percentiles.
    init(_ histogram: Histogram<UInt32>, unitsPerTick: Double) {
        let quantiles: [(String, UInt64)] = [
            ("p50", histogram.valueAtPercentile(50)), ("p90", histogram.valueAtPercentile(90)),
            ("p99", histogram.valueAtPercentile(99)), ("p99.9", histogram.valueAtPercentile(99.9)),
            ("max", histogram.maxRecorded),
        ]
        percentiles = quantiles.map { Percentile(name: $0.0, value: Double($0.1) * unitsPerTick) }
    }
}
