// SPDX-License-Identifier: Apache-2.0
//
// What changed from one run to another, and the check of the main rows.

import Testing

@testable import BenchmarkReport

@Suite("Comparison of runs")
struct ComparisonTests {
    @Test(
        "A change is a percentage of what was before; more than the threshold is a regression",
        arguments: [
            (100, 102, 2, false), (100, 102.001, 2.001, true), (100, 100, 0, false), (100, 50, -50, false),
            (0, 0, 0, false), (0, 1, nil, true), (-1, 1, nil, true), (1, 0, -100, false), (3, 3.09, 3, true),
            (0, -1, nil, false),
        ] as [(Double, Double, Double?, Bool)])
    func change(before: Double, after: Double, percent: Double?, isRegression: Bool) {
        let change = Comparison.Change(key: FigureCheck.mainRows[0], before: before, after: after)
        #expect(change.percent.map { ($0 * 1000).rounded() } == percent.map { ($0 * 1000).rounded() })
        #expect(change.isRegression(beyond: 2) == isRegression)
    }

    @Test("Rows are paired by all that tells them apart; the others are named")
    func pairs() throws {
        var other = row("exit", "store", 1)
        other.wakeupPreemption = false
        let before = run([row("exit", "store", 100), row("pipes", "store", 100), other])
        let after = run([row("exit", "load", 1), row("exit", "store", 103)])
        let comparison = try Comparison(before, after)
        #expect(comparison.changes.map(\.after) == [103])
        #expect(comparison.onlyBefore.map(\.description) == ["pipes store", "exit store, without wake-up preemption"])
        #expect(comparison.onlyAfter.map(\.description) == ["exit load"])
        #expect(comparison.regressions(beyond: 2).count == 1 && comparison.regressions(beyond: 4).isEmpty)
        let lines = comparison.lines(threshold: 2)
        #expect(lines.contains("exit  store       100.0  103.0  +3.00 %  REGRESSED"))
        #expect(lines.contains("only before: pipes store") && lines.contains("only after: exit load"))
    }

    @Test("Time and instructions are not compared")
    func units() {
        let (first, second) = (
            run([row("exit", "store", 1)]), run([row("exit", "store", 1, in: .nanoseconds)], mode: .time)
        )
        #expect(throws: ComparisonError.otherMode(.instructions, .time)) { _ = try Comparison(first, second) }
        #expect(throws: ComparisonError.otherMode(.time, .instructions)) {
            _ = try FigureCheck(first, against: second, threshold: 2)
        }
    }

    @Test("What differs between the machines is said")
    func machines() throws {
        var other = run([row("exit", "store", 1)])
        other.machine.kernel = "6.12"
        other.machine.module = ["queue_depth": "16", "device_type": "10"]
        #expect(
            try Comparison(run([row("exit", "store", 1)]), other).differences == [
                "the kernel differs: 6.1, then 6.12", "the module parameter device_type differs: unknown, then 10",
                "the module parameter queue_depth differs: 256, then 16",
            ])
    }

    @Test("Each main row passes that is no dearer than the threshold allows, and better ones say so")
    func check() throws {
        let check = try FigureCheck(
            mainRun([102, 102.1, 100, 90]), against: mainRun([100, 100, 100, 100]), threshold: 2)
        #expect(check.results.map(\.passed) == [true, false, true, true])
        #expect(check.results[1].description.contains("+2.10 %"))
        #expect(check.results[3].description.contains("commit the new figures"))
        #expect(!check.results[2].description.contains("commit the"))
    }

    @Test("A main row that is missing fails, and it is said where")
    func missing() throws {
        let check = try FigureCheck(mainRun([1, 1, 1]), against: mainRun([1, 1, 1, 1]), threshold: 2)
        #expect(check.results.map(\.passed) == [true, true, true, false])
        #expect(check.results[3].description.contains("the run has no such row"))
        let reverse = try FigureCheck(mainRun([1, 1, 1, 1]), against: mainRun([1, 1, 1]), threshold: 2)
        #expect(reverse.results[3].description.contains("the committed figures have no such row"))
    }
}
