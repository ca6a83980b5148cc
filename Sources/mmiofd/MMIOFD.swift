// SPDX-License-Identifier: Apache-2.0
//
// The root of the command line: the subcommands, each in its own file.

import ArgumentParser
import SystemPackage

@main
struct MMIOFD: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mmiofd",
        abstract: "Emulate devices of KVM guests in processes of their own, through a file descriptor.",
        version: "1.0.0",
        subcommands: [
            DoctorCommand.self,
            ModuleCommand.self,
            VMMCommand.self,
            EmulateCommand.self,
            TraceCommand.self,
            StatCommand.self,
            CostCommand.self,
            BenchCommand.self,
            LabCommand.self,
        ])

    /// Runs a subcommand. One whose output was lost has failed, whatever it says itself.
    static func main() {
        var failure: (any Error)?
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            failure = error
        }
        if let loss = StandardOutput.loss {
            let message = "Error: the output is lost, for standard output cannot be written to: \(loss)\n"
            _ = try? FileDescriptor.standardError.writeAll(message.utf8)
            failure = failure ?? ExitCode.failure
        }
        exit(withError: failure)
    }
}
