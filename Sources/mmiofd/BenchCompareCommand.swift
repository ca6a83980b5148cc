// SPDX-License-Identifier: Apache-2.0
//
// mmiofd bench compare and check: what changed from one run to another.

import ArgumentParser
import BenchmarkReport
import JSONText

struct BenchCompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Compare two runs, row by row.",
        discussion: """
            Exit status: 1 if a row that both have grew by more than --threshold percent.

            With --json: threshold_percent, regressions (how many), changes, an array of objects (path, operation, \
            width, bus, vcpus, devices, ranges, wakeup_preemption, before, after, percent, null if it grew from \
            nothing, and regressed), only_before and only_after, arrays of the rows that one run has alone, and \
            differences, an array of what else differs, in words.
            """)

    @Argument(help: "The run before.")
    var before: String

    @Argument(help: "The run after.")
    var after: String

    @OptionGroup var limit: ThresholdOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let comparison = try Comparison(try readRun(before), try readRun(after))
        let lines = output.json ? [json(comparison).description] : comparison.lines(threshold: limit.threshold)
        _ = StandardOutput.write(lines.map { "\($0)\n" }.joined())
        if !comparison.regressions(beyond: limit.threshold).isEmpty { throw ExitCode(1) }
    }

    private func json(_ comparison: Comparison) -> JSONValue {
        .object([
            "threshold_percent": .number(limit.threshold),
            "regressions": .integer(comparison.regressions(beyond: limit.threshold).count),
            "changes": .array(comparison.changes.map(json)),
            "only_before": .array(comparison.onlyBefore.map { .dictionary(Self.fields($0)) }),
            "only_after": .array(comparison.onlyAfter.map { .dictionary(Self.fields($0)) }),
            "differences": .array(comparison.differences.map { .string($0) }),
        ])
    }

    private func json(_ change: Comparison.Change) -> JSONValue {
        var fields = Self.fields(change.key)
        fields["before"] = .number(change.before)
        fields["after"] = .number(change.after)
        fields["percent"] = change.percent.map { .number($0) } ?? .null
        fields["regressed"] = .boolean(change.isRegression(beyond: limit.threshold))
        return .dictionary(fields)
    }

    private static func fields(_ key: BenchmarkRow.Key) -> [String: JSONValue] {
        [
            "path": .string(key.path), "operation": .string(key.load.operation), "width": .integer(key.load.width),
            "bus": .string(key.load.bus.rawValue), "vcpus": .integer(key.load.vcpus),
            "devices": .integer(key.load.devices), "ranges": .integer(key.load.ranges),
            "wakeup_preemption": .boolean(key.load.wakeupPreemption),
        ]
    }
}

struct BenchCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check the main rows of a run against the committed figures.",
        discussion: """
            A line for each of the main rows, and a last line that counts them. Exit status: 1 if one of them grew by \
            more than --threshold percent, or is missing. With --rows instead: these rows, PATH/OPERATION, and nothing else.
            """)

    @Argument(help: "What `make bench JSON=file` or mmiofd-bench wrote.")
    var file: String?

    @Option(help: ArgumentHelp("The committed figures, such a file too.", valueName: "file"))
    var against = "Benchmarks/figures.json"

    @Flag(help: "Print which rows are the main ones.")
    var rows = false

    @OptionGroup var limit: ThresholdOptions

    func validate() throws {
        guard rows != (file != nil) else { throw ValidationError("either FILE or --rows is needed, and not both") }
    }

    func run() throws {
        guard let file else {
            for row in FigureCheck.mainRows { StandardOutput.print("\(row.path)/\(row.load.operation)") }
            return
        }
        let check = try FigureCheck(try readRun(file), against: try readRun(against), threshold: limit.threshold)
        for result in check.results { StandardOutput.print(result.passed ? "passed: \(result)" : "FAILED: \(result)") }
        let failed = check.results.count { !$0.passed }
        StandardOutput.print("\(check.results.count - failed) passed, \(failed) failed")
        if failed > 0 { throw ExitCode(1) }
    }
}
