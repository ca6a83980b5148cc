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
