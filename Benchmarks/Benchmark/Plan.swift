// SPDX-License-Identifier: Apache-2.0
//
// What is to be measured.

public import GuestPrograms

/// What a row varies.
public struct Scenario: Hashable, Sendable {
    /// How the accesses come to the device.
    public var path: Path
    /// What the guest does.
    public var operation: Operation
    /// Bytes of an access.
    public var width: GuestProgram.Width = .four
    /// Memory or ports.
    public var bus: GuestProgram.Bus = .memory
    /// How many vCPUs do it at once.
    public var vcpus = 1
    /// How many devices the virtual machine has; the last one is used.
    public var devices = 1
    /// How many ranges each device has; the last one is used.
    public var ranges = 1

    /// One vCPU, one device with one range, 4 bytes of memory.
    public init(_ path: Path, _ operation: Operation) {
        self.path = path
        self.operation = operation
    }

    /// Whether the way of an access is taken apart: one at a time, through both processes.
    var hasStages: Bool {
        [.descriptorReadWrite, .descriptorExchange, .socket, .sharedMemoryFutex].contains(path)
            && [.load, .store].contains(operation) && vcpus == 1
    }

    /// Why it cannot be measured; nil if it can.
    public var objection: String? {
        if !path.allows(operation) { return "\(path.rawValue) has no \(operation)" }
        if bus == .port {
            if width == .eight { return "a port access has 1, 2 or 4 bytes" }
            if [.storeLoad, .mixed].contains(operation) { return "there is no \(operation) on ports" }
            if path == .coalesced { return "coalesced stores are to memory" }
        }
        if vcpus > 1, !path.allowsManyProcessors { return "\(path.rawValue) takes one vCPU" }
        if devices > 1 || ranges > 1, !path.isForwarded {
            return "\(path.rawValue) has one device with one range"
        }
        // Of KVM's NR_IOBUS_DEVS 1000.
        if devices * ranges > 900 { return "KVM's bus takes 1000 ranges" }
        return nil
    }
}

/// Everything that decides what is measured and how.
public struct Plan: Hashable, Sendable {
    /// What the figures are.
    public enum Mode: String, Sendable {
        /// Instructions of the whole machine: its TSC counts them.
        case instructions
        /// Time.
        case time
    }

    /// What the figures are.
    public var mode = Mode.time
    /// The rows, in order.
    public var scenarios: [Scenario] = []
    /// Whether each is measured without the scheduler's wake-up preemption too.
    public var wakeupPreemption = [true, false]
    /// Accesses of a round.
    public var count = 2000
    /// Rounds that are measured.
    public var rounds = 5
    /// Accesses before them.
    public var warmup = 200
    /// What the values and the order of random accesses begin with.
    public var seed: UInt64 = 1
    /// Accesses a second of the latency pass; nil for one after the other.
    public var rate: Double?
    /// CPUs of the emulation process and of the vCPUs in turn; nil where the scheduler chooses.
    public var pinning: [Int]?
    /// Whether to measure where the time of an access goes.
    public var stages = true
    /// Whether the kernel's counters and the scheduler's features are to be used, which takes root.
    public var asksKernel = true
    /// How this plan is run again.
    public var command: [String] = []

    /// An empty one.
    public init() {}

    /// All paths with the operations that they have.
    public static func scenarios(
        _ paths: [Path] = Path.allCases, _ operations: [Operation] = [.store, .load, .burst(64)]
    ) -> [Scenario] {
        paths.flatMap { path in operations.filter(path.allows).map { Scenario(path, $0) } }
    }
}

extension Scenario: CustomStringConvertible {
    /// The path, the operation, and what is not usual.
    public var description: String {
        var parts = ["\(path.rawValue) \(operation)"]
        if width != .four { parts.append("\(width.rawValue) bytes") }
        if bus == .port { parts.append("port") }
        if vcpus != 1 { parts.append("\(vcpus) vCPUs") }
        if devices != 1 { parts.append("\(devices) devices") }
        if ranges != 1 { parts.append("\(ranges) ranges") }
        return parts.joined(separator: ", ")
    }
}
