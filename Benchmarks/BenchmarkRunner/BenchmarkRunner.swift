// SPDX-License-Identifier: Apache-2.0
//
// mmiofd-bench: measures a plan on the machine that it is started on.

import ArgumentParser
import Benchmark
import Glibc
import GuestPrograms
import Lab
import LinuxSystem
import SystemPackage

@main
struct BenchmarkRunner: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mmiofd-bench",
        abstract: "Measure what an access costs on each path, on this machine.",
        discussion: """
            Needs /dev/kvm, the module for the paths through it, and, for what the kernel counts, root. The figures go \
            to standard output as JSON, which docs/benchmark-format.md describes.
            """)

    @Option(parsing: .upToNextOption, help: "Only these paths.", transform: Names.path)
    var path: [Path] = []

    @Option(
        parsing: .upToNextOption, help: "Only these operations: store, load, burst-N, store-load, mixed.",
        transform: Names.operation)
    var operation: [Operation] = [.store, .load, .burst(64)]

    @Option(help: "What the TSC counts: instructions (QEMU with -icount shift=0), or time.", transform: Names.mode)
    var mode = Plan.Mode.time

    @Option(help: "Accesses of a round. (default: 1000; of time 20000)")
    var count: Int?

    @Option(help: "Rounds that are measured. (default: 3; of time 9)")
    var rounds: Int?

    @Option(help: "Accesses before a round. (default: 500; of time 5000)")
    var warmup: Int?

    @Flag(inversion: .prefixedNo, help: "Say where the cost lies, on some paths. (default: of instructions)")
    var stages: Bool?

    @Option(help: "What the guest's values begin with.")
    var seed: UInt64 = 1

    @Option(parsing: .upToNextOption, help: "Bytes of an access: 1, 2, 4, 8.")
    var width: [Int] = [4]

    @Option(parsing: .upToNextOption, help: "memory, port.")
    var bus: [String] = ["memory"]

    @Option(parsing: .upToNextOption, help: "How many vCPUs access the device at once.")
    var vcpus: [Int] = [1]

    @Option(parsing: .upToNextOption, help: "How many devices there are.")
    var devices: [Int] = [1]

    @Option(parsing: .upToNextOption, help: "How many ranges each device has.")
    var ranges: [Int] = [1]

    @Option(help: "on, off or both: whether a thread that is woken may interrupt the one that woke it.")
    var wakeupPreemption = "both"

    @Option(help: "Accesses a second of the latency pass, at a fixed rate. (default: one after the other)")
    var rate: Double?

    @Option(help: "CPUs: the emulation process's, then those of the vCPUs, separated by commas.")
    var pin: String?

    // For scripts/bench, which boots what this cannot see.
    @Option(help: .hidden)
    var scanConsole: String?

    func run() throws {
        if let scanConsole { return try Self.scan(scanConsole) }
        let plan = try plan()
        let outcome = try plan.carryOut { position, total, row, mode in
            let unit = mode == .instructions ? "instructions" : "ns"
            let counts = row.counts.map {
                ", \(hundredths($0.contextSwitches)) switches, \(hundredths($0.systemCalls)) system calls"
            }
            printError(
                "bench: \(position)/\(total) \(row.scenario)\(row.wakeupPreemption ? "" : ", no wake-up preemption"): "
                    + "\(Int(row.value.rounded())) \(unit)\(counts ?? "")")
        }
        print(outcome.json, terminator: "")
    }

    /// Fails if the kernel has reported something in a console log.
    private static func scan(_ path: String) throws {
        let bytes = try OwnedDescriptor.open(FilePath(path), .readOnly).readToEnd()
        let log = String(decoding: bytes, as: UTF8.self)
        let reports = KernelReport.scan(log.split(separator: "\n").map(String.init))
        for report in reports { printError("\(report)") }
        if !reports.isEmpty { throw ExitCode(120) }
    }

    private func plan() throws -> Plan {
        var plan = Plan()
        plan.mode = mode
        let isExact = mode == .instructions
        plan.count = count ?? (isExact ? 1000 : 20_000)
        plan.rounds = rounds ?? (isExact ? 3 : 9)
        plan.warmup = warmup ?? (isExact ? 500 : 5000)
        plan.stages = stages ?? isExact
        plan.asksKernel = geteuid() == 0
        if !plan.asksKernel {
            printError("bench: not root, so nothing is counted by the kernel, and wake-up preemption stays as it is")
        }
        (plan.seed, plan.rate) = (seed, rate)
        plan.command = CommandLine.arguments
        switch wakeupPreemption {
        case "on": plan.wakeupPreemption = [true]
        case "off": plan.wakeupPreemption = [false]
        case "both": break
        default: throw ValidationError("--wakeup-preemption is on, off or both")
        }
        if let pin {
            let cpus = pin.split(separator: ",").map { Int($0) ?? -1 }
            guard !cpus.isEmpty, cpus.allSatisfy({ $0 >= 0 }) else {
                throw ValidationError("--pin is a list of CPUs: 0,1")
            }
            plan.pinning = cpus
        }
        let basic = Plan.scenarios(path.isEmpty ? Path.allCases : path, operation)
        plan.scenarios = try varied(basic)
        guard !plan.scenarios.isEmpty else {
            throw ValidationError("nothing to measure: no such operation on these paths")
        }
        return plan
    }

    /// Every combination; of several, those that cannot be are left out.
    private func varied(_ basic: [Scenario]) throws -> [Scenario] {
        var scenarios: [Scenario] = []
        for bytes in width {
            for bus in bus {
                for vcpus in vcpus {
                    for devices in devices {
                        for ranges in ranges {
                            scenarios += try basic.map {
                                var scenario = $0
                                guard let width = GuestProgram.Width(rawValue: bytes) else {
                                    throw ValidationError("--width is 1, 2, 4 or 8")
                                }
                                scenario.width = width
                                guard ["memory", "port"].contains(bus) else {
                                    throw ValidationError("--bus is memory or port")
                                }
                                scenario.bus = bus == "port" ? .port : .memory
                                (scenario.vcpus, scenario.devices, scenario.ranges) = (vcpus, devices, ranges)
                                return scenario
                            }
                        }
                    }
                }
            }
        }
        return scenarios.filter { $0.objection == nil }
    }

    func validate() throws {
        guard (1...1_000_000).contains(count ?? 1), (1...1000).contains(rounds ?? 1),
            (0...1_000_000).contains(warmup ?? 0)
        else {
            throw ValidationError("--count is 1 to 1000000, --rounds 1 to 1000, --warmup 0 to 1000000")
        }
        guard vcpus.allSatisfy((1...64).contains), devices.allSatisfy((1...64).contains),
            ranges.allSatisfy((1...64).contains)
        else { throw ValidationError("--vcpus, --devices and --ranges are 1 to 64") }
    }
}

/// What the options' words mean.
private enum Names {
    static func path(_ name: String) throws -> Path {
        guard let path = Path(rawValue: name) else {
            throw ValidationError(
                "no path '\(name)'; there are \(Path.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return path
    }

    static func operation(_ name: String) throws -> Operation {
        guard let operation = Operation(name) else { throw ValidationError("no operation '\(name)'") }
        return operation
    }

    static func mode(_ name: String) throws -> Plan.Mode {
        guard let mode = Plan.Mode(rawValue: name) else { throw ValidationError("--mode is instructions or time") }
        return mode
    }
}

private func hundredths(_ value: Double) -> Double { (value * 100).rounded() / 100 }

private func printError(_ line: String) {
    // In one write, so that nothing comes between.
    _ = try? FileDescriptor.standardError.writeAll((line + "\n").utf8)
}
