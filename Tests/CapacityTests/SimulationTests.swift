// SPDX-License-Identifier: Apache-2.0
//
// The simulation against sums that can be done by hand, and against what was measured.

import Fuzzing
import SeededRandom
import SystemPackage
import Testing

@testable import BenchmarkReport
@testable import Capacity

@Suite("Capacity")
struct SimulationTests {
    private let costs = AccessCosts(
        exit: 3000, loadExtra: 300, queue: 200, wake: 1000, run: 4000, call: 500, serve: 100, sleep: 2000,
        queueDepth: 256)

    /// One vCPU and one device, 1 instruction a nanosecond.
    private func single(loads: Double, accesses: Int) -> Workload {
        var workload = Workload()
        (workload.vcpus, workload.devices, workload.emulationCPUs) = (1, 1, 1)
        (workload.loads, workload.accesses) = (loads, accesses)
        workload.instructionsPerSecond = 1e9
        (workload.exitNanoseconds, workload.wakeupNanoseconds) = (50, 700)
        return workload
    }

    @Test("A load costs exit, queueing, two wake-ups with their latency, serving and going on")
    func load() {
        let outcome = costs.simulate(single(loads: 1, accesses: 10))
        let parts = 3000 + 300 + 50 + 200 + 1000 + 700 + 4000 + 100 + 1000 + 700 + 2000
        #expect(outcome.loadTimes == Array(repeating: Double(parts), count: 10))
        #expect(outcome.processWakeups == 10 && outcome.vcpuWakeups == 10 && outcome.requestsPerCall == 1)
    }

    @Test("Stores do not wait until the queue is full, and are taken many at a time")
    func stores() {
        // A process that is slower than the guest.
        var slow = costs
        slow.serve = 10000
        let outcome = slow.simulate(single(loads: 0, accesses: 2000))
        #expect(outcome.deepest == 256)
        #expect(outcome.processWakeups == 1)
        #expect(outcome.vcpuWakeups > 0)
        // Nothing but the process's work limits it: a request, and its part of a call and of a vCPU's wake-up.
        let each: Double = 10000 + 500 / 64 + 1000 / 64
        #expect(abs(outcome.rate * each / 1e9 - 1) < 0.02)
    }

    @Test("A process that is fast enough is woken for each store")
    func eachStore() {
        var workload = single(loads: 0, accesses: 1000)
        workload.rate = 10
        let outcome = costs.simulate(workload)
        #expect(outcome.processWakeups == 1000 && outcome.deepest == 1)
        let parts: Double = 3000 + 50 + 200 + 1000 + 700 + 4000 + 100
        #expect(outcome.storeTimes.allSatisfy { abs($0 - parts) < 0.01 })
    }

    @Test("On one CPU a woken process goes first, or after the guest, as the scheduler is set")
    func oneCPU() {
        var workload = single(loads: 1, accesses: 100)
        (workload.sharesOneCPU, workload.exitNanoseconds, workload.wakeupNanoseconds) = (true, 0, 0)
        let parts: Double = 3000 + 300 + 200 + 1000 + 4000 + 100
        #expect(costs.simulate(workload).nanoseconds == 100 * parts)
        workload.wakeupPreemption = false
        #expect(costs.simulate(workload).nanoseconds == 100 * (parts + costs.wake))
    }

    @Test("The same seed gives the same outcome, another one another")
    func seeds() {
        var workload = Workload()
        (workload.rate, workload.accesses) = (5e6, 2000)
        let first = costs.simulate(workload)
        #expect(costs.simulate(workload) == first)
        workload.seed = 2
        #expect(costs.simulate(workload) != first)
    }

    @Test("More is served than fewer CPUs could, and never more than was asked for", arguments: [0, 0.1, 0.5, 1])
    func monotonic(loads: Double) {
        var workload = Workload()
        (workload.rate, workload.loads, workload.accesses) = (1e7, loads, 5000)
        var last = 0.0
        for cpus in [1, 4, 16] {
            workload.emulationCPUs = cpus
            let outcome = costs.simulate(workload)
            #expect(outcome.rate > last * 0.97 && outcome.rate < 1.1e7)
            #expect(outcome.emulationCPUs <= Double(cpus) + 0.001)
            #expect(outcome.accesses == 5000 && outcome.served <= outcome.accesses + workload.vcpus)
            last = outcome.rate
        }
    }

    @Test("The model repeats what was counted on one CPU, also where it was not worked out from it")
    func measured() throws {
        let run = try counted()
        let rows = try AccessCosts(run).compare(with: run)
        #expect(rows.count { !$0.isInput } == 9)
        for row in rows { #expect(abs(row.percent) < (row.isInput ? 0.5 : 2), "\(row)") }
    }

    private func counted() throws -> BenchmarkRun {
        var file = FilePath(#filePath)
        file.removeLastComponent()
        file.removeLastComponent()
        file.append("BenchmarkReportTests/Fixtures/counted.json")
        return try BenchmarkRun(readingFrom: file)
    }

    @Test("Rows of any cost are refused, or simulated to an end", arguments: fuzzSeeds)
    func anyCost(seed: UInt64) throws {
        announce(seed, of: "costs")
        var random = SeededGenerator(seed: seed)
        let right = try counted()
        var simulated = 0
        for _ in 0..<15 {
            var run = right
            for position in run.rows.indices where Int.random(in: 0..<20, using: &random) == 0 {
                run.rows[position].value = [0, -1, 1e-300, 5000, 20000, 9e14].randomElement(using: &random) ?? 0
            }
            guard let costs = try? AccessCosts(run) else { continue }
            simulated += 1
            var workload = Workload()
            (workload.rate, workload.accesses) = (1e7, 200)
            #expect(costs.simulate(workload).nanoseconds.isFinite)
            #expect(costs.limit(of: workload).rate.isFinite)
        }
        #expect(simulated > 0)
    }

    @Test("A run without the rows that it takes is refused, and the row named")
    func missing() {
        let run = BenchmarkRun(
            mode: .instructions,
            machine: .init(kernel: "6.1", cpu: "any", cpus: 1, module: [:]),
            plan: .init(seed: 1, count: 1, rounds: 1, warmup: 0, command: []), rows: [])
        #expect(throws: AccessCosts.Failure.missing(.init("fd-exchange", .init("store")))) { _ = try AccessCosts(run) }
    }
}
