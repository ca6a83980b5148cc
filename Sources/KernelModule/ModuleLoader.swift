// SPDX-License-Identifier: Apache-2.0
//
// Loading and unloading modules through libkmod.

import Glibc
import SystemPackage

/// Loads and unloads modules of the running kernel.
public struct ModuleLoader: Sendable {
    private let tree: SystemTree

    /// A loader for the kernel that this runs on.
    public init() {
        tree = .running
    }

    /// Loads a module from a file, after the modules that the file says it depends on.
    ///
    /// C: `kmod_module_insert_module`, finit_module(2).
    ///
    /// - Parameters:
    ///   - file: what to load.
    ///   - parameters: checked against those that the file declares.
    /// - Throws: ``ModuleError``: EEXIST if it is loaded, ENOEXEC if it is of another kernel, EPERM, and so on.
    public func load(_ file: ModuleFile, parameters: [ModuleParameter] = []) throws(ModuleError) {
        try file.check(parameters)
        if ModuleState(of: file.name, in: tree).isUsable {
            throw failure(file.name, .fileExists, vermagic: file.vermagic)
        }
        for dependency in file.dependencies { try load(named: dependency) }
        do throws(Errno) {
            let context = try KmodContext(folder: nil)
            try context.module(at: file.path).insert(options: Self.options(parameters))
        } catch {
            throw failure(file.name, error, vermagic: file.vermagic)
        }
    }

    /// Loads a module that is installed in /lib/modules, after its dependencies; nothing happens if it is loaded or
    /// built in.
    ///
    /// Options in modprobe.d count, `install` commands there do not. C: `kmod_module_probe_insert_module`.
    ///
    /// - Throws: ``ModuleError``: ENOENT if there is none of that name, ENODEV if the hardware is missing, and so on.
    public func load(named name: String, parameters: [ModuleParameter] = []) throws(ModuleError) {
        if ModuleState(of: name, in: tree).isUsable {
            guard !parameters.isEmpty else { return }
            throw failure(name, .fileExists, vermagic: nil)
        }
        do throws(Errno) {
            let context = try KmodContext(folder: nil)
            try context.module(named: name).probe(options: Self.options(parameters))
        } catch {
            throw failure(name, error, vermagic: nil)
        }
    }

    /// Unloads a module. C: `kmod_module_remove_module`, delete_module(2).
    ///
    /// - Throws: ``ModuleError``: EBUSY, naming the modules and processes that use it; ENOENT if it is not loaded.
    public func unload(_ name: String) throws(ModuleError) {
        do throws(Errno) {
            try KmodContext(folder: nil).loadedModule(named: name).remove()
        } catch {
            let isOurs = ModuleParameter.canonical(name) == ForwardingModule.name
            let failure = UnloadFailure(
                name: name, errno: error, state: ModuleState(of: name, in: tree),
                processes: isOurs ? DescriptorHolder.all(in: tree) : [], isRoot: geteuid() == 0)
            throw failure.error
        }
    }

    private static func options(_ parameters: [ModuleParameter]) -> String {
        parameters.map(\.description).joined(separator: " ")
    }

    private func failure(_ name: String, _ errno: Errno, vermagic: String?) -> ModuleError {
        LoadFailure(
            name: name, errno: errno, vermagic: vermagic, runningVermagic: Self.installedVermagic("kvm"),
            runningRelease: KernelRelease(of: tree)?.description ?? "unknown", isRoot: geteuid() == 0,
            isLoaded: ModuleState(of: name, in: tree).phase != .notLoaded,
            modulesDisabled: (try? tree.text("proc/sys/kernel/modules_disabled")) == "1",
            lockdown: Lockdown(of: tree)
        ).error
    }

    /// The vermagic of an installed module: the kernel does not tell its own.
    private static func installedVermagic(_ name: String) -> String? {
        guard let context = try? KmodContext(folder: nil),
            let information = try? context.module(named: name).information()
        else { return nil }
        return information.first { $0.key == "vermagic" }?.value
    }
}
