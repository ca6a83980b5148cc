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
        let main = FigureCheck.mainRows.map { ["path": $0.path, "load": "\($0.load)"] }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let rows = (try? encoder.encode(main)).map { Array($0) } ?? []
        let json = Array(#"{"main":"#.utf8) + rows + Array(#","run":"#.utf8) + run.encoded() + Array("}".utf8)
        let template = String(decoding: PackageResources.report_html, as: UTF8.self)
        text = template.replacing("@DATA@", with: Self.escaped(json), maxReplacements: 1)
    }

    /// JSON that may stand in a script element: there, "<" is what begins its end, and stands in strings alone.
    private static func escaped(_ json: [UInt8]) -> String {
        String(decoding: json, as: UTF8.self).replacing("<", with: "\\u003c")
    }
}
