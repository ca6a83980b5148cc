// SPDX-License-Identifier: Apache-2.0
//
// The model held against measured rows, what a load needs, and what breaks first.

public import BenchmarkReport
import TextTable

/// A measured row beside what the model makes of it.
public struct ModelledRow: Hashable, Sendable {
    /// Which row.
    public let key: BenchmarkRow.Key
    /// As it was measured.
    public let measured: Double
    /// As it was simulated.
    public let modelled: Double
    /// Whether the model's parts were worked out from this row, so that it says nothing about the model.
    public let isInput: Bool

    /// By how many percent the model is off.
    public var percent: Double { measured > 0 ? (modelled - measured) / measured * 100 : .infinity }
}

extension AccessCosts {
    /// Simulates the machine that counted, one CPU, for each row of the descriptor that the model knows.
    public func compare(with run: BenchmarkRun) -> [ModelledRow] {
        run.rows.compactMap { row in
            let load = row.load
            var common = BenchmarkRow.Load(load.operation)
            common.wakeupPreemption = load.wakeupPreemption
            guard row.path == "fd-exchange", load == common, let simulated = simulate(row, of: run) else { return nil }
            let modelled = simulated + loopCost(of: row, in: run)
            let isInput = load.operation == "store" || (load.operation == "load" && !load.wakeupPreemption)
            return ModelledRow(key: row.key, measured: row.value, modelled: modelled, isInput: isInput)
        }
    }

    /// What the guest's loop around a burst costs for a store: the same as with an exit.
    private func loopCost(of row: BenchmarkRow, in run: BenchmarkRun) -> Double {
        guard row.operation.hasPrefix("burst-") else { return 0 }
        let burst = run.rows.first { $0.key == BenchmarkRow.Key("exit", row.load) }
        var load = row.load
        load.operation = "store"
        let store = run.rows.first { $0.key == BenchmarkRow.Key("exit", load) }
        return (burst?.value ?? 0) - (store?.value ?? burst?.value ?? 0)
    }

    private func simulate(_ row: BenchmarkRow, of run: BenchmarkRun) -> Double? {
        var workload = Workload()
        (workload.vcpus, workload.devices, workload.sharesOneCPU) = (1, 1, true)
        (workload.instructionsPerSecond, workload.exitNanoseconds, workload.wakeupNanoseconds) = (1e9, 0, 0)
        workload.wakeupPreemption = row.wakeupPreemption
        let count = min(max(run.plan.count, 1), 100_000)
        switch row.operation {
        case "load": workload.loads = 1
        case "store-load": workload.alternates = true
        case "store": workload.burst = count
        default:
            guard row.operation.hasPrefix("burst-"), let size = Int(row.operation.dropFirst(6)), size > 0 else {
                return nil
            }
            workload.burst = min(size, count)
        }
        guard let burst = workload.burst else {
            workload.accesses = count
            return simulate(workload).nanoseconds / Double(count)
        }
        let rounds = max(1, count / burst)
        workload.accesses = rounds * (burst + 1)
        let full = simulate(workload).nanoseconds
        workload.burst = 0
        workload.accesses = rounds
        return (full - simulate(workload).nanoseconds) / Double(rounds * burst)
    }

    /// Raises the rate until the machine does not keep up.
    ///
    /// - Returns: the highest rate that it kept up with, within a few percent, and what more of would have helped.
    public func limit(of workload: Workload) -> (rate: Double, cause: Shortage) {
        var workload = workload
        // A vCPU that does nothing else, and no wake-up.
        let store = (exit + queue) / workload.instructionsPerSecond * 1e9 + workload.exitNanoseconds
        var (low, high) = (0.0, Double(workload.vcpus) / store * 1e9)
        while high - low > 0.04 * high {
            workload.rate = (low + high) / 2
            if simulate(workload).keepsUp(with: workload) {
                low = (low + high) / 2
            } else {
                high = (low + high) / 2
            }
        }
        workload.rate = high * 1.05
        return (low, shortage(of: workload))
    }

    /// What lets a machine keep up that does not.
    private func shortage(of workload: Workload) -> Shortage {
        var variant = workload
        variant.emulationCPUs = workload.devices
        if simulate(variant).keepsUp(with: variant) { return .emulationCPUs }
        variant.wakeupNanoseconds = 0
        return simulate(variant).keepsUp(with: variant) ? .wakeups : .vcpus
    }
}

/// What a machine ran out of.
public enum Shortage: String, Sendable {
    /// CPUs for the emulation processes.
    case emulationCPUs = "emulation CPUs"
    /// Time that vCPUs spend waiting for a CPU to wake up.
    case wakeups = "the latency of wake-ups"
    /// Time of the vCPUs themselves.
    case vcpus = "vCPUs"
}

extension Outcome {
    /// Whether as many accesses were done as were asked for.
    public func keepsUp(with workload: Workload) -> Bool {
        workload.rate.map { rate > 0.97 * $0 } ?? true
    }

    /// Which share of its time a vCPU spent in accesses.
    public func accessShare(of workload: Workload) -> Double {
        nanoseconds > 0 ? accessTime / nanoseconds / Double(workload.vcpus) : 0
    }
}

/// How many CPUs would execute a path's instructions at a rate, every access as in the row that was counted.
public struct PathDemand: Hashable, Sendable {
    /// The path.
    public let path: String
    /// If all accesses are stores.
    public let store: Double?
    /// If all accesses are loads.
    public let load: Double?
    /// If all are stores, and the process takes many at a time, as without wake-up preemption.
    public let batched: Double?

    init?(_ path: String, of run: BenchmarkRun, _ workload: Workload) {
        guard let rate = workload.rate else { return nil }
        func cpus(_ operation: String, preemption: Bool = true) -> Double? {
            var load = BenchmarkRow.Load(operation)
            load.wakeupPreemption = preemption
            let row = run.rows.first { $0.key == BenchmarkRow.Key(path, load) }
            return row.map { $0.value * rate / workload.instructionsPerSecond }
        }
        self.path = path
        (store, load, batched) = (cpus("store"), cpus("load"), cpus("store", preemption: false))
        if store == nil, load == nil { return nil }
    }
}

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

    /// Simulates.
    ///
    /// - Throws: `MissingRow`.
    public init(_ run: BenchmarkRun, _ workload: Workload) throws(AccessCosts.MissingRow) {
        let costs = try AccessCosts(run)
        self.costs = costs
        self.workload = workload
        check = costs.compare(with: run)
        paths = unique(run.rows.map(\.path)).compactMap { PathDemand($0, of: run, workload) }
        let steps = [1, 2, 4, 8, 16, 32, 64, 128].filter { $0 < workload.devices } + [workload.devices]
        demands = unique(steps + [workload.emulationCPUs]).sorted().map { cpus in
            var variant = workload
            variant.emulationCPUs = cpus
            return (cpus, costs.simulate(variant))
        }
        limits = unique([0, workload.loads, 0.5, 1]).sorted().map { loads in
            var variant = workload
            variant.loads = loads
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
