// SPDX-License-Identifier: Apache-2.0
//
// The module that the tests here run against: the real one, built for the running kernel.

import Glibc
import KernelModule
import SystemPackage
import Testing

/// Loads the module for tests. They run one after another, in the lab, as root.
enum ModuleUnderTest {
    /// Which build of it.
    enum Build: String {
        /// As anybody gets it.
        case release = ""
        /// With the hooks that show what a rule is for.
        case test = "-test"
    }

    private static let module = ForwardingModule()

    /// Has the module loaded: as users get it, unless a test has loaded another build.
    static func load() throws {
        if !module.state.isUsable { try load(.release) }
    }

    /// Runs `body` with the test build, and unloads that after.
    static func withTestBuild<Result>(_ parameters: [String], _ body: () throws -> Result) throws -> Result {
        try unloadIfLoaded()
        try load(.test, parameters: parameters)
        let result = Swift.Result { try body() }
        try unload()
        return try result.get()
    }

    /// Loads a build while none is loaded.
    static func load(_ build: Build, parameters: [String] = []) throws {
        let kernel = try #require(KernelRelease(of: .running)?.buildName)
        let file = try ModuleFile(at: FilePath(".build/kmod/\(kernel)\(build.rawValue)/kvm_user.ko"))
        try module.load(file, parameters: try parameters.map { try ModuleParameter(parsing: $0) })
    }

    /// Unloads it.
    static func unload() throws(ModuleError) {
        try module.unload()
    }

    /// Unloads it if it is loaded.
    static func unloadIfLoaded() throws {
        if module.state.isUsable { try unload() }
    }

    /// A parameter's value as sysfs shows it, nil where there is none.
    static func parameter(_ name: String) -> String? {
        module.state.parameters[name]
    }

    /// Sets a parameter of the loaded module through sysfs.
    static func set(_ name: String, to value: String) throws {
        let path = FilePath("/sys/module/kvm_user/parameters/\(name)")
        let file = try FileDescriptor.open(path, .writeOnly)
        defer { try? file.close() }
        _ = try file.writeAll(value.utf8)
    }

    /// Runs `body` with a queue depth of its own for the devices that it makes.
    static func withQueueDepth<Result>(_ depth: Int, _ body: () throws -> Result) throws -> Result {
        try load()
        let usual = try #require(parameter("queue_depth"))
        try set("queue_depth", to: "\(depth)")
        defer { try? set("queue_depth", to: usual) }
        return try body()
    }
}
