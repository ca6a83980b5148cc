// SPDX-License-Identifier: Apache-2.0
//
// Runs to test with: one from a file, and ones made here.

import SystemPackage

@testable import BenchmarkReport

/// A run of scripts/bench, with all paths, as it was written.
func counted() throws -> BenchmarkRun {
    var file = FilePath(#filePath)
    file.removeLastComponent()
    file.append("Fixtures/counted.json")
    return try BenchmarkRun(readingFrom: file)
}

/// A row that costs so much.
func row(_ path: String, _ operation: String, _ value: Double, in unit: BenchmarkRow.Unit = .instructions)
    -> BenchmarkRow
{
    BenchmarkRow(
        path: path, operation: operation, unit: unit, value: value, width: 4, bus: .memory, vcpus: 1, devices: 1,
        ranges: 1, wakeupPreemption: true, rounds: [value])
}

/// A run of these rows.
func run(_ rows: [BenchmarkRow], mode: BenchmarkRun.Mode = .instructions) -> BenchmarkRun {
    BenchmarkRun(
        mode: mode,
        machine: .init(kernel: "6.1", cpu: "any", cpus: 1, module: ["queue_depth": "256"]),
        plan: .init(seed: 1, count: 100, rounds: 1, warmup: 0, command: ["mmiofd-bench"]), rows: rows)
}

/// A run with the rows that are checked, each of which costs so much.
func mainRun(_ values: [Double]) -> BenchmarkRun {
    run(zip(FigureCheck.mainRows, values).map { row($0.path, $0.load.operation, $1) })
}
