// SPDX-License-Identifier: Apache-2.0
//
// A run as tables for people: one for each load, and one for each number that grows.

import TextTable

/// The rows of a run as lines of text.
public struct FigureTable: Sendable {
    private let run: BenchmarkRun
    private let byKey: [BenchmarkRow.Key: BenchmarkRow]

    /// Lays a run out.
    public init(_ run: BenchmarkRun) {
        self.run = run
        byKey = Dictionary(run.rows.map { ($0.key, $0) }) { first, _ in first }
    }

    /// All lines.
    public var lines: [String] {
        let single = run.rows.filter { !$0.load.isScaled }
        var blocks = [machineLines]
        for load in unique(single.map(\.load)) {
            blocks.append(["\(load)"] + table(single.filter { $0.load == load }))
        }
        blocks += Scaling.allCases.map(scalingLines).filter { !$0.isEmpty }
        return Array(blocks.joined(separator: [""]))
    }

    /// The cost of a row, beside a bare exit that was given the same to do; nil if there is none.
    static func ratioToExit(_ row: BenchmarkRow, in rows: [BenchmarkRow.Key: BenchmarkRow]) -> Double? {
        guard let exit = rows[BenchmarkRow.Key("exit", row.load)], exit.value > 0 else { return nil }
        return row.value / exit.value
    }

    private var machineLines: [String] {
        let unit = run.mode == .instructions ? "instructions" : "nanoseconds"
        let emulator = run.machine.emulator.map { "; \($0)" } ?? ""
        return [
            "\(run.machine.kernel), \(run.machine.cpu), \(run.machine.cpus) CPU\(run.machine.cpus == 1 ? "" : "s")\(emulator)",
            "\(unit) for an access, the median of \(run.plan.rounds) x \(run.plan.count); seed \(run.plan.seed)",
        ]
    }

    // MARK: One load, all paths

    private struct Column {
        let title: String
        let cell: (BenchmarkRow) -> String?
    }

    private var columns: [Column] {
        func percentile(_ name: String) -> Column {
            Column(title: name) { $0.latency?[name].map { decimal($0, places: 0) } }
        }
        return [
            Column(title: run.mode == .instructions ? "instructions" : "ns") { Self.cost($0.value) },
            Column(title: "to exit") { Self.ratioToExit($0, in: byKey).map { decimal($0) } },
            Column(title: "switches") { $0.contextSwitches.map { decimal($0) } },
            Column(title: "calls") { $0.systemCalls.map { decimal($0) } },
            Column(title: "wake-ups") { $0.wakeups.map { decimal($0) } },
            Column(title: "requests/read") { $0.requestsPerRead.map { decimal($0) } },
            percentile("p50"), percentile("p99"), percentile("max"),
        ]
    }

    private func table(_ rows: [BenchmarkRow]) -> [String] {
        let shown = columns.filter { column in rows.contains { column.cell($0) != nil } }
        var table = TextTable()
        table.append(["path"] + shown.map(\.title))
        for row in rows.sorted(by: { ($0.value, $0.path) < ($1.value, $1.path) }) {
            table.append([row.path] + shown.map { $0.cell(row) ?? "-" })
        }
        return table.lines
    }

    private static func cost(_ value: Double) -> String { decimal(value, places: abs(value) < 1000 ? 1 : 0) }

    // MARK: One number that grows

    private func scalingLines(_ scaling: Scaling) -> [String] {
        let series = scaling.series(in: run.rows)
        let numbers = Set(series.flatMap { $0.points.map(\.number) }).sorted()
        guard !numbers.isEmpty else { return [] }
        var table = TextTable(leading: 2)
        table.append(["path", "operation"] + numbers.map { "\($0)" })
        for line in series {
            let cells = numbers.map { number in line.points.first { $0.number == number }.map { Self.cost($0.value) } }
            table.append([line.path, "\(line.load)"] + cells.map { $0 ?? "-" })
        }
        return ["by number of \(scaling.name)"] + table.lines
    }
}

/// The items without those that were there before, in their order.
package func unique<Item: Hashable>(_ items: [Item]) -> [Item] {
    var known: Set<Item> = []
    return items.filter { known.insert($0).inserted }
}
