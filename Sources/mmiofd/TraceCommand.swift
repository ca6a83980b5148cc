// SPDX-License-Identifier: Apache-2.0
//
// mmiofd trace: each access, seen by the emulation process or by the kernel.

import ArgumentParser

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
