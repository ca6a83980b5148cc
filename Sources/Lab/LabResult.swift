// SPDX-License-Identifier: Apache-2.0
//
// How a run in the lab ended.

/// How a run ended, and the exit status that says so.
public enum LabResult: Hashable, Sendable {
    /// The command ended with this status, and the kernel had nothing to report.
    case exited(Int)
    /// The kernel reported something, whatever the command did.
    case kernelReports([KernelReport])
    /// The command ran for longer than it might.
    case timeLimitPassed
    /// The VM did not come as far as the command; these were its last lines.
    case bootStalled(console: [String])
    /// The VM ended before the command did; these were its last lines.
    case machineEnded(commandStarted: Bool, console: [String])
    /// A signal asked this process to stop.
    case interrupted(signal: Int)

    /// The status for the process to exit with; the lab's own are 120 to 124, and 128 + n for signal n.
    public var exitStatus: Int32 {
        switch self {
        case .exited(let status): Int32(clamping: status)
        case .kernelReports: 120
        case .bootStalled: 121
        case .machineEnded: 122
        case .timeLimitPassed: 124
        case .interrupted(let signal): 128 &+ Int32(clamping: signal)
        }
    }

    /// What a VM's run means.
    ///
    /// - Parameters:
    ///   - ending: what ended it.
    ///   - console: all that it printed.
    init(_ ending: Ending, console: ConsoleLog) {
        let reports = KernelReport.scan(console.lines)
        self =
            switch ending {
            case .interrupted(let signal): .interrupted(signal: signal)
            case _ where !reports.isEmpty: .kernelReports(reports)
            case .machineEnded:
                if let status = console.status {
                    .exited(status)
                } else {
                    .machineEnded(commandStarted: console.started, console: console.lines.suffix(Self.lastLines))
                }
            case .timeLimitPassed where console.started: .timeLimitPassed
            case .timeLimitPassed: .bootStalled(console: console.lines.suffix(Self.lastLines))
            }
    }

    private static let lastLines = 12

    /// What ended the VM's run.
    enum Ending: Hashable {
        /// The VM ended by itself.
        case machineEnded
        /// It took too long and was ended.
        case timeLimitPassed
        /// A signal came and it was ended.
        case interrupted(signal: Int)
    }
}

extension LabResult: CustomStringConvertible {
    /// The result in a few words, or in a kernel's.
    public var description: String {
        switch self {
        case .exited(let status): "the command ended with status \(status)"
        case .kernelReports(let reports):
            "the kernel reported \(reports.count == 1 ? "this" : "\(reports.count) things"):\n"
                + reports.map(\.description).joined(separator: "\n")
        case .bootStalled(let console): "the boot stalled: the command never started" + Self.quote(console)
        case .machineEnded(commandStarted: true, let console):
            "the VM ended before the command did" + Self.quote(console)
        case .machineEnded(commandStarted: false, let console):
            "the VM ended before the command started" + Self.quote(console)
        case .timeLimitPassed: "the command ran into its time limit"
        case .interrupted(let signal): "ended by signal \(signal)"
        }
    }
    private static func quote(_ console: [String]) -> String {
        console.isEmpty
            ? " and printed nothing" : "; its console's last lines:" + console.map { "\n    \($0)" }.joined()
    }
}
