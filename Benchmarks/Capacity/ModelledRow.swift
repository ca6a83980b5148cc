// SPDX-License-Identifier: Apache-2.0
//
// The model held against measured rows.

public import BenchmarkReport

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
}
