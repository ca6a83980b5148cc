// SPDX-License-Identifier: Apache-2.0
//
// What came out, row by row.

import GuestPrograms
package import JSONText

/// What was measured of one scenario.
public struct Row: Sendable {
    /// What was measured.
    public let scenario: Scenario
    /// Whether a thread that is woken could interrupt the one that woke it.
    public let wakeupPreemption: Bool
    /// What an access cost in each round, in order.
    public let rounds: [Double]
    /// What the kernel counted, per access.
    public var counts: Counts?
    /// CPU time per access, in nanoseconds.
    public var cpuTime: CPUTime?
    /// How many requests the emulation process got at a time.
    public var requestsPerRead: Double?
    /// How long single accesses took.
    public var latency: Latency?
    /// Where it went.
    public var stages: [Stage] = []

    /// Begins with the cost.
    public init(_ scenario: Scenario, wakeupPreemption: Bool, rounds: [Double]) {
        self.scenario = scenario
        self.wakeupPreemption = wakeupPreemption
        self.rounds = rounds
    }

    /// The median of the rounds.
    public var value: Double { rounds.median }

    /// What the kernel counted, per access.
    public struct Counts: Hashable, Sendable {
        /// Switches of both processes' threads.
        public var contextSwitches: Double
        /// System calls, KVM_RUN included.
        public var systemCalls: Double
        /// Threads woken.
        public var wakeups: Double
    }

    /// CPU time per access, in nanoseconds.
    public struct CPUTime: Hashable, Sendable {
        /// Of the VMM's process, the guest included.
        public var vmm: Double
        /// Of the emulation process.
        public var emulation: Double
        /// In the kernel, of both; nil where that was too short for the kernel's sampling.
        public var kernel: Double?
    }

    /// Percentiles, in the row's unit.
    public struct Latency: Hashable, Sendable {
        /// Pairs of a percentile and the value that so many are not above.
        public let percentiles: [Percentile]

        /// A percentile.
        public struct Percentile: Hashable, Sendable {
            /// "p99" say.
            public let name: String
            /// In the row's unit.
            public let value: Double
        }
    }

    /// A part of an access's way.
    public struct Stage: Hashable, Sendable {
        /// Its name.
        public let name: String
        /// In the row's unit.
        public let value: Double
    }
}

extension [Double] {
    /// The middle one, or the mean of the two in the middle; NaN of none.
    var median: Double {
        guard !isEmpty else { return .nan }
        let sorted = sorted()
        let middle = count / 2
        return count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

extension Double {
    /// With three decimals at most.
    var thousandths: Double { (self * 1000).rounded() / 1000 }
}

extension Row {
    /// As docs/benchmark-format.md has it.
    package func json(_ mode: Plan.Mode) -> JSONValue {
        var fields: [(String, JSONValue)] = [
            ("path", .string(scenario.path.rawValue)), ("operation", .string("\(scenario.operation)")),
            ("unit", .string(mode == .instructions ? "instructions" : "ns")), ("value", .number(value.thousandths)),
            ("width", .integer(scenario.width.rawValue)),
            ("bus", .string(scenario.bus == .memory ? "memory" : "port")),
            ("vcpus", .integer(scenario.vcpus)), ("devices", .integer(scenario.devices)),
            ("ranges", .integer(scenario.ranges)), ("wakeup_preemption", .boolean(wakeupPreemption)),
            ("rounds", .array(rounds.map { .number($0.thousandths) })),
        ]
        if let counts {
            fields.append(("context_switches", .number(counts.contextSwitches.thousandths)))
            fields.append(("system_calls", .number(counts.systemCalls.thousandths)))
            fields.append(("wakeups", .number(counts.wakeups.thousandths)))
        }
        if let requestsPerRead { fields.append(("requests_per_read", .number(requestsPerRead.thousandths))) }
        if let cpuTime {
            var times: [(String, JSONValue)] = [
                ("vmm", .number(cpuTime.vmm.thousandths)), ("emulation", .number(cpuTime.emulation.thousandths)),
            ]
            if let kernel = cpuTime.kernel { times.append(("kernel", .number(kernel.thousandths))) }
            fields.append(("cpu_ns", .fields(times)))
        }
        if let latency {
            fields.append(
                ("latency", .fields(latency.percentiles.map { ($0.name, .number($0.value.thousandths)) })))
        }
        if !stages.isEmpty {
            let stages = stages.map { stage in
                JSONValue.object(["stage": .string(stage.name), "value": .number(stage.value.thousandths)])
            }
            fields.append(("stages", .array(stages)))
        }
        return .fields(fields)
    }
}
