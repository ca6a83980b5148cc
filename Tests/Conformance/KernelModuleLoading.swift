// SPDX-License-Identifier: Apache-2.0
//
// Loading and unloading in earnest, with modules that every distribution's kernel has and nobody in the lab uses.

import Glibc
import KernelModule
import SystemPackage
import Testing

@Suite("Kernel module: loading and unloading", .serialized)
struct KernelModuleLoading {
    private let loader = ModuleLoader()

    init() throws {
        try #require(geteuid() == 0, "loading modules takes root: run this in the lab")
    }

    @Test("a module loads by name, shows its state, and unloads")
    func byName() throws {
        try unloadIfLoaded("dummy")
        try loader.load(named: "dummy", parameters: [ModuleParameter(parsing: "numdummies=0")])
        let state = ModuleState(of: "dummy")
        #expect(state.phase == .live)
        #expect(state.referenceCount == 0)
        #expect(try #require(state.size) > 0)
        #expect(state.holders.isEmpty)
        #expect(!state.taints.contains(.outOfTree))
        try loader.load(named: "dummy")
        try loader.unload("dummy")
        #expect(ModuleState(of: "dummy").phase == .notLoaded)
    }

    @Test("a module loads from a file, once: the second time is EEXIST")
    func byFile() throws {
        try unloadIfLoaded("dummy")
        let file = try ModuleFile(at: try installed("kernel/drivers/net/dummy.ko"))
        #expect(file.name == "dummy")
        #expect(file.release == KernelRelease(of: .running)?.description)
        try loader.load(file, parameters: [ModuleParameter(parsing: "numdummies=0")])
        defer { try? loader.unload("dummy") }
        #expect(ModuleState(of: "dummy").phase == .live)
        let error = #expect(throws: ModuleError.self) { try loader.load(file) }
        #expect(error?.errno == .fileExists)
        #expect(error?.cause == "it is loaded already")
    }

    @Test("a parameter that the module does not have is refused before anything is loaded")
    func unknownParameter() throws {
        try unloadIfLoaded("dummy")
        let file = try ModuleFile(at: try installed("kernel/drivers/net/dummy.ko"))
        let parameter = try ModuleParameter(parsing: "nosuch=1")
        let error = #expect(throws: ModuleError.self) { try loader.load(file, parameters: [parameter]) }
        #expect(error?.errno == .invalidArgument)
        #expect(ModuleState(of: "dummy").phase == .notLoaded)
    }

    @Test("dependencies come first, and a module in use is EBUSY, naming its holder")
    func busy() throws {
        try unloadIfLoaded("bonding")
        try unloadIfLoaded("tls")
        let file = try ModuleFile(at: try installed("kernel/drivers/net/bonding/bonding.ko"))
        try #require(file.dependencies == ["tls"])
        try loader.load(file)
        #expect(ModuleState(of: "tls").phase == .live)
        #expect(ModuleState(of: "tls").holders == ["bonding"])
        let error = #expect(throws: ModuleError.self) { try loader.unload("tls") }
        #expect(error?.errno == .resourceBusy)
        #expect(error?.cause == "it is in use by modules bonding")
        #expect(ModuleState(of: "tls").phase == .live)
        try loader.unload("bonding")
        try loader.unload("tls")
        #expect(ModuleState(of: "tls").phase == .notLoaded)
    }

    @Test("an open descriptor keeps its module: EBUSY, with the count")
    func openDescriptor() throws {
        try unloadIfLoaded("loop")
        let monitor = try DeviceMonitor(subsystem: "misc")
        try loader.load(named: "loop", parameters: [ModuleParameter(parsing: "max_loop=0")])
        defer { try? loader.unload("loop") }
        let node = try monitor.wait(for: "loop-control", timeout: .seconds(10))
        #expect(node.path == "/dev/loop-control")
        let file = try FileDescriptor.open(node.path, .readOnly)
        let error = #expect(throws: ModuleError.self) { try loader.unload("loop") }
        #expect(error?.errno == .resourceBusy)
        #expect(error?.cause.contains("(1 references)") == true)
        try file.close()
        try loader.unload("loop")
        #expect(ModuleState(of: "loop").phase == .notLoaded)
    }

    @Test("a node that comes later is seen when it comes", .timeLimit(.minutes(1)))
    func nodeComes() async throws {
        try unloadIfLoaded("loop")
        let waiter = Task.detached {
            try DeviceMonitor(subsystem: "misc").wait(for: "loop-control", timeout: .seconds(30))
        }
        // Long enough for the waiter to be waiting; if it is not yet, the node is there when it looks.
        try await Task.sleep(for: .milliseconds(500))
        try loader.load(named: "loop", parameters: [ModuleParameter(parsing: "max_loop=0")])
        let node = try await waiter.value
        #expect(node.path == "/dev/loop-control")
        #expect(node.isInitialized == (DeviceMonitor.Source() == .udev))
        try loader.unload("loop")
    }

    @Test("what is not loaded cannot be unloaded: ENOENT")
    func unloadNothing() {
        let error = #expect(throws: ModuleError.self) { try loader.unload("nosuch_module") }
        #expect(error?.errno == .noSuchFileOrDirectory)
        #expect(error?.cause == "it is not loaded")
    }

    @Test("what is not installed cannot be loaded: ENOENT, naming the folder")
    func loadNothing() throws {
        let release = try #require(KernelRelease(of: .running))
        let error = #expect(throws: ModuleError.self) { try loader.load(named: "nosuch_module") }
        #expect(error?.errno == .noSuchFileOrDirectory)
        #expect(error?.cause.contains("/lib/modules/\(release)") == true)
    }

    @Test("a file cut short behind its .modinfo is ENOEXEC, and the kernel keeps nothing of it")
    func truncated() throws {
        try unloadIfLoaded("dummy")
        let path: FilePath = "/tmp/dummy.ko"
        var bytes = try SystemTree.running.bytes(String(try installed("kernel/drivers/net/dummy.ko").string.dropFirst()))
        bytes.removeLast(bytes.count / 2)
        let copy = try FileDescriptor.open(
            path, .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
        try copy.closeAfter { _ = try copy.writeAll(bytes) }
        defer { _ = unsafe path.withPlatformString { unsafe unlink($0) } }
        let error = #expect(throws: ModuleError.self) { try loader.load(ModuleFile(at: path)) }
        #expect(error?.errno == .execFormatError)
        #expect(ModuleState(of: "dummy").phase == .notLoaded)
    }

    @Test("a file of another kernel is ENOEXEC, with both releases and how to rebuild")
    func otherKernel() throws {
        try unloadIfLoaded("dummy")
        let release = try #require(KernelRelease(of: .running)).description
        let other = "9" + release.dropFirst()
        let path: FilePath = "/tmp/dummy.ko"
        let original = try SystemTree.running.bytes(String(try installed("kernel/drivers/net/dummy.ko").string.dropFirst()))
        let copy = try FileDescriptor.open(
            path, .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
        try copy.closeAfter { _ = try copy.writeAll(replacing("vermagic=\(release)", "vermagic=\(other)", original)) }
        defer { _ = unsafe path.withPlatformString { unsafe unlink($0) } }
        let error = #expect(throws: ModuleError.self) { try loader.load(ModuleFile(at: path)) }
        #expect(error?.errno == .execFormatError)
        #expect(error?.cause.contains("built for another kernel: vermagic \(other)") == true)
        #expect(error?.cause.hasSuffix("running \(release)") == true)
        #expect(error?.remedy == "rebuild with make -C kmod KDIR=/lib/modules/\(release)/build")
    }

    @Test("a module whose symbols nobody has is ENOENT: not known to the kernel")
    func missingSymbols() throws {
        try unloadIfLoaded("bonding")
        try unloadIfLoaded("tls")
        // Without its .modinfo entry, the dependency is not loaded first.
        let path: FilePath = "/tmp/bonding.ko"
        let original = try SystemTree.running.bytes(
            String(try installed("kernel/drivers/net/bonding/bonding.ko").string.dropFirst()))
        let copy = try FileDescriptor.open(
            path, .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
        try copy.closeAfter { _ = try copy.writeAll(replacing("depends=tls", "depends=\0\0\0", original)) }
        defer { _ = unsafe path.withPlatformString { unsafe unlink($0) } }
        let error = #expect(throws: ModuleError.self) { try loader.load(ModuleFile(at: path)) }
        #expect(error?.errno == .noSuchFileOrDirectory)
        #expect(error?.cause.contains("does not have a symbol that it needs") == true)
    }

    @Test("kvm and the CPU's part of it load by name, and udev describes /dev/kvm")
    func kvm() throws {
        let part = try #require(ProcessorVirtualization()).moduleName
        let monitor = try DeviceMonitor(subsystem: "misc")
        try loader.load(named: "kvm")
        try loader.load(named: part)
        #expect(ModuleState(of: "kvm").holders == [part])
        let node = try monitor.wait(for: "kvm", timeout: .seconds(10))
        #expect(node.path == "/dev/kvm")
        #expect(node.access.isUsable)
        let probe = KVMProbe(deviceType: 31)
        #expect(probe.version == .yes(12))
        #expect(probe.machine == .yes(0))
        #expect(probe.device == .no(.operationNotSupportedByDevice))
    }

    private func unloadIfLoaded(_ name: String) throws {
        if ModuleState(of: name).phase == .live { try loader.unload(name) }
    }

    private func installed(_ path: String) throws -> FilePath {
        let release = try #require(KernelRelease(of: .running))
        let plain = FilePath("/lib/modules/\(release)").appending(path)
        try #require(SystemTree.running.exists(String(plain.string.dropFirst())), "\(plain) is not installed")
        return plain
    }

    /// The bytes with the first `pattern` in them replaced by text of the same length.
    private func replacing(_ pattern: String, _ replacement: String, _ bytes: [UInt8]) throws -> [UInt8] {
        let (pattern, replacement) = (Array(pattern.utf8), Array(replacement.utf8))
        try #require(pattern.count == replacement.count)
        let place = try #require(
            bytes.indices.first { bytes[$0] == pattern[0] && bytes[$0...].starts(with: pattern) })
        var result = bytes
        result.replaceSubrange(place..<(place + pattern.count), with: replacement)
        return result
    }
}
