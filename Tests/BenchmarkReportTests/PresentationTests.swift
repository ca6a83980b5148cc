// SPDX-License-Identifier: Apache-2.0
//
// The tables and the page.

import Testing

@testable import BenchmarkReport

@Suite("Presentation of runs")
struct PresentationTests {
    @Test("A table for each load, cheapest path first, beside an exit with the same load")
    func tables() throws {
        let lines = FigureTable(try counted()).lines
        let start = try #require(lines.firstIndex(of: "store"))
        #expect(lines[start + 1].hasPrefix("path              instructions  to exit  switches  calls  wake-ups"))
        let table = lines[(start + 2)...].prefix { !$0.isEmpty }.map { $0.split(separator: " ") }
        #expect(table.count == 12 && table.first?.first == "ioeventfd" && table.last?.first == "socket-stream")
        let costs = table.compactMap { Int($0[1]) }
        #expect(costs.count == table.count && costs == costs.sorted())
        let exit = try #require(table.first { $0[0] == "exit" })
        #expect(exit[2] == "1.00")
        #expect(lines.contains("store, without wake-up preemption") && lines.contains("burst-64"))
    }

    @Test("Without an exit that had the same to do there is no ratio")
    func noExit() {
        var other = row("fd-exchange", "store", 3912)
        other.wakeupPreemption = false
        let lines = FigureTable(run([row("exit", "store", 5000), other])).lines
        #expect(lines.suffix(2) == ["path         instructions", "fd-exchange          3912"])
    }

    @Test("What was counted is shown where it was counted")
    func counts() throws {
        var counted = row("fd-exchange", "load", 10887)
        counted.contextSwitches = 2
        counted.latency = ["p99": 12000.4, "max": 99000]
        let lines = FigureTable(run([counted, row("exit", "load", 5672)])).lines
        let heading = try #require(lines.firstIndex(of: "load"))
        #expect(
            Array(lines[(heading + 1)...]) == [
                "path         instructions  to exit  switches    p99    max",
                "exit                 5672     1.00         -      -      -",
                "fd-exchange         10887     1.92      2.00  12000  99000",
            ])
    }

    @Test("What was measured with more of something is one table, with the row for one of it")
    func scaling() throws {
        let rows = [1, 8, 64].map { ranges in
            var row = row("fd-exchange", "store", 10000 + Double(ranges))
            row.ranges = ranges
            return row
        }
        let lines = FigureTable(run(rows)).lines
        let heading = try #require(lines.firstIndex(of: "by number of ranges"))
        #expect(lines[heading + 1] == "path         operation      1      8     64")
        #expect(lines[heading + 2] == "fd-exchange  store      10001  10008  10064")
        #expect(!lines.contains("store, 8 ranges") && !lines.contains("by number of vCPUs"))
    }

    @Test("The page holds the run, and a run cannot end the script that it stands in")
    func page() throws {
        var run = try counted()
        run.machine.kernel = "</script><script>alert(1)</script><!-- <script> @DATA@ & \" \u{2028} é"
        let page = HTMLReport(run).text
        let parts = page.split(separator: #"<script type="application/json" id="data">"#)
        try #require(parts.count == 2)
        let data = try #require(parts[1].split(separator: "</script>").first)
        #expect(!data.contains("<"))
        #expect(data.contains(#""main":[{"load":"store","path":"fd-exchange"}"#))
        // The data is {"main":…,"run":…}.
        let json = try #require(data.split(separator: #","run":"#, maxSplits: 1).last?.dropLast())
        #expect(try BenchmarkRun(decoding: Array(json.utf8)) == run)
    }

    @Test("The page asks for nothing else")
    func selfContained() throws {
        let page = HTMLReport(try counted()).text
        #expect(page.contains("default-src 'none'") && !page.contains("@DATA@"))
        for other in ["src=", "href=", "@import", "url(", "fetch(", "https:"] { #expect(!page.contains(other)) }
    }
}
