// SPDX-License-Identifier: Apache-2.0
//
// What the command line takes from its surroundings: environment variables and the checkout it was built in.

import Glibc
import KernelModule
import SystemPackage

/// The process's environment variables.
enum Environment {
    /// PATH, or the folders that a shell would use without it.
    static var searchPath: String {
        guard let value = unsafe getenv("PATH") else { return "/usr/bin:/bin" }
        return unsafe String(cString: value)
    }

    /// XDG_RUNTIME_DIR: where a user's sockets belong.
    static var runtimeFolder: FilePath? {
        guard let value = unsafe getenv("XDG_RUNTIME_DIR"), unsafe value.pointee != 0 else { return nil }
        return FilePath(unsafe String(cString: value))
    }
}

/// The project's folder: the one with the build products.
enum CheckoutFolder {
    /// The module built for the running kernel, below the current folder or the one that this program was built in.
    static func moduleFile() -> FilePath? {
        let module = ForwardingModule()
        return candidates.lazy.compactMap { module.builtFile(in: $0) }.first
    }

    private static var candidates: [FilePath] {
        let tree = SystemTree.running
        let program = (try? tree.target(ofLink: "proc/self/exe")).map { FilePath($0) }
        let current = (try? tree.target(ofLink: "proc/self/cwd")).map { FilePath($0) }
        return [current, program.flatMap(checkout)].compactMap { $0 }
    }

    /// What is before `.build` in the path of a program.
    private static func checkout(of program: FilePath) -> FilePath? {
        var folder = program
        while let last = folder.lastComponent {
            folder.removeLastComponent()
            if last == ".build" { return folder }
        }
        return nil
    }
}
