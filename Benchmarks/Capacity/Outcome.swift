// SPDX-License-Identifier: Apache-2.0
//
// What came of a simulation.

/// What came of a simulation.
public struct Outcome: Hashable, Sendable {
    /// Simulated nanoseconds.
    public var nanoseconds = 0.0
    /// Accesses that were finished.
    public var accesses = 0
    /// How often an emulation process was woken.
    public var processWakeups = 0
    /// How often a vCPU was woken.
    public var vcpuWakeups = 0
    /// Calls that got requests.
    public var calls = 0
    /// Requests that were served.
    public var served = 0
    /// How far things were when a quarter of the accesses was done.
    var settled = Settled()
    /// Nanoseconds that emulation CPUs were busy, all together.
    public var emulationBusy = 0.0
    /// Nanoseconds that vCPUs spent in accesses, waiting included, all together.
    public var accessTime = 0.0
    /// Nanoseconds of each load, sorted.
    public var loadTimes: [Double] = []
    /// Nanoseconds from a store's time to when it was carried out, sorted.
    public var storeTimes: [Double] = []
    /// The most requests that a device had pending.
    public var deepest = 0

    /// Requests served in a second, once things have settled: what is only queued is not done.
    public var rate: Double {
        nanoseconds > settled.nanoseconds
            ? Double(served - settled.served) / (nanoseconds - settled.nanoseconds) * 1e9 : 0
    }
    /// How many emulation CPUs were busy, on average.
    public var emulationCPUs: Double { nanoseconds > 0 ? emulationBusy / nanoseconds : 0 }
    /// Requests that a call got, on average.
    public var requestsPerCall: Double { calls > 0 ? Double(served) / Double(calls) : 0 }

    struct Settled: Hashable {
        var nanoseconds = 0.0
        var served = 0
    }

    /// The value that so large a share of a sorted list is not above; nil of none.
    public static func percentile(_ share: Double, of sorted: [Double]) -> Double? {
        sorted.isEmpty ? nil : sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
    }
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
