// SPDX-License-Identifier: Apache-2.0
//
// The root of the command line: the subcommands, each in its own file.

import ArgumentParser

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
}
