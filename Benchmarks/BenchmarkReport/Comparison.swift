// SPDX-License-Identifier: Apache-2.0
//
// Two runs side by side: what became dearer, what cheaper, and what only one of them has.

import TextTable

/// Why two runs cannot be compared.
public enum ComparisonError: Error, Hashable, CustomStringConvertible {
    /// One counts instructions, the other measures time.
    case otherMode(BenchmarkRun.Mode, BenchmarkRun.Mode)

    /// What was tried, what came back, and what to do.
    public var description: String {
        switch self {
        case .otherMode(let before, let after):
            "cannot compare a run in mode \(before.rawValue) with one in mode \(after.rawValue): "
                + "their units differ; measure both in the same mode"
        }
    }
}

/// What changed from one run to another.
public struct Comparison: Sendable {
    /// A row that both have.
    public struct Change: Hashable, Sendable {
        /// Which row.
        public let key: BenchmarkRow.Key
        /// Its value in the first run.
        public let before: Double
        /// Its value in the second run.
        public let after: Double

        /// By how much it grew, in percent; nil if it grew from nothing.
        public var percent: Double? {
            if before == after { return 0 }
            return before > 0 ? (after - before) / before * 100 : nil
        }

        /// Whether it grew by more than so many percent.
        public func isRegression(beyond threshold: Double) -> Bool {
            percent.map { $0 > threshold } ?? (after > before)
        }
    }

    /// The rows that both have, in the first one's order.
    public let changes: [Change]
    /// The rows that only the first one has.
    public let onlyBefore: [BenchmarkRow.Key]
    /// The rows that only the second one has.
    public let onlyAfter: [BenchmarkRow.Key]
    /// What else is not the same, in words: a change may come from there.
    public let differences: [String]

    /// Compares two runs.
    ///
    /// - Throws: `ComparisonError` if their units differ.
    public init(_ before: BenchmarkRun, _ after: BenchmarkRun) throws(ComparisonError) {
        guard before.mode == after.mode else { throw .otherMode(before.mode, after.mode) }
        let (first, second) = (Self.values(before), Self.values(after))
        changes = before.rows.compactMap { row in
            second[row.key].map { Change(key: row.key, before: row.value, after: $0) }
        }
        onlyBefore = before.rows.map(\.key).filter { second[$0] == nil }
        onlyAfter = after.rows.map(\.key).filter { first[$0] == nil }
        differences = Self.differences(before, after)
    }

    /// The changes that are regressions by more than so many percent.
    public func regressions(beyond threshold: Double) -> [Change] {
        changes.filter { $0.isRegression(beyond: threshold) }
    }

    /// All of it as lines of text.
    ///
    /// - Parameter threshold: percent; more is marked.
    public func lines(threshold: Double) -> [String] {
        var table = TextTable(leading: 2)
        table.append(["path", "operation", "before", "after", "change", ""])
        for change in changes {
            table.append([
                change.key.path, "\(change.key.load)", decimal(change.before, places: 1),
                decimal(change.after, places: 1),
                change.percent.map { "\($0 > 0 ? "+" : "")\(decimal($0)) %" } ?? "-",
                change.isRegression(beyond: threshold) ? "REGRESSED" : "",
            ])
        }
        return differences + (changes.isEmpty ? ["no row is in both"] : table.lines)
            + onlyBefore.map { "only before: \($0)" } + onlyAfter.map { "only after: \($0)" }
    }

    private static func values(_ run: BenchmarkRun) -> [BenchmarkRow.Key: Double] {
        Dictionary(run.rows.map { ($0.key, $0.value) }) { first, _ in first }
    }

    private static func differences(_ before: BenchmarkRun, _ after: BenchmarkRun) -> [String] {
        let (first, second) = (before.machine, after.machine)
        let facts = [
            ("kernel", first.kernel, second.kernel), ("CPU", first.cpu, second.cpu),
            ("number of CPUs", "\(first.cpus)", "\(second.cpus)"),
            ("emulator", first.emulator ?? "none", second.emulator ?? "none"),
            ("compiler", first.compiler ?? "unknown", second.compiler ?? "unknown"),
            ("seed", "\(before.plan.seed)", "\(after.plan.seed)"),
            ("count", "\(before.plan.count)", "\(after.plan.count)"),
        ]
        let parameters = Set(first.module.keys).union(second.module.keys).sorted().map { name in
            ("module parameter \(name)", first.module[name] ?? "unknown", second.module[name] ?? "unknown")
        }
        return (facts + parameters).filter { $0.1 != $0.2 }.map { "the \($0.0) differs: \($0.1), then \($0.2)" }
    }
}
