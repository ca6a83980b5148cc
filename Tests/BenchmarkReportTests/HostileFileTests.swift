// SPDX-License-Identifier: Apache-2.0
//
// Files of any bytes: each is refused or serves for everything, and nothing traps.

import Fuzzing
import SeededRandom
import SystemPackage
import Testing

@testable import BenchmarkReport

@Suite("Hostile benchmark files", .timeLimit(.minutes(10)))
struct HostileFileTests {
    @Test("A file of any bytes", arguments: fuzzSeeds)
    func bytes(seed: UInt64) throws {
        announce(seed, of: "benchmark files")
        var random = SeededGenerator(seed: seed)
        let right = try few()
        let text = right.encoded()
        for _ in 0..<100 {
            let bytes =
                Int.random(in: 0..<4, using: &random) > 0
                ? mutated(text, using: &random) : randomBytes(upTo: 300, using: &random)
            do throws(BenchmarkFileError.Problem) {
                use(try BenchmarkRun(decoding: bytes), beside: right)
            } catch {
                #expect(isShown(BenchmarkFileError(file: "a.json", problem: error).description))
            }
        }
    }

    @Test("Rows of any numbers", arguments: fuzzSeeds)
    func numbers(seed: UInt64) throws {
        announce(seed, of: "benchmark rows")
        var random = SeededGenerator(seed: seed)
        let right = try few()
        var accepted = 0
        for _ in 0..<100 {
            var run = right
            for position in run.rows.indices where Bool.random(using: &random) {
                run.rows[position].value = number(using: &random)
                run.rows[position].stages = [.init(stage: "exit", value: number(using: &random))]
                run.rows[position].latency = ["p\(number(using: &random))": number(using: &random), "max": 1]
                run.rows[position].ranges = Int.random(in: 1...3, using: &random)
            }
            run.plan.count = [0, -1, .max, .min].randomElement(using: &random) ?? 0
            guard let read = try? BenchmarkRun(decoding: run.encoded()) else { continue }
            accepted += 1
            use(read, beside: right)
        }
        #expect(accepted > 10)
    }

    /// Some of the counted rows: all of them would take long.
    private func few() throws -> BenchmarkRun {
        var run = try counted()
        run.rows.removeAll { !["exit", "fd-exchange", "fd-shadow"].contains($0.path) || $0.operation == "burst-8" }
        return run
    }

    private func number(using random: inout SeededGenerator) -> Double {
        let edges = [0, -0.0, 1, -1, 0.005, 1e-300, 999_999_999_999_999, -999_999_999_999_999, 5090]
        return edges.randomElement(using: &random) ?? 0
    }

    private func use(_ run: BenchmarkRun, beside other: BenchmarkRun) {
        #expect((try? BenchmarkRun(decoding: run.encoded())) == run)
        #expect(FigureTable(run).lines.allSatisfy(isShown))
        for (first, second) in [(run, other), (other, run)] {
            guard let comparison = try? Comparison(first, second) else { continue }
            #expect(comparison.lines(threshold: 2).allSatisfy(isShown))
            #expect(comparison.changes.count + comparison.onlyBefore.count == first.rows.count)
            #expect(comparison.changes.count + comparison.onlyAfter.count == second.rows.count)
            #expect(
                (try? FigureCheck(first, against: second, threshold: 2))?.results.count == FigureCheck.mainRows.count)
        }
    }
}

private func isShown(_ text: String) -> Bool {
    text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }
}
