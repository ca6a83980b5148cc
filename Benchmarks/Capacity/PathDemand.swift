// SPDX-License-Identifier: Apache-2.0
//
// What other paths would need.

import BenchmarkReport

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
