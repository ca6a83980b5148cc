// SPDX-License-Identifier: Apache-2.0
//
// mmiofd bench capacity: what a load would need, on paper.

import ArgumentParser
import BenchmarkReport
import Capacity
import JSONText
import SystemPackage

struct BenchCapacityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capacity",
        abstract: "Simulate a large machine from counted figures: what a load needs, and what breaks first.",
        discussion: """
            Works out what the parts of an access through the descriptor cost, holds the model against the measured \
            rows, and simulates the load with more and more CPUs for the emulation processes. docs/capacity.md says \
            how, and what is assumed.

            With --json: costs, an object of instructions by part; check, an array of objects (operation, \
            wakeup_preemption, measured, modelled, percent, is_input); demands, an array of objects for a number of \
            emulation_cpus each (keeps_up, rate, busy_cpus, vcpu_share, requests_per_call, wakeups_per_second, \
            load_p50_ns, load_p99_ns, store_p99_ns); fewest_cpus, the first of them that keeps up; paths, an array of \
            objects (path, and the CPUs that store, load and batched take by instructions alone); limits, an array of \
            objects (loads, rate, cause).
            """)

    @Argument(help: "Figures in instructions: what `make bench JSON=file` wrote.")
    var file: String

    @Option(help: "How many vCPUs, each on a CPU of its own.")
    var vcpus = Workload().vcpus

    @Option(help: "How many devices, each with a process of its own.")
    var devices = Workload().devices

    @Option(help: "Accesses a second, of all vCPUs.")
    var rate = 1e7

    @Option(help: ArgumentHelp("How many accesses of 100 are loads.", valueName: "percent"))
    var loads = 10.0

    @Option(help: "CPUs of the emulation processes, where the limits are looked for.")
    var emulationCpus = Workload().emulationCPUs

    @Option(help: "How many instructions a CPU executes in a second.")
    var instructionsPerSecond = Workload().instructionsPerSecond

    @Option(help: "What the hardware adds to an exit, in nanoseconds.")
    var exitNs = Workload().exitNanoseconds

    @Option(help: "From a wake-up to the first instruction on an idle CPU, in nanoseconds.")
    var wakeupNs = Workload().wakeupNanoseconds

    @Option(help: "Instructions that a device takes for an access, beyond those of the benchmark's.")
    var deviceInstructions = 0.0

    @Option(help: "What the times of the accesses come from.")
    var seed: UInt64 = 1

    @OptionGroup var output: OutputOptions

    func validate() throws {
        for (name, value, range) in [
            ("vcpus", Double(vcpus), 1...4096), ("devices", Double(devices), 1...4096), ("rate", rate, 1...1e12),
            ("loads", loads, 0...100), ("emulation-cpus", Double(emulationCpus), 1...4096),
            ("instructions-per-second", instructionsPerSecond, 1e6...1e12), ("exit-ns", exitNs, 0...1e9),
            ("wakeup-ns", wakeupNs, 0...1e9), ("device-instructions", deviceInstructions, 0...1e9),
        ] where !range.contains(value) {
            throw ValidationError("--\(name) must be \(range.lowerBound) to \(range.upperBound)")
        }
    }

    func run() throws {
        let figures = try readRun(file)
        guard figures.mode == .instructions else {
            throw ValidationError("\(file) has times; the model takes counted figures, which make bench makes")
        }
        let report = try CapacityReport(figures, workload) { step in
            _ = try? FileDescriptor.standardError.writeAll("capacity: simulating \(step)\n".utf8)
        }
        let lines = output.json ? [json(report).description] : report.lines
        _ = StandardOutput.write(lines.map { "\($0)\n" }.joined())
    }

    private var workload: Workload {
        var workload = Workload()
        (workload.vcpus, workload.devices, workload.emulationCPUs) = (vcpus, devices, emulationCpus)
        (workload.rate, workload.loads, workload.seed) = (rate, loads / 100, seed)
        workload.instructionsPerSecond = instructionsPerSecond
        (workload.exitNanoseconds, workload.wakeupNanoseconds) = (exitNs, wakeupNs)
        workload.deviceInstructions = deviceInstructions
        return workload
    }

    private func json(_ report: CapacityReport) -> JSONValue {
        let costs = report.costs
        return .object([
            "costs": .object([
                "exit": .number(costs.exit), "load_extra": .number(costs.loadExtra), "queue": .number(costs.queue),
                "wake": .number(costs.wake), "run": .number(costs.run), "call": .number(costs.call),
                "serve": .number(costs.serve), "sleep": .number(costs.sleep),
            ]),
            "check": .array(
                report.check.map { row in
                    .object([
                        "operation": .string(row.key.load.operation),
                        "wakeup_preemption": .boolean(row.key.load.wakeupPreemption),
                        "measured": .number(row.measured), "modelled": .number(row.modelled),
                        "percent": .number(row.percent), "is_input": .boolean(row.isInput),
                    ])
                }),
            "paths": .array(
                report.paths.map { path in
                    func number(_ value: Double?) -> JSONValue { value.map { .number($0) } ?? .null }
                    return .object([
                        "path": .string(path.path), "store": number(path.store), "load": number(path.load),
                        "batched": number(path.batched),
                    ])
                }),
            "demands": .array(report.demands.map { json($0.outcome, cpus: $0.cpus) }),
            "fewest_cpus": JSONValue(report.fewestCPUs),
            "limits": .array(
                report.limits.map {
                    .object(["loads": .number($0.loads), "rate": .number($0.rate), "cause": .string($0.cause.rawValue)])
                }),
        ])
    }

    private func json(_ outcome: Outcome, cpus: Int) -> JSONValue {
        func percentile(_ share: Double, _ times: [Double]) -> JSONValue {
            Outcome.percentile(share, of: times).map { .number($0) } ?? .null
        }
        let wakeups = Double(outcome.processWakeups + outcome.vcpuWakeups)
        return .object([
            "emulation_cpus": .integer(cpus), "keeps_up": .boolean(outcome.keepsUp(with: workload)),
            "rate": .number(outcome.rate), "busy_cpus": .number(outcome.emulationCPUs),
            "vcpu_share": .number(outcome.accessShare(of: workload)),
            "requests_per_call": .number(outcome.requestsPerCall),
            "wakeups_per_second": .number(outcome.nanoseconds > 0 ? wakeups / outcome.nanoseconds * 1e9 : 0),
            "load_p50_ns": percentile(0.5, outcome.loadTimes), "load_p99_ns": percentile(0.99, outcome.loadTimes),
            "store_p99_ns": percentile(0.99, outcome.storeTimes),
        ])
    }
}
