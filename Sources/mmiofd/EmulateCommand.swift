// SPDX-License-Identifier: Apache-2.0
//
// mmiofd emulate: the emulation process.

import ArgumentParser
import ForwardingProcesses
import Logging
import ReferenceDevices

struct EmulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "emulate",
        abstract: "Emulate a device for a VMM that hands it over.",
        discussion: """
            Connects to the VMM's socket (`mmiofd vmm`), receives the emulation descriptor, and serves it until the \
            virtual machine is gone; then prints what was served. SIGINT or SIGTERM end it as well, after the replies \
            that are owed. It needs no privileges: only the right to connect.
            """)

    @Flag(help: "List the devices, and do nothing else.")
    var list = false

    @Argument(help: "The device.", transform: DeviceName.parse)
    var device: DeviceName?

    @Flag(help: "Have every load come as a request, to compare: answer none from shadow memory.")
    var noShadow = false

    @OptionGroup var emulation: EmulationOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard list || device != nil else {
            throw ValidationError("a device is missing; `mmiofd emulate --list` lists them")
        }
    }

    func run() throws {
        guard !list, let device else { return print(Self.devices(json: output.json)) }
        let report = try emulation.serve(device, usesShadow: !noShadow, logger: log.logger("emulate"))
        print(output.json ? report.json.description : report.text)
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
