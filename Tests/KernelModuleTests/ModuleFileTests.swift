// SPDX-License-Identifier: Apache-2.0
//
// What libkmod reads from module files, good and bad.

import SystemPackage
import Testing

@testable import KernelModule

@Suite("Module file")
struct ModuleFileTests {
    private static let information = [
        "license=GPL", "version=1.0", "srcversion=ABCDEF0123456789", "depends=kvm,irqbypass", "name=kvm_user",
        "parm=device_type:The KVM device type number", "parmtype=device_type:uint", "parmtype=queue_depth:uint",
        "vermagic=6.1.0-56-amd64 SMP preempt mod_unload modversions ",
    ]

    @Test("its .modinfo is read, field by field")
    func reads() throws {
        let fake = try FakeTree()
        try fake.write(ModuleImage.bytes(Self.information), to: "kvm_user.ko")
        let file = try ModuleFile(at: fake.tree.path("kvm_user.ko"))
        #expect(file.name == "kvm_user")
        #expect(file.version == "1.0")
        #expect(file.sourceVersion == "ABCDEF0123456789")
        #expect(file.dependencies == ["kvm", "irqbypass"])
        #expect(file.vermagic == "6.1.0-56-amd64 SMP preempt mod_unload modversions ")
        #expect(file.release == "6.1.0-56-amd64")
        #expect(Set(file.parameters.map(\.name)) == ["device_type", "queue_depth"])
        #expect(file.parameters.allSatisfy { $0.type == "uint" })
    }

    @Test("a file cut short is no module, wherever the cut is", arguments: [0, 1, 16, 63, 64, 100, 400])
    func truncated(length: Int) throws {
        let image = ModuleImage.bytes(Self.information)
        try #require(length < image.count)
        let fake = try FakeTree()
        try fake.write(Array(image.prefix(length)), to: "kvm_user.ko")
        let path = fake.tree.path("kvm_user.ko")
        let error = #expect(throws: ModuleError.self) { try ModuleFile(at: path) }
        #expect(error?.errno == .execFormatError)
        #expect(error?.description.contains("no kernel module, or was cut short") == true)
    }

    @Test(
        "a file that is not ELF, or has no vermagic, is no module",
        arguments: [
            Array("#!/bin/sh\n".utf8), ModuleImage.bytes(["name=kvm_user"]), ModuleImage.bytes([]),
        ])
    func notAModule(bytes: [UInt8]) throws {
        let fake = try FakeTree()
        try fake.write(bytes, to: "kvm_user.ko")
        let path = fake.tree.path("kvm_user.ko")
        let error = #expect(throws: ModuleError.self) { try ModuleFile(at: path) }
        #expect(error?.errno == .execFormatError)
    }

    @Test("a file that is not there says how to build it")
    func absent() throws {
        let error = #expect(throws: ModuleError.self) { try ModuleFile(at: "/nonexistent/kvm_user.ko") }
        #expect(error?.errno == .noSuchFileOrDirectory)
        #expect(error?.remedy.contains("make -C kmod") == true)
    }

    @Test(
        "parameters that it does not declare, and values not of their type, are refused",
        arguments: [
            ("depth=3", "no parameter 'depth'", "device_type, queue_depth"),
            ("queue_depth=many", "not of the type uint", ""),
            ("queue_depth=-1", "not of the type uint", ""),
            ("queue_depth=4294967296", "not of the type uint", ""),
            ("queue_depth=", "not of the type uint", ""),
        ])
    func checks(parameter: String, cause: String, remedy: String) throws {
        let fake = try FakeTree()
        try fake.write(ModuleImage.bytes(Self.information), to: "kvm_user.ko")
        let file = try ModuleFile(at: fake.tree.path("kvm_user.ko"))
        try file.check([ModuleParameter(parsing: "queue-depth=0x40"), ModuleParameter(parsing: "device_type=10")])
        let given = try ModuleParameter(parsing: parameter)
        let error = #expect(throws: ModuleError.self) { try file.check([given]) }
        #expect(error?.errno == .invalidArgument)
        #expect(error?.cause.contains(cause) == true)
        #expect(error?.remedy.contains(remedy) == true || remedy.isEmpty)
    }

    @Test("another module is not loaded as kvm_user")
    func otherModule() throws {
        let fake = try FakeTree()
        try fake.write(ModuleImage.bytes(["name=dummy", "vermagic=6.1.0 SMP "]), to: "dummy.ko")
        let file = try ModuleFile(at: fake.tree.path("dummy.ko"))
        let error = #expect(throws: ModuleError.self) { try ForwardingModule().load(file) }
        #expect(error?.errno == .invalidArgument)
        #expect(error?.cause == "the file is the module dummy")
    }
}

@Suite("Built module file")
struct BuiltModuleFileTests {
    private static let ofSeries = ".build/kmod/6.1/kvm_user.ko"
    private static let ofMake = "kmod/kvm_user.ko"

    /// Which of the files a machine with Linux 6.1.0-56-amd64 takes, each being built for a kernel.
    private static func taken(of files: [String: String]) throws -> String? {
        let fake = try FakeTree(["proc/sys/kernel/osrelease": "6.1.0-56-amd64\n"])
        for (path, release) in files {
            try fake.write(ModuleImage.bytes(["name=kvm_user", "vermagic=\(release) SMP "]), to: path)
        }
        guard let path = ForwardingModule(in: fake.tree).builtFile(in: fake.tree.root) else { return nil }
        return files.keys.first { fake.tree.path($0) == path }
    }

    @Test("what make -C kmod leaves is found")
    func plainMake() throws {
        #expect(try Self.taken(of: [Self.ofMake: "6.1.0-56-amd64"]) == Self.ofMake)
    }

    @Test("the build for the series comes first")
    func seriesFirst() throws {
        let files = [Self.ofSeries: "6.1.0-56-amd64", Self.ofMake: "6.1.0-56-amd64"]
        #expect(try Self.taken(of: files) == Self.ofSeries)
    }

    @Test("what make -C kmod left for another kernel is not taken")
    func otherKernel() throws {
        #expect(try Self.taken(of: [Self.ofMake: "6.12.1"]) == nil)
    }

    @Test("the build for the series is no hindrance if it is for another kernel of it")
    func otherOfSeries() throws {
        let files = [Self.ofSeries: "6.1.0-1-amd64", Self.ofMake: "6.1.0-56-amd64"]
        #expect(try Self.taken(of: files) == Self.ofMake)
    }

    @Test("if none fits it is the build for the series, which the kernel will refuse")
    func noneFits() throws {
        let files = [Self.ofSeries: "6.1.0-1-amd64", Self.ofMake: "6.12.1"]
        #expect(try Self.taken(of: files) == Self.ofSeries)
    }
}
