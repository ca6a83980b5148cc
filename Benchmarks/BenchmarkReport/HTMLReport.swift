// SPDX-License-Identifier: Apache-2.0
//
// A run as one page that needs nothing else: report.html with the data in it.

import FoundationEssentials

/// A self-contained HTML page about a run.
public struct HTMLReport: Sendable {
    /// The page.
    public let text: String

    /// Makes the page.
    public init(_ run: BenchmarkRun) {
        let rows = FigureCheck.mainRows.map { MainRow(path: $0.path, load: "\($0.load)") }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Numbers are finite, keys are text: nothing is left that could fail.
        let json = (try? encoder.encode(PageData(run: run, main: rows))).map { Array($0) } ?? []
        let template = String(decoding: PackageResources.report_html, as: UTF8.self)
        text = template.replacing("@DATA@", with: Self.escaped(json), maxReplacements: 1)
    }

    private struct MainRow: Encodable {
        let path: String
        let load: String
    }

    private struct PageData: Encodable {
        let run: BenchmarkRun
        let main: [MainRow]
    }

    /// JSON that may stand in a script element: there, "<" is what begins its end, and stands in strings alone.
    private static func escaped(_ json: [UInt8]) -> String {
        String(decoding: json, as: UTF8.self).replacing("<", with: "\\u003c")
    }
}
