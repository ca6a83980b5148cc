// SPDX-License-Identifier: Apache-2.0
//
// mmiofd bench table and report: what was measured, for people.

import ArgumentParser
import BenchmarkReport
import SystemPackage

struct BenchTableCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "table",
        abstract: "Print what was measured, a table for each operation.",
        discussion: """
            For each path: the cost of an access, that divided by the cost of a bare exit with the same operation, what \
            the kernel counted for an access (context switches, system calls, wake-ups), and percentiles of single \
            accesses. What was measured with more than one vCPU, device or range comes in tables at the end.
            """)

    @Argument(help: "What `make bench JSON=file` or mmiofd-bench wrote.")
    var file: String

    func run() throws {
        let text = FigureTable(try readRun(file)).lines.map { "\($0)\n" }.joined()
        _ = StandardOutput.write(text)
    }
}

struct BenchReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Write what was measured as a page for a browser, which needs no other file and no network.")

    @Argument(help: "What `make bench JSON=file` or mmiofd-bench wrote.")
    var file: String

    @Option(help: ArgumentHelp("The page to write.", valueName: "file"))
    var html: String

    func run() throws {
        let report = HTMLReport(try readRun(file))
        do {
            let page = try FileDescriptor.open(
                FilePath(html), .writeOnly, options: [.create, .truncate],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
            _ = try page.closeAfter { try page.writeAll(report.text.utf8) }
        } catch {
            throw PageError(file: html, cause: "\(error)")
        }
    }
}

/// Why a page is not there.
private struct PageError: Error, CustomStringConvertible {
    let file: String
    let cause: String

    var description: String {
        "cannot write the page \(file): \(cause); name a file in a folder that can be written to"
    }
}
