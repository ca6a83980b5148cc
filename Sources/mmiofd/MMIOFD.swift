// SPDX-License-Identifier: Apache-2.0
import ArgumentParser

@main
struct MMIOFD: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mmiofd", subcommands: [LabCommand.self])
}
