// SPDX-License-Identifier: Apache-2.0
//
// mmiofd vmm: the VMM's process.

import ArgumentParser
import ForwardingProcesses
import GuestPrograms
import JSONText
import LinuxSystem
import Logging
import MMIOForwarding
import ReferenceDevices
import SystemPackage

struct VMMCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vmm",
        abstract: "Run guest programs on a device that another process emulates.",
        discussion: """
            Makes a virtual machine with one device, waits at a socket for one emulation process (`mmiofd emulate`), \
            hands it the device's emulation descriptor, and runs guest programs. Each value that a guest loads is \
            compared with what a model on the host says, and at the end what the device holds.

            SIGTSTP (Ctrl-Z) pauses: it takes every vCPU out of the guest, in the middle of an access to memory too that \
            the device has not answered, and then stops the process. After SIGCONT all go on, and neither the guest nor \
            the device notices. Waited for are accesses to ports, and 8 bytes near a page's end (KVM_DEV_USER_PARK).

            Exit status: 0 only if every value was right; 128 + n after signal n.
            """)

    @OptionGroup var socket: SocketOptions

    @Option(
        help: ArgumentHelp(
            "Who may connect, as the mode of the socket's file; whoever may write to it.", valueName: "octal"),
        transform: Self.mode)
    var socketMode: UInt32 = 0o600

    @Option(
        help: ArgumentHelp("The group of the socket's file, by name or number.", valueName: "group"),
        transform: Self.group)
    var socketGroup: UInt32?

    @Option(
        help: "The device: \(ReferenceDevice.all.map(\.name).joined(separator: " or ")).", transform: DeviceName.parse)
    var device = DeviceName.scratch

    @Option(
        name: .customLong("program"), parsing: .singleValue,
        help: ArgumentHelp(
            "A guest program, and how many accesses or rounds it makes; may be repeated, for one after the other: "
                + "\(ProgramStep.programs.map(\.name).joined(separator: ", ")). (default: mixed)",
            valueName: "name[:count]"))
    var programs: [String] = []

    @Option(help: "How many accesses or rounds a program makes that has no count of its own.")
    var count = 1000

    @Option(help: "What the values begin with; the same seed gives the same accesses.")
    var seed: UInt64 = 1

    @Option(help: "How many vCPUs run the programs at once.")
    var vcpus = 1

    @Option(
        help: ArgumentHelp(
            "How long an access waits for the emulation process; none for no limit.", valueName: "seconds"))
    var timeout = TimeLimit.seconds(5)

    @Option(
        help: ArgumentHelp(
            "What accesses get when the emulation process is gone: abort, loads read all-ones and stores are dropped; "
                + "hold, they wait for `mmiofd emulate --reattach` to bring another process; exit, they come to the "
                + "VMM, which counts them. (default: abort)", valueName: "policy"),
        transform: Self.policy)
    var onClose: ClosePolicy?

    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard count > 0 else { throw ValidationError("--count must be 1 or more") }
        _ = try session()
    }

    func run() throws {
        let report: VMMSession.Report
        do {
            report = try session().run(
                at: socket.path, .init(mode: socketMode, group: socketGroup), logger: log.logger("vmm"))
        } catch let error as EndedBySignal {
            throw ExitCode(128 + error.signal)
        }
        StandardOutput.print(output.json ? Self.json(report).description : Self.text(report))
        if !report.guest.allHeld { throw ExitCode.failure }
    }

    private func session() throws -> VMMSession {
        do {
            let steps = try (programs.isEmpty ? ["mixed"] : programs).map { try ProgramStep(parsing: $0, count: count) }
            return try VMMSession(
                DevicePlacement(device.device, vcpus: vcpus), running: steps, seed: seed, timeout: timeout.duration,
                onClose: onClose ?? .abort)
        } catch {
            throw ValidationError("\(error)")
        }
    }

    private static func mode(_ text: String) throws -> UInt32 {
        guard let mode = UInt32(text, radix: 8), mode <= 0o777 else {
            throw ValidationError("'\(text)' is no mode; 0660 is one")
        }
        return mode
    }

    private static func policy(_ name: String) throws -> ClosePolicy {
        guard let policy = ClosePolicy(rawValue: name) else {
            throw ValidationError("there is no policy '\(name)'; there are abort, hold and exit")
        }
        return policy
    }

    private static func group(_ text: String) throws -> UInt32 {
        guard let group = HandoverSocket.group(named: text) else {
            throw ValidationError("there is no group '\(text)'")
        }
        return group
    }

    // MARK: Output

    private static func text(_ report: VMMSession.Report) -> String {
        let guest = report.guest
        var lines = [
            "emulated by process \(report.peer.process) of user \(report.peer.user), group \(report.peer.group)",
            "accesses    \(guest.accesses), as requests: \(guest.requests.loads) loads, \(guest.requests.stores) stores",
            "checks      \(guest.checks)",
            "mismatches  \(guest.mismatchCount)",
            "elapsed     \(guest.elapsed.formattedMilliseconds) ms",
        ]
        if guest.unforwarded.loads + guest.unforwarded.stores > 0 {
            lines.append(
                "unforwarded \(guest.unforwarded.loads) loads that read all-ones, \(guest.unforwarded.stores) stores "
                    + "that were dropped")
        }
        if report.replacements > 0 { lines.append("replaced    the emulation process, \(report.replacements) times") }
        lines += guest.mismatches.map { "  \($0)" }
        if guest.mismatches.count < guest.mismatchCount { lines.append("  and more") }
        if !report.peerStayed { lines.append("the emulation process left before the guest's end") }
        lines.append(guest.allHeld ? "all held" : "FAILED")
        return lines.joined(separator: "\n")
    }

    private static func json(_ report: VMMSession.Report) -> JSONValue {
        let guest = report.guest
        return .object([
            "held": .boolean(guest.allHeld),
            "accesses": .integer(guest.accesses),
            "requests": .object(["loads": .integer(guest.requests.loads), "stores": .integer(guest.requests.stores)]),
            "unforwarded_loads": .integer(guest.unforwarded.loads),
            "unforwarded_stores": .integer(guest.unforwarded.stores),
            "checks": .integer(guest.checks),
            "mismatches": .integer(guest.mismatchCount),
            "mismatch_list": .array(guest.mismatches.map { .string($0) }),
            "elapsed_ns": .integer(guest.elapsed.wholeNanoseconds),
            "emulation": .object([
                "process": .integer(Int(report.peer.process)), "user": .integer(Int(report.peer.user)),
                "group": .integer(Int(report.peer.group)), "stayed": .boolean(report.peerStayed),
                "replacements": .integer(report.replacements),
            ]),
        ])
    }
}

/// A time limit on the command line: seconds, or none.
enum TimeLimit: ExpressibleByArgument, CustomStringConvertible {
    case none
    case seconds(Double)

    init?(argument: String) {
        if argument == "none" {
            self = .none
        } else if let seconds = Double(argument), seconds > 0, seconds <= 1e9 {
            self = .seconds(seconds)
        } else {
            return nil
        }
    }

    var duration: Duration? {
        switch self {
        case .none: nil
        case .seconds(let seconds): .seconds(seconds)
        }
    }

    var description: String {
        switch self {
        case .none: "none"
        case .seconds(let seconds): seconds == seconds.rounded() ? "\(Int(seconds))" : "\(seconds)"
        }
    }
}
