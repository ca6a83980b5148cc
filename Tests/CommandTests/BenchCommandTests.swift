// SPDX-License-Identifier: Apache-2.0
//
// mmiofd bench: what it accepts, what it writes, and how it ends.

import ArgumentParser
import BenchmarkReport
import FoundationEssentials
import Glibc
import SystemPackage
import Testing

@testable import mmiofd

@Suite("mmiofd bench")
struct BenchCommandTests {
    /// The counted figures that other tests use.
    static let figures: FilePath = {
        var file = FilePath(#filePath)
        file.removeLastComponent()
        file.removeLastComponent()
        return file.appending("BenchmarkReportTests/Fixtures/counted.json")
    }()

    /// Runs a command line.
    ///
    /// - Returns: how it ends.
    private func status(_ arguments: String...) -> Int32 {
        do {
            var command = try MMIOFD.parseAsRoot(arguments)
            try command.run()
            return 0
        } catch {
            return MMIOFD.exitCode(for: error).rawValue
        }
    }

    /// Calls `body` with a file of the figures, of which each value is so many times as large.
    private func withFigures(times factor: Double, _ body: (String) throws -> Void) throws {
        var run = try BenchmarkRun(readingFrom: Self.figures)
        for position in run.rows.indices { run.rows[position].value *= factor }
        let file = FilePath("/tmp/mmiofd-figures-\(getpid())-\(UInt64.random(in: 0...(.max))).json")
        let descriptor = try FileDescriptor.open(
            file, .writeOnly, options: [.create, .exclusiveCreate], permissions: .ownerReadWrite)
        defer { _ = unsafe unlink(file.string) }
        _ = try descriptor.closeAfter { try descriptor.writeAll(run.encoded()) }
        try body(file.string)
    }

    @Test(
        "compare ends with 1 if a row grew by more than the threshold",
        arguments: [(1, "2", 0), (1.019, "2", 0), (1.021, "2", 1), (1.021, "3", 0), (0.5, "0", 0)]
            as [(Double, String, Int32)])
    func compare(factor: Double, threshold: String, expected: Int32) throws {
        try withFigures(times: factor) { file in
            let before = Self.figures.string
            #expect(status("bench", "compare", before, file, "--threshold", threshold) == expected)
            #expect(status("bench", "compare", before, file, "--threshold", threshold, "--json") == expected)
        }
    }

    @Test("check ends with 1 if a main row is missing, of which these figures lack one")
    func check() {
        #expect(status("bench", "check", Self.figures.string, "--against", Self.figures.string) == 1)
        #expect(status("bench", "check", "--rows") == 0)
    }

    @Test("report writes the page, over one that is there, and says why it cannot")
    func report() throws {
        try withFigures(times: 1) { file in
            #expect(status("bench", "report", Self.figures.string, "--html", file) == 0)
            let page = try String(contentsOfFile: file, encoding: .utf8)
            #expect(page.hasPrefix("<!doctype html>") && page.hasSuffix("</html>\n"))
        }
        #expect(status("bench", "report", Self.figures.string, "--html", "/nonexistent/page.html") == 1)
    }

    @Test(
        "What makes no sense is refused as such",
        arguments: [
            ["compare", "a"], ["compare", "a", "b", "--threshold", "-1"], ["compare", "a", "b", "--threshold", "nan"],
            ["check"], ["check", "a", "--rows"], ["report", "a"], ["capacity", "a", "--vcpus", "0"],
            ["capacity", "a", "--rate", "nan"], ["capacity", "a", "--loads", "101"],
        ])
    func refused(arguments: [String]) {
        #expect(throws: (any Error).self) { _ = try MMIOFD.parseAsRoot(["bench"] + arguments) }
    }

    @Test("A file that is not there ends with 1", arguments: ["table", "capacity", "check"])
    func missing(command: String) {
        #expect(status("bench", command, "/nonexistent.json") == 1)
    }
}
