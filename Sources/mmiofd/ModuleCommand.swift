// SPDX-License-Identifier: Apache-2.0
//
// mmiofd module: load, unload and describe kvm_user.

import ArgumentParser
import JSONText
import KernelModule
import Logging
import SystemPackage

struct ModuleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "module",
        abstract: "Load, unload and describe the kernel module kvm_user.",
        subcommands: [Load.self, Unload.self, Status.self])
}

extension ModuleCommand {
    struct Load: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "load",
            abstract: "Load kvm_user, after KVM's own modules.",
            discussion: """
                Without --path, takes .build/kmod/SERIES/kvm_user.ko of the checkout (SERIES being that of the running \
                kernel, such as 6.1) or its kmod/kvm_user.ko, the first that was built for the running kernel, else \
                the module installed in /lib/modules.
                """)

        @Option(help: ArgumentHelp("The module file to load.", valueName: "file"))
        var path: String?
        @Option(
            name: .customLong("parameter"), parsing: .singleValue,
            help: ArgumentHelp(
                "A parameter of the module, such as queue_depth=64; may be repeated.", valueName: "name=value"),
            transform: { try ModuleParameter(parsing: $0) })
        var parameters: [ModuleParameter] = []
        @OptionGroup var log: LogOptions

        func run() throws {
            let module = ForwardingModule()
            let logger = log.logger("module")
            // Listening first: the node may come before the load returns.
            let monitor = try DeviceMonitor(subsystem: "misc")
            let source: String
            if let path = path.map({ FilePath($0) }) ?? CheckoutFolder.moduleFile() {
                logger.info("loading a file", metadata: ["path": "\(path)"])
                try module.load(ModuleFile(at: path), parameters: parameters)
                source = path.string
            } else {
                logger.info("loading by name")
                let wasLoaded = module.state.isUsable
                try module.load(parameters: parameters)
                source = wasLoaded ? "before" : "/lib/modules"
            }
            let node = try monitor.wait(for: "kvm", timeout: .seconds(5))
            logger.info("KVM is there", metadata: ["node": "\(node.path)"])
            StandardOutput.print("loaded \(Self.summary(module.state, from: source))")
        }

        private static func summary(_ state: ModuleState, from source: String) -> String {
            var parts = ["\(state.name)\(state.version.map { " \($0)" } ?? "") from \(source)"]
            if let type = state.parameters["device_type"] { parts.append("device type \(type)") }
            if !state.taints.isEmpty {
                parts.append("taints the kernel: " + state.taints.map(\.description).joined(separator: ", "))
            }
            return parts.joined(separator: ", ")
        }
    }

    struct Unload: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "unload", abstract: "Unload kvm_user; KVM's own modules stay.")

        @OptionGroup var log: LogOptions

        func run() throws {
            log.logger("module").info("unloading")
            try ForwardingModule().unload()
            StandardOutput.print("unloaded \(ForwardingModule.name)")
        }
    }

    struct Status: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "status",
            abstract: "Describe kvm_user as the kernel has it.",
            discussion: "Exits with 0 only if it is live.")

        @OptionGroup var output: OutputOptions
        @OptionGroup var log: LogOptions

        func run() throws {
            let state = ForwardingModule().state
            let holders = DescriptorHolder.all()
            log.logger("module").debug("read", metadata: ["phase": "\(state.phase.rawValue)"])
            StandardOutput.print(output.json ? Self.json(state, holders).description : Self.text(state, holders))
            if !state.isUsable { throw ExitCode.failure }
        }

        private static func text(_ state: ModuleState, _ holders: [DescriptorHolder]) -> String {
            var lines = ["\(state.name): \(state.phase.rawValue)"]
            func add(_ name: String, _ value: String?) {
                if let value, !value.isEmpty { lines.append("  \(name): \(value)") }
            }
            add("version", state.version)
            add("source version", state.sourceVersion)
            add("size", state.size.map { "\($0) bytes" })
            add("references", state.referenceCount.map(String.init))
            add("taints", state.taints.map(\.description).joined(separator: ", "))
            for (name, value) in state.parameters.sorted(by: { $0.key < $1.key }) { add(name, value) }
            add("used by modules", state.holders.joined(separator: ", "))
            for holder in holders { add("used by", holder.description) }
            return lines.joined(separator: "\n")
        }

        private static func json(_ state: ModuleState, _ holders: [DescriptorHolder]) -> JSONValue {
            .object([
                "name": .string(state.name),
                "phase": .string(state.phase.rawValue),
                "version": JSONValue(state.version),
                "source_version": JSONValue(state.sourceVersion),
                "size": JSONValue(state.size),
                "references": JSONValue(state.referenceCount),
                "taints": .array(state.taints.map { .string($0.description) }),
                "parameters": .dictionary(state.parameters.mapValues { .string($0) }),
                "modules": .array(state.holders.map { .string($0) }),
                "processes": .array(
                    holders.map {
                        .object([
                            "process": .integer(Int($0.process)), "command": .string($0.command),
                            "descriptor": .integer(Int($0.descriptor)), "kind": .string("\($0.kind)"),
                        ])
                    }),
            ])
        }
    }
}
