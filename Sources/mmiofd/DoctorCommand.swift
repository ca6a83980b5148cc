// SPDX-License-Identifier: Apache-2.0
//
// mmiofd doctor: what this machine has or lacks.

import ArgumentParser
import JSONText
import KernelModule
import Lab
import Logging
import SystemPackage

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say what this machine has or lacks, and what to do about it.",
        discussion: """
            Looks at the CPU, the kernel, KVM, the module and what it takes to build and load it. Opens /dev/kvm and \
            makes an empty virtual machine, for a moment. Exits with 0 only if guests can run through the module now.
            """)

    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func run() throws {
        let file = CheckoutFolder.moduleFile()
        log.logger("doctor").debug("examining", metadata: ["module-file": "\(file?.string ?? "none")"])
        let report = MachineReport(
            moduleFile: file, searchPath: Environment.searchPath, missingVirtme: LabCache().missingVirtme,
            command: CommandLine.arguments.first ?? "mmiofd")
        StandardOutput.print(output.json ? Self.json(report).description : Self.text(report))
        if !report.runsGuests { throw ExitCode.failure }
    }

    private static func text(_ report: MachineReport) -> String {
        let width = report.checks.map(\.name.count).max() ?? 0
        var lines: [String] = []
        for check in report.checks {
            lines.append("\(padded(check.verdict.rawValue, 7))  \(padded(check.name, width))  \(check.detail)")
            if !check.remedy.isEmpty { lines.append("\(padded("", 7))  \(padded("", width))  -> \(check.remedy)") }
        }
        lines.append(
            report.runsGuests
                ? "Guests can run through the module."
                : "Guests cannot run through the module until nothing is missing.")
        return lines.joined(separator: "\n")
    }

    private static func json(_ report: MachineReport) -> JSONValue {
        .object([
            "runs_guests": .boolean(report.runsGuests),
            "checks": .array(
                report.checks.map {
                    .object([
                        "name": .string($0.name), "verdict": .string($0.verdict.rawValue),
                        "detail": .string($0.detail), "remedy": .string($0.remedy),
                    ])
                }),
        ])
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }
}
