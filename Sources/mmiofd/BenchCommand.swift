// SPDX-License-Identifier: Apache-2.0
//
// mmiofd bench: the benchmark's measurements on this machine; what is done with its results is in the other Bench files.

import ArgumentParser
import BenchmarkReport
import KernelModule
import LinuxSystem
import SystemPackage

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure what an access costs on every path, and show, compare and check what was measured.",
        discussion: """
            `make bench` counts instructions in the lab, the same to the digit in every run of one build; `mmiofd bench run` \
            measures time on this one. Both write JSON, of which docs/benchmark-format.md says everything; the other \
            subcommands read it.
            """,
        subcommands: [
            BenchRunCommand.self, BenchTableCommand.self, BenchReportCommand.self, BenchCompareCommand.self,
            BenchCheckCommand.self, BenchCapacityCommand.self,
        ])
}

/// A file that the benchmark wrote, as an argument.
func readRun(_ file: String) throws -> BenchmarkRun { try BenchmarkRun(readingFrom: FilePath(file)) }

/// `--threshold`: how much dearer is too much.
struct ThresholdOptions: ParsableArguments {
    @Option(help: ArgumentHelp("By how many percent a row may grow.", valueName: "percent"))
    var threshold = 2.0

    func validate() throws {
        guard (0...1e6).contains(threshold) else { throw ValidationError("--threshold must be 0 to 1000000") }
    }
}

struct BenchRunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run mmiofd-bench, which stands beside this program, on this machine.",
        discussion: "Takes that program's options; `mmiofd bench run --help` lists them.")

    @Argument(parsing: .captureForPassthrough, help: ArgumentHelp("Its options.", valueName: "option"))
    var options: [String] = []

    func run() throws {
        var program = FilePath(try SystemTree.running.target(ofLink: "proc/self/exe"))
        program.removeLastComponent()
        program.append("mmiofd-bench")
        do {
            try becomeProgram(program, options)
        } catch {
            throw BenchRunError(program: program, errno: error)
        }
    }
}

/// Why the benchmark did not start.
struct BenchRunError: Error, CustomStringConvertible {
    let program: FilePath
    let errno: Errno

    var description: String { "cannot run \(program): \(errno); swift build --product mmiofd-bench makes it" }
}
