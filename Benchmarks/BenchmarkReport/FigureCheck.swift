// SPDX-License-Identifier: Apache-2.0
//
// The figures that must not get worse, and the check of a run against those that were committed.

import TextTable

/// The main rows of a run, held against the same rows of another.
public struct FigureCheck: Sendable {
    /// The rows that are checked.
    public static let mainRows: [BenchmarkRow.Key] = [
        BenchmarkRow.Key("fd-exchange", BenchmarkRow.Load("store")),
        BenchmarkRow.Key("fd-exchange", BenchmarkRow.Load("load")),
        BenchmarkRow.Key("fd-shadow", BenchmarkRow.Load("load")),
        BenchmarkRow.Key("fd-coalesced-wake", BenchmarkRow.Load("burst-64")),
    ]

    /// What came of one row.
    public struct Result: Hashable, Sendable, CustomStringConvertible {
        /// Whether it is as good as it was.
        public let passed: Bool
        /// Which row, and what was found.
        public let description: String
    }

    /// A result for each of ``mainRows``.
    public let results: [Result]

    /// Checks a run.
    ///
    /// - Parameters:
    ///   - run: what was measured.
    ///   - committed: what it is held against.
    ///   - threshold: by how many percent a row may be dearer.
    /// - Throws: `ComparisonError` if their units differ.
    public init(_ run: BenchmarkRun, against committed: BenchmarkRun, threshold: Double) throws(ComparisonError) {
        let comparison = try Comparison(committed, run)
        results = Self.mainRows.map { key in
            if let change = comparison.changes.first(where: { $0.key == key }) {
                return Self.result(change, threshold: threshold)
            }
            let isCommitted = committed.rows.contains { $0.key == key }
            return Result(
                passed: false,
                description: "\(key): \(isCommitted ? "the run has" : "the committed figures have") no such row")
        }
    }

    private static func result(_ change: Comparison.Change, threshold: Double) -> Result {
        let figures =
            "\(change.key): \(decimal(change.after, places: 1)), committed \(decimal(change.before, places: 1))"
        let percent = change.percent.map { ", \($0 > 0 ? "+" : "")\(decimal($0)) %" } ?? ""
        guard !change.isRegression(beyond: threshold) else {
            return Result(
                passed: false, description: "\(figures)\(percent), and more than +\(decimal(threshold)) % fails")
        }
        let isBetter = change.percent.map { $0 < -threshold } ?? false
        return Result(
            passed: true, description: figures + percent + (isBetter ? "; commit the new figures to hold that" : ""))
    }
}
