// SPDX-License-Identifier: Apache-2.0
//
// mmiofd trace: the emulation process, showing each access; its other half is TraceRunningCommand.

import ArgumentParser
import DeviceEmulation
import ForwardingProcesses
import Glibc
import JSONText
import Logging
import MMIOForwarding
import Synchronization

struct TraceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract: "Print each access of a guest: as its emulation process, or beside it.",
        discussion: """
            `mmiofd trace DEVICE` is the emulation process itself. `mmiofd trace running` watches guests whose devices \
            others emulate, through the kernel's tracepoints.
            """,
        subcommands: [TraceEmulationCommand.self, TraceRunningCommand.self],
        defaultSubcommand: TraceEmulationCommand.self)
}

struct TraceEmulationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "emulate",
        abstract: "Emulate a device, and print each request with its reply.",
        discussion: """
            Does what `mmiofd emulate` does, and prints a line for each request as the device has carried it out, in \
            that order. Printing takes its time, and the guest waits for it. The device's shadow registers are not used: \
            every load is a request. With --json each line is an object, the \
            last one the counters.
            """)

    @Argument(help: "The device; `mmiofd emulate --list` lists them.", transform: DeviceName.parse)
    var device: DeviceName

    @Option(help: "How many requests to print; the rest is served all the same. (default: all)")
    var limit: Int?

    @OptionGroup var emulation: EmulationOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard (limit ?? 0) >= 0 else { throw ValidationError("--limit must be 0 or more") }
    }

    func run() throws {
        // A reader that has seen enough, head(1) say, does not end the device.
        _ = signal(SIGPIPE, SIG_IGN)
        let printer = RequestPrinter(limit: limit ?? .max, json: output.json)
        let report = try emulation.serve(device, usesShadow: false, logger: log.logger("trace")) { printer.show($0) }
        StandardOutput.print(output.json ? report.json.description : report.text)
    }
}

/// Prints requests up to a limit, whatever thread they come from.
private final class RequestPrinter: Sendable {
    private let left: Mutex<Int>
    private let json: Bool

    init(limit: Int, json: Bool) {
        left = Mutex(limit)
        self.json = json
    }

    func show(_ served: ServedRequest) {
        // The lock also keeps the lines in the order of the calls.
        left.withLock { left in
            guard left > 0 else { return }
            left -= 1
            // If nobody reads, the device is served all the same.
            _ = StandardOutput.write("\(json ? served.json.description : served.text)\n")
        }
    }
}

extension ServedRequest {
    /// What the device stored or loaded.
    private var data: UInt64 { request.kind == .store ? request.data : value }

    private var outcomeName: String {
        switch outcome {
        case .done: "done"
        case .refused(.noRegister): "no_register"
        case .refused(.unsupportedWidth): "unsupported_width"
        case .refused(.readOnly): "read_only"
        case .refused(.writeOnly): "write_only"
        case .malformed: "malformed"
        case .recorded: "recorded"
        }
    }

    /// "#17 vCPU 0 range 0 +0x404 load 4 -> 0x1".
    fileprivate var text: String {
        var words = [
            "#\(request.sequence)", "vCPU \(request.vcpu)", "range \(request.rangeID)",
            "+0x\(String(request.offset, radix: 16))", request.kind == .load ? "load " : "store", "\(request.length)",
            request.kind == .load ? "->" : "<-", "0x\(String(data, radix: 16))",
        ]
        if request.isRedelivered { words.append("redelivered") }
        if outcome != .done { words.append(outcomeName.replacing("_", with: " ")) }
        return words.joined(separator: " ")
    }

    /// The same as an object; numbers of 64 bits are strings, since JSON's readers round them.
    fileprivate var json: JSONValue {
        .object([
            "sequence": .string("\(request.sequence)"), "vcpu": .integer(Int(request.vcpu)),
            "range": .integer(Int(request.rangeID)), "offset": .string("0x\(String(request.offset, radix: 16))"),
            "kind": .string(request.kind == .load ? "load" : "store"), "length": .integer(request.length),
            "value": .string("0x\(String(data, radix: 16))"), "outcome": .string(outcomeName),
            "redelivered": .boolean(request.isRedelivered),
        ])
    }
}
