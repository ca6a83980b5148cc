// SPDX-License-Identifier: Apache-2.0
//
// What /sys/module says of a module.

import SystemPackage

/// A module as the kernel has it at one moment.
public struct ModuleState: Sendable, Hashable {
    /// Where a module is between its two ends.
    public enum Phase: String, Sendable, Hashable, CaseIterable {
        /// The kernel does not have it.
        case notLoaded = "not loaded"
        /// It is part of the kernel image and can be neither loaded nor unloaded.
        case builtIn = "built in"
        /// Loaded and in use or ready for it.
        case live
        /// Its init function is running.
        case coming
        /// Its exit function is running.
        case going
    }

    /// The module's name, with underscores.
    public let name: String
    /// Where it is between load and unload.
    public let phase: Phase
    /// MODULE_VERSION of its source.
    public let version: String?
    /// A hash of its source (CONFIG_MODULE_SRCVERSION_ALL).
    public let sourceVersion: String?
    /// How many references keep it from being unloaded; nil if the kernel cannot unload modules.
    public let referenceCount: Int?
    /// Other modules that use it.
    public let holders: [String]
    /// Memory in bytes, without what init alone needed.
    public let size: Int?
    /// Its parameters that sysfs shows, by name.
    public let parameters: [String: String]
    /// The marks that it put on the kernel.
    public let taints: [ModuleTaint]

    /// Reads the state of the module `name`.
    ///
    /// A module that comes or goes in the middle leaves the fields nil that were gone by then.
    ///
    /// - Parameters:
    ///   - name: with dashes or underscores.
    ///   - tree: the machine to look at.
    public init(of name: String, in tree: SystemTree = .running) {
        let name = ModuleParameter.canonical(name)
        let folder = "sys/module/\(name)"
        func text(_ file: String) -> String? { try? tree.text("\(folder)/\(file)") }

        self.name = name
        phase = Self.phase(initState: text("initstate"), exists: tree.exists(folder), taint: text("taint"))
        version = text("version")
        sourceVersion = text("srcversion")
        referenceCount = text("refcnt").flatMap { Int($0) }
        holders = (try? tree.names(in: "\(folder)/holders")) ?? []
        size = text("coresize").flatMap { Int($0) }
        taints = (text("taint") ?? "").map { ModuleTaint(letter: $0) }
        var parameters: [String: String] = [:]
        for parameter in (try? tree.names(in: "\(folder)/parameters")) ?? [] {
            // Some may not be read, by this user or by anybody: they are left out.
            parameters[parameter] = text("parameters/\(parameter)")
        }
        self.parameters = parameters
    }

    /// Whether the kernel has it, built in or live.
    public var isUsable: Bool { phase == .live || phase == .builtIn }

    private static func phase(initState: String?, exists: Bool, taint: String?) -> Phase {
        switch initState {
        case "live": .live
        case "coming": .coming
        case "going": .going
        // The folder of a built-in module has no initstate; nor has one that is just being set up, which has taint.
        default: !exists ? .notLoaded : taint == nil ? .builtIn : .coming
        }
    }
}
