// SPDX-License-Identifier: Apache-2.0
//
// What is simulated: the machine, and what its guests do.

/// A machine and its load.
public struct Workload: Hashable, Sendable {
    /// vCPUs, each on a CPU of its own.
    public var vcpus = 64
    /// Devices, each with an emulation process of one thread.
    public var devices = 100
    /// CPUs that the emulation processes share.
    public var emulationCPUs = 16
    /// Accesses a second of all vCPUs, at random times, to devices at random; nil for one after the other.
    public var rate: Double?
    /// Which share of them are loads, 0 to 1.
    public var loads = 0.1
    /// How fast a CPU executes.
    public var instructionsPerSecond = 3e9
    /// What the hardware adds to an exit and entry, in nanoseconds: instructions do not show it.
    public var exitNanoseconds = 400.0
    /// From a wake-up to the first instruction on a CPU that was idle, in nanoseconds.
    public var wakeupNanoseconds = 3000.0
    /// Instructions of the device itself for an access, beyond those of the benchmark's.
    public var deviceInstructions = 0.0
    /// Accesses to simulate.
    public var accesses = 20000
    /// What everything random comes from.
    public var seed: UInt64 = 1

    /// The machine of the counted figures: one CPU, on which one vCPU and one process take turns.
    var sharesOneCPU = false
    /// There: whether a thread that is woken takes the CPU.
    var wakeupPreemption = true
    /// There: after how many accesses the guest waits until all are done; nil for never.
    var burst: Int?
    /// There: whether loads come by turns with stores, instead of at random.
    var alternates = false

    /// 64 vCPUs and 100 devices.
    public init() {}
}

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
