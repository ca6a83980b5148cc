// SPDX-License-Identifier: Apache-2.0
//
// One figure of the benchmark, with what was counted beside it. docs/benchmark-format.md says what each field means.

/// What one path cost for one operation.
public struct BenchmarkRow: Codable, Hashable, Sendable {
    /// What a figure is a number of.
    public enum Unit: String, Codable, Sendable {
        /// Instructions executed in the whole machine.
        case instructions
        /// Nanoseconds.
        case nanoseconds = "ns"
    }

    /// Where the guest's accesses go to.
    public enum Bus: String, Codable, Sendable {
        /// Memory.
        case memory
        /// Ports.
        case port
    }

    /// The part of the cost between two points on the path of an access.
    public struct Stage: Codable, Hashable, Sendable {
        /// Its name.
        public var stage: String
        /// What it cost, in the row's unit.
        public var value: Double
    }

    /// How an access reaches the device.
    public var path: String
    /// What the guest does.
    public var operation: String
    /// The unit of all figures of the row.
    public var unit: Unit
    /// The cost of an access: the median of the rounds.
    public var value: Double
    /// Bytes of an access.
    public var width: Int
    /// The bus of the accesses.
    public var bus: Bus
    /// How many vCPUs access devices.
    public var vcpus: Int
    /// How many devices there are.
    public var devices: Int
    /// How many ranges a device has.
    public var ranges: Int
    /// Whether the scheduler lets a process that wakes up take the CPU from the one that woke it.
    public var wakeupPreemption: Bool
    /// The cost of an access in each round.
    public var rounds: [Double]
    /// Context switches for an access.
    public var contextSwitches: Double?
    /// System calls for an access.
    public var systemCalls: Double?
    /// Wake-ups for an access.
    public var wakeups: Double?
    /// How many requests the emulation process got at once.
    public var requestsPerRead: Double?
    /// CPU time of an access by who used it, in nanoseconds.
    public var cpuNanoseconds: [String: Double]?
    /// Cost of single accesses by percentile, "p50" to "p99.9", and "max".
    public var latency: [String: Double]?
    /// What ``value`` is made of.
    public var stages: [Stage]?

    enum CodingKeys: String, CodingKey {
        case path, operation, unit, value, width, bus, vcpus, devices, ranges
        case wakeupPreemption = "wakeup_preemption"
        case rounds
        case contextSwitches = "context_switches"
        case systemCalls = "system_calls"
        case wakeups
        case requestsPerRead = "requests_per_read"
        case cpuNanoseconds = "cpu_ns"
        case latency, stages
    }
}

extension BenchmarkRow {
    /// What tells a row from all others of its file.
    public struct Key: Hashable, Sendable, CustomStringConvertible {
        /// How an access reaches the device.
        public var path: String
        /// What the guest does, and on what.
        public var load: Load

        /// Names a row.
        public init(_ path: String, _ load: Load) {
            self.path = path
            self.load = load
        }

        /// The path, and what is not as it mostly is.
        public var description: String { "\(path) \(load)" }
    }

    /// What the machine was given to do, whatever the path: rows with the same can be compared.
    public struct Load: Hashable, Sendable, CustomStringConvertible {
        /// What the guest does.
        public var operation: String
        /// Bytes of an access.
        public var width = 4
        /// The bus of the accesses.
        public var bus = Bus.memory
        /// How many vCPUs access devices.
        public var vcpus = 1
        /// How many devices there are.
        public var devices = 1
        /// How many ranges a device has.
        public var ranges = 1
        /// Whether the scheduler has wake-up preemption.
        public var wakeupPreemption = true

        /// An operation of one vCPU on one range of one device, 4 bytes of memory wide.
        public init(_ operation: String) {
            self.operation = operation
        }

        /// The operation, and what is not as it mostly is.
        public var description: String {
            var words = [operation]
            if width != 4 { words.append("\(width) byte\(width > 1 ? "s" : "") wide") }
            if bus != .memory { words.append("port bus") }
            if vcpus != 1 { words.append("\(vcpus) vCPUs") }
            if devices != 1 { words.append("\(devices) devices") }
            if ranges != 1 { words.append("\(ranges) ranges") }
            if !wakeupPreemption { words.append("without wake-up preemption") }
            return words.joined(separator: ", ")
        }
    }

    /// What tells this row from all others.
    public var key: Key { Key(path, load) }

    /// What the machine was given to do.
    public var load: Load {
        var load = Load(operation)
        (load.width, load.bus, load.vcpus, load.devices, load.ranges) = (width, bus, vcpus, devices, ranges)
        load.wakeupPreemption = wakeupPreemption
        return load
    }
}
