// SPDX-License-Identifier: Apache-2.0
//
// What a load needs, and what breaks first.

public import BenchmarkReport
import TextTable

/// What a load needs, and what breaks first.
public struct CapacityReport: Sendable {
    /// What was worked out from the measured rows.
    public let costs: AccessCosts
    /// The model beside what was measured.
    public let check: [ModelledRow]
    /// What was simulated.
    public let workload: Workload
    /// What other paths would need, in instructions alone.
    public let paths: [PathDemand]
    /// The load, with so many emulation CPUs each.
    public let demands: [(cpus: Int, outcome: Outcome)]
    /// For so large a share of loads, the highest rate, and what there is too little of beyond it.
    public let limits: [(loads: Double, rate: Double, cause: Shortage)]

    /// Simulates, which takes some seconds.
    ///
    /// - Parameter progress: told what is simulated next.
    /// - Throws: `AccessCosts.Failure`.
    public init(
        _ run: BenchmarkRun, _ workload: Workload, progress: (String) -> Void = { _ in }
    ) throws(AccessCosts.Failure) {
        let costs = try AccessCosts(run)
        self.costs = costs
        self.workload = workload
        check = costs.compare(with: run)
        paths = unique(run.rows.map(\.path)).compactMap { PathDemand($0, of: run, workload) }
        let steps = [1, 2, 4, 8, 16, 32, 64, 128].filter { $0 < workload.devices } + [workload.devices]
        demands = unique(steps + [workload.emulationCPUs]).sorted().map { cpus in
            var variant = workload
            variant.emulationCPUs = cpus
            progress("\(cpus) emulation CPUs")
            return (cpus, costs.simulate(variant))
        }
        limits = unique([0, workload.loads, 0.5, 1]).sorted().map { loads in
            var variant = workload
            variant.loads = loads
            progress("the limit with \(decimal(loads * 100, places: 0)) % loads")
            let (rate, cause) = costs.limit(of: variant)
            return (loads, rate, cause)
        }
    }

    /// The fewest emulation CPUs that keep up, nil if none of those tried does.
    public var fewestCPUs: Int? { demands.first { $0.outcome.keepsUp(with: workload) }?.cpus }

    /// All of it as lines of text.
    public var lines: [String] {
        Array([partLines, checkLines, pathLines, demandLines, limitLines].joined(separator: [""]))
    }

    private var partLines: [String] {
        var table = TextTable(leading: 2)
        table.append(["part", "executed by", "instructions"])
        for (name, by, cost) in [
            ("exit and entry", "vCPU", costs.exit), ("more for a load", "vCPU", costs.loadExtra),
            ("queue a request", "vCPU", costs.queue), ("wake a thread", "who wakes", costs.wake),
            ("run, first call, sleep", "process", costs.run), ("one more call", "process", costs.call),
            ("serve a request", "process", costs.serve), ("sleep and start again", "vCPU", costs.sleep),
        ] {
            table.append([name, by, decimal(cost, places: 0)])
        }
        return table.lines
    }

    private var checkLines: [String] {
        var table = TextTable(leading: 1)
        table.append(["one CPU, fd-exchange", "measured", "model", "off by", ""])
        for row in check {
            table.append([
                "\(row.key.load)", decimal(row.measured, places: 0), decimal(row.modelled, places: 0),
                "\(decimal(row.percent, places: 1)) %", row.isInput ? "worked out from it" : "predicted",
            ])
        }
        return table.lines
    }

    private var pathLines: [String] {
        var table = TextTable()
        table.append(["CPUs that execute nothing else", "stores", "loads", "stores, batched"])
        for path in paths {
            table.append(
                [path.path] + [path.store, path.load, path.batched].map { $0.map { decimal($0, places: 1) } ?? "-" })
        }
        return table.lines
    }

    private var demandLines: [String] {
        var table = TextTable(leading: 0)
        table.append([
            "emulation CPUs", "busy", "rate", "vCPU time", "requests/call", "wake-ups/s", "load p50", "load p99",
            "store p99",
        ])
        for (cpus, outcome) in demands {
            let seconds = max(outcome.nanoseconds, 1) / 1e9
            let wakeups = Double(outcome.processWakeups + outcome.vcpuWakeups)
            // Times only grow where the machine falls behind.
            let times = outcome.keepsUp(with: workload) ? outcome : Outcome()
            table.append([
                "\(cpus)", decimal(outcome.emulationCPUs, places: 1), millions(outcome.rate),
                "\(decimal(outcome.accessShare(of: workload) * 100, places: 0)) %",
                decimal(outcome.requestsPerCall), millions(wakeups / seconds),
                microseconds(0.5, times.loadTimes), microseconds(0.99, times.loadTimes),
                microseconds(0.99, times.storeTimes),
            ])
        }
        let rate = workload.rate.map(millions) ?? "as many as they can"
        let load =
            "\(workload.vcpus) vCPUs, \(workload.devices) devices, \(rate) accesses a second, "
            + "\(decimal(workload.loads * 100, places: 0)) % of them loads"
        return [load] + table.lines
    }

    private var limitLines: [String] {
        var table = TextTable(leading: 0)
        table.append(["loads", "highest rate", "what there is too little of"])
        for (loads, rate, cause) in limits {
            table.append(["\(decimal(loads * 100, places: 0)) %", millions(rate), cause.rawValue])
        }
        return ["what breaks first, with \(workload.emulationCPUs) emulation CPUs"] + table.lines
    }

    private func millions(_ number: Double) -> String { "\(decimal(number / 1e6)) M" }

    private func microseconds(_ share: Double, _ times: [Double]) -> String {
        Outcome.percentile(share, of: times).map { "\(decimal($0 / 1000, places: 1)) us" } ?? "-"
    }
}
