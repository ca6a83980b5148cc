// SPDX-License-Identifier: Apache-2.0
//
// mmiofd lab: a VM with a kernel of one's choice.

import ArgumentParser
import Lab
import SystemPackage

struct LabCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab",
        abstract: "Boot a kernel in a VM and run something in it.",
        discussion: """
            The VM sees this machine's files, read-only; /tmp, /etc, /home, /usr and /var can be written to, and what \
            is written is gone with the VM. No hardware virtualisation is needed: QEMU emulates a CPU with SVM, and \
            kvm-amd is loaded.
            """,
        subcommands: [Run.self, Shell.self])

    /// What both subcommands take.
    struct Machine: ParsableArguments {
        @Option(help: "The kernel: 6.1 or 6.12 (Debian's), kasan or kcsan (with checkers), or the path of a vmlinuz.")
        var kernel = "6.1"

        @Option(help: "How many CPUs the VM has.")
        var cpus = 2

        @Option(help: "How much memory the VM has.")
        var memory = "2G"

        @Flag(help: "Use this machine's /dev/kvm instead of emulating a CPU. It must allow nesting.")
        var kvm = false

        @Option(
            help: ArgumentHelp("A parameter for the kernel's command line; may be repeated.", valueName: "parameter"))
        var append: [String] = []

        @Option(
            parsing: .unconditionalSingleValue,
            help: ArgumentHelp("An argument for QEMU; may be repeated.", valueName: "argument"))
        var qemu: [String] = []

        func validate() throws {
            guard cpus > 0 else { throw ValidationError("--cpus must be 1 or more") }
        }

        var configuration: LabConfiguration {
            var configuration = LabConfiguration(kernel: LabKernel(kernel), directory: .current)
            configuration.cpus = cpus
            configuration.memory = memory
            configuration.accelerator = kvm ? .kvm : .emulation
            configuration.kernelParameters = append
            configuration.qemuOptions = qemu
            return configuration
        }
    }

    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Boot, run a command as root in this directory, and exit with its status.",
            discussion: """
                Anything that the kernel reports on its console (a BUG, a WARNING, a finding of KASAN, lockdep and so \
                on) fails the run, whatever the command's status.

                Exit status: the command's, or 120 if the kernel reported something, 121 if the boot stalled twice, \
                122 if the VM ended before the command, 124 if the time limit passed, 128 + n after signal n.
                """)

        @OptionGroup var machine: Machine

        @Option(help: "How long the command may run, in seconds.")
        var timeLimit = 600

        @Option(help: "How long the boot may take, in seconds, before it is tried once more.")
        var bootLimit = 180

        @Option(help: "Where to keep the console log. (default: .build/lab/KERNEL.log)")
        var console: String?

        @Argument(parsing: .postTerminator, help: "The command and its arguments; for a pipeline: bash -c '...'.")
        var command: [String] = []

        func validate() throws {
            guard !command.isEmpty else { throw ValidationError("a command is missing: mmiofd lab run -- COMMAND") }
            guard timeLimit > 0, bootLimit > 0 else { throw ValidationError("a limit must be 1 second or more") }
        }

        func run() throws {
            var configuration = machine.configuration
            configuration.timeLimit = timeLimit
            configuration.bootLimit = bootLimit
            let log = console ?? ".build/lab/\(configuration.kernel.name).log"
            let result = try LabMachine(configuration).run(command, console: FilePath(log))
            throw ExitCode(result.exitStatus)
        }
    }

    struct Shell: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Boot and give a root shell in this directory; it ends with the shell.")

        @OptionGroup var machine: Machine

        func run() throws {
            throw ExitCode(try LabMachine(machine.configuration).shell())
        }
    }
}
