// SPDX-License-Identifier: Apache-2.0
//
// What breaks first as the rate grows.

/// What a machine ran out of.
public enum Shortage: String, Sendable {
    /// CPUs for the emulation processes.
    case emulationCPUs = "emulation CPUs"
    /// Time that vCPUs spend waiting for a CPU to wake up.
    case wakeups = "the latency of wake-ups"
    /// Time of the vCPUs themselves.
    case vcpus = "vCPUs"
}

extension AccessCosts {
    /// Raises the rate until the machine does not keep up.
    ///
    /// - Returns: the highest rate that it kept up with, within a few percent, and what more of would have helped.
    public func limit(of workload: Workload) -> (rate: Double, cause: Shortage) {
        var workload = workload
        // A vCPU that does nothing else, and no wake-up.
        let store = (exit + queue) / workload.instructionsPerSecond * 1e9 + workload.exitNanoseconds
        var (low, high) = (0.0, Double(workload.vcpus) / store * 1e9)
        // Ends also where no rate at all can be kept up with.
        for _ in 0..<30 where high - low > 0.04 * high {
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
