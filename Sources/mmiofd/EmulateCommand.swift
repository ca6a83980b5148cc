// SPDX-License-Identifier: Apache-2.0
//
// mmiofd emulate: the emulation process.

import ArgumentParser
import ForwardingProcesses
import Glibc
import JSONText
import LinuxSystem
import Logging
import ReferenceDevices
import SystemPackage

struct EmulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "emulate",
        abstract: "Emulate a device for a VMM that hands it over.",
        discussion: """
            Connects to the VMM's socket (`mmiofd vmm`), receives the emulation descriptor, and serves it until the \
            virtual machine is gone; then prints what was served. SIGINT or SIGTERM end it as well, after the replies \
            that are owed. It needs no privileges: only the right to connect.

            With --reattach the process that serves is a child of this one, and when it dies, by SIGKILL say, another \
            one takes its place. Where the VMM has the policy hold (`mmiofd vmm --on-close hold`), the guest notices \
            nothing but time: accesses wait, what was not replied to is delivered again, and a device that saves its \
            state (scratch does, the UART's registers begin anew) goes on where it was.
            """)

    @Flag(help: "List the devices, and do nothing else.")
    var list = false

    @Argument(help: "The device.", transform: DeviceName.parse)
    var device: DeviceName?

    @Flag(help: "Have every load come as a request, to compare: answer none from shadow memory.")
    var noShadow = false

    @Flag(help: "Start another emulation process whenever one dies; give up when they die faster than they serve.")
    var reattach = false

    // The process that --reattach starts, of itself.
    @Flag(help: .hidden)
    var supervised = false

    @OptionGroup var emulation: EmulationOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard list || device != nil else {
            throw ValidationError("a device is missing; `mmiofd emulate --list` lists them")
        }
    }

    func run() throws {
        guard !list, let device else { return StandardOutput.print(Self.devices(json: output.json)) }
        let logger = log.logger("emulate")
        if supervised { return try emulation.serveSupervised(device, usesShadow: !noShadow, logger: logger) }
        if reattach { return try supervise(device, logger: logger) }
        let report = try emulation.serve(device, usesShadow: !noShadow, logger: logger)
        StandardOutput.print(output.json ? report.json.description : report.text)
    }

    private func supervise(_ device: DeviceName, logger: Logger) throws {
        let arguments =
            ["emulate", device.description, "--supervised", "--log-level", log.logLevel.rawValue]
            + emulation.arguments + (noShadow ? ["--no-shadow"] : [])
        let supervisor = try EmulationSupervisor(
            at: emulation.socket.path, waiting: .seconds(emulation.wait), logger: logger
        ) { socket in
            try ChildProcess(
                "/proc/self/exe", arguments,
                descriptors: .init(input: socket, output: STDOUT_FILENO, error: STDERR_FILENO))
        }
        let report = try supervisor.run()
        if output.json {
            StandardOutput.print(report.session.json(restarts: report.restarts))
        } else {
            StandardOutput.print("\(report.session.text)\nrestarts  \(report.restarts)")
        }
    }

    private static func devices(json: Bool) -> String {
        guard !json else {
            return JSONValue.array(
                ReferenceDevice.all.map {
                    .object([
                        "name": .string($0.name), "bus": .string("\($0.bus)"),
                        "window_size": .integer(Int(clamping: $0.windowSize)), "summary": .string($0.summary),
                    ])
                }
            ).description
        }
        return ReferenceDevice.all.map { "\($0.name): \($0.summary)" }.joined(separator: "\n")
    }
}
