// SPDX-License-Identifier: Apache-2.0
//
// What a .ko file says of itself, before anything is loaded.

public import SystemPackage

/// The .modinfo section of a module file (`modinfo`).
public struct ModuleFile: Sendable, Hashable {
    /// Where the file is.
    public let path: FilePath
    /// The module's name, with underscores.
    public let name: String
    /// The kernel that it was built for: its release, then the options that must agree (`SMP preempt mod_unload`).
    public let vermagic: String
    /// MODULE_VERSION of its source.
    public let version: String?
    /// A hash of its source (CONFIG_MODULE_SRCVERSION_ALL).
    public let sourceVersion: String?
    /// The modules whose symbols it uses.
    public let dependencies: [String]
    /// The parameters that it takes.
    public let parameters: [DeclaredParameter]

    /// The kernel release that it was built for, the first word of ``vermagic``.
    public var release: String { String(vermagic.prefix { $0 != " " }) }

    /// Reads a module file. C: `kmod_module_new_from_path`, `kmod_module_get_info`.
    ///
    /// - Throws: ``ModuleError`` with ENOENT or EACCES, or with ENOEXEC for a file that is no kernel module.
    public init(at path: FilePath) throws(ModuleError) {
        let information: [(key: String, value: String)]
        let name: String
        do throws(Errno) {
            let context = try KmodContext(folder: nil)
            let module = try context.module(at: path)
            name = module.name
            information = try module.information()
        } catch {
            throw Self.refusal(path, error)
        }
        func value(_ key: String) -> String? { information.first { $0.key == key }?.value }
        guard let vermagic = value("vermagic") else { throw Self.refusal(path, .execFormatError) }

        self.path = path
        self.name = value("name") ?? name
        self.vermagic = vermagic
        version = value("version")
        sourceVersion = value("srcversion")
        dependencies = (value("depends") ?? "").split(separator: ",").map(String.init)
        parameters = Self.parameters(information)
    }

    /// Checks parameters against those that the file declares.
    ///
    /// The kernel itself only logs a name that the module does not have, and loads it all the same.
    ///
    /// - Throws: ``ModuleError`` (EINVAL) for a name it does not declare or a value that is not of the type.
    public func check(_ parameters: [ModuleParameter]) throws(ModuleError) {
        for given in parameters {
            guard let declared = self.parameters.first(where: { $0.name == given.name }) else {
                let known = self.parameters.map(\.name).joined(separator: ", ")
                throw ModuleError(
                    action: "use the parameter '\(given)'", errno: .invalidArgument,
                    cause: "\(name) has no parameter '\(given.name)'",
                    remedy: known.isEmpty ? "it takes none" : "it takes: \(known)")
            }
            guard declared.accepts(given.value) else {
                throw ModuleError(
                    action: "use the parameter '\(given)'", errno: .invalidArgument,
                    cause: "'\(given.value)' is not of the type \(declared.type ?? "that it declares")",
                    remedy: "give a value of that type")
            }
        }
    }

    static func parameters(_ information: [(key: String, value: String)]) -> [DeclaredParameter] {
        var types: [String: String] = [:]
        var names: [String] = []
        for (key, value) in information where key == "parmtype" || key == "parm" {
            let parts = value.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let name = ModuleParameter.canonical(parts[0])
            if key == "parmtype", parts.count == 2 { types[name] = String(parts[1]) }
            if !names.contains(name) { names.append(name) }
        }
        return names.map { DeclaredParameter(name: $0, type: types[$0]) }
    }

    private static func refusal(_ path: FilePath, _ errno: Errno) -> ModuleError {
        let action = "read the module file \(path)"
        switch errno {
        case .noSuchFileOrDirectory, .notDirectory:
            return ModuleError(
                action: action, errno: errno, cause: "there is no such file",
                remedy: "build it with make -C kmod, or say where it is with --path")
        case .permissionDenied:
            return ModuleError(
                action: action, errno: errno, cause: "this user may not read it", remedy: "use sudo")
        default:
            // libkmod has several errors for what is not ELF or ends early; the kernel's is ENOEXEC.
            return ModuleError(
                action: action, errno: .execFormatError,
                cause: "it is no kernel module, or was cut short (libkmod: \(errno))",
                remedy: "build it again with make -C kmod")
        }
    }
}
