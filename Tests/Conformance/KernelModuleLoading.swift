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
        var bytes = try image(of: "kernel/drivers/net/dummy.ko")
        bytes.removeLast(bytes.count / 2)
        let error = try failureToLoad("/tmp/dummy.ko", bytes)
        #expect(error?.errno == .execFormatError)
        #expect(ModuleState(of: "dummy").phase == .notLoaded)
    }

    @Test("a file of another kernel is ENOEXEC, with both releases and how to rebuild")
    func otherKernel() throws {
        try unloadIfLoaded("dummy")
        let release = try #require(KernelRelease(of: .running)).description
        let other = "9" + release.dropFirst()
        let original = try unsigned(image(of: "kernel/drivers/net/dummy.ko"))
        // The options as well: a kernel with symbol versions goes by those and does not look at the release.
        let error = try failureToLoad(
            "/tmp/dummy.ko", replacing("vermagic=\(release) SMP", "vermagic=\(other) UMP", original))
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
        let original = try unsigned(image(of: "kernel/drivers/net/bonding/bonding.ko"))
        let error = try failureToLoad("/tmp/bonding.ko", replacing("depends=tls", "depends=\0\0\0", original))
        #expect(error?.errno == .noSuchFileOrDirectory)
        #expect(error?.cause.contains("does not have a symbol that it needs") == true)
    }

    @Test("a signed module changed afterwards is EKEYREJECTED, though signatures are not enforced")
    func changedAfterSigning() throws {
        try unloadIfLoaded("dummy")
        let original = try image(of: "kernel/drivers/net/dummy.ko")
        try #require(unsigned(original).count < original.count, "the kernel's modules are not signed")
        let error = try failureToLoad("/tmp/dummy.ko", replacing("license=GPL", "license=MIT", original))
        #expect(error?.errno == Errno(rawValue: EKEYREJECTED))
        #expect(error?.cause.contains("changed after it was signed") == true)
    }

    @Test("an unsigned module loads, and its taint says so")
    func unsignedTaints() throws {
        try unloadIfLoaded("dummy")
        let path: FilePath = "/tmp/dummy.ko"
        try write(unsigned(image(of: "kernel/drivers/net/dummy.ko")), to: path)
        defer { remove(path) }
        try loader.load(ModuleFile(at: path), parameters: [ModuleParameter(parsing: "numdummies=0")])
        defer { try? loader.unload("dummy") }
        #expect(ModuleState(of: "dummy").taints == [.unsigned])
    }

    @Test("kvm and the CPU's part of it load by name, and udev describes /dev/kvm")
    func kvm() throws {
        let part = try #require(ProcessorVirtualization()).moduleName
        let monitor = try DeviceMonitor(subsystem: "misc")
        try loader.load(named: "kvm")
        try loader.load(named: part)
        #expect(ModuleState(of: "kvm").holders.contains(part))
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

    /// Where the running kernel's module lies, compressed or not.
    private func installed(_ path: String) throws -> FilePath {
        let release = try #require(KernelRelease(of: .running))
        let candidates = ["", ".xz"].map { "lib/modules/\(release)/\(path)\($0)" }
        let found = try #require(candidates.first { SystemTree.running.exists($0) }, "\(path) is not installed")
        return FilePath("/\(found)")
    }

    /// An installed module as the kernel gets it. `xz -f` hands on what is not compressed as it is.
    private func image(of path: String) throws -> [UInt8] {
        let command = "xz -dcf \(try installed(path))"
        guard let stream = unsafe popen(command, "r") else { throw Errno(rawValue: errno) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = unsafe fread(&chunk, 1, chunk.count, stream)
            if count == 0 { break }
            bytes += chunk.prefix(count)
        }
        let status = unsafe pclose(stream)
        try #require(status == 0)
        return bytes
    }

    /// A module without the signature at its end: its length is in the 4 bytes, big-endian, before the mark.
    private func unsigned(_ bytes: [UInt8]) -> [UInt8] {
        let mark = Array("~Module signature appended~\n".utf8)
        guard bytes.suffix(mark.count).elementsEqual(mark) else { return bytes }
        let length = bytes.dropLast(mark.count).suffix(4).reduce(0) { $0 << 8 | Int($1) }
        return Array(bytes.dropLast(mark.count + 12 + length))
    }

    private func failureToLoad(_ path: FilePath, _ bytes: [UInt8]) throws -> ModuleError? {
        try write(bytes, to: path)
        defer { remove(path) }
        return #expect(throws: ModuleError.self) { try loader.load(ModuleFile(at: path)) }
    }

    private func write(_ bytes: [UInt8], to path: FilePath) throws {
        let file = try FileDescriptor.open(
            path, .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
        try file.closeAfter { _ = try file.writeAll(bytes) }
    }

    private func remove(_ path: FilePath) {
        _ = unsafe path.withPlatformString { unsafe unlink($0) }
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
