// SPDX-License-Identifier: Apache-2.0
//
// The tables and the page.

import Testing

@testable import BenchmarkReport

@Suite("Presentation of runs")
struct PresentationTests {
    @Test("A table for each load, cheapest path first, beside an exit with the same load")
    func tables() throws {
        let lines = FigureTable(try fixture()).lines
        let stores = try #require(lines.firstIndex(of: "store, 1 byte wide"))
        #expect(lines[stores + 1] == "path           instructions  to exit")
        #expect(lines[stores + 2] == "ioeventfd              3617     0.71")
        #expect(lines[stores + 4] == "exit                   5090     1.00")
        let others = try #require(lines.firstIndex(of: "store, 1 byte wide, without wake-up preemption"))
        // There is no exit to compare with.
        #expect(lines[others + 2] == "fd-readwrite          3912")
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
        var run = try fixture()
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
        let page = HTMLReport(try fixture()).text
        #expect(page.contains("default-src 'none'") && !page.contains("@DATA@"))
        for other in ["src=", "href=", "@import", "url(", "fetch(", "https:"] { #expect(!page.contains(other)) }
    }
}
