// SPDX-License-Identifier: Apache-2.0
//
// A run of the benchmark, as its JSON has it. docs/benchmark-format.md says what each field means.

/// What was run, where, and what came out.
public struct BenchmarkRun: Codable, Hashable, Sendable {
    /// The format that this program reads and writes.
    public static let format = 1

    /// What was measured.
    public enum Mode: String, Codable, Sendable {
        /// Instructions, which repeat to the digit.
        case instructions
        /// Time, which depends on the machine and on what else it does.
        case time
    }

    /// The machine that ran the virtual machines.
    public struct Machine: Codable, Hashable, Sendable {
        /// Its kernel's release.
        public var kernel: String
        /// Its CPU, as it names itself.
        public var cpu: String
        /// How many CPUs it has.
        public var cpus: Int
        /// What emulated it, and how; nil for hardware.
        public var emulator: String?
        /// The module's parameters.
        public var module: [String: String]
        /// The compiler of the measured code.
        public var compiler: String?
    }

    /// What was asked for.
    public struct Plan: Codable, Hashable, Sendable {
        /// What everything random came from.
        public var seed: UInt64
        /// Accesses of a round.
        public var count: Int
        /// Rounds that were measured.
        public var rounds: Int
        /// Accesses before them.
        public var warmup: Int
        /// The command and its arguments.
        public var command: [String]
        /// Accesses a second where single ones are timed; nil for one after the other.
        public var rate: Double?
        /// The CPUs of the emulation process and of the vCPUs, nil where the scheduler chooses.
        public var pin: [Int]?
    }

    /// The format's number.
    public var format = BenchmarkRun.format
    /// What was measured.
    public var mode: Mode
    /// Where.
    public var machine: Machine
    /// What was asked for.
    public var plan: Plan
    /// The figures, in the order in which they were measured.
    public var rows: [BenchmarkRow]
}
