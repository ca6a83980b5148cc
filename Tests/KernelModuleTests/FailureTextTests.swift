// SPDX-License-Identifier: Apache-2.0
//
// What a failed load or unload tells the user.

import Glibc
import SystemPackage
import Testing

@testable import KernelModule

@Suite("Load failure")
struct LoadFailureTests {
    private static let plain = LoadFailure(
        name: "kvm_user", errno: .invalidArgument, vermagic: "6.1.0-56-amd64 SMP preempt mod_unload modversions ",
        runningVermagic: "6.1.0-56-amd64 SMP preempt mod_unload modversions ", runningRelease: "6.1.0-56-amd64",
        isRoot: true, isLoaded: false, modulesDisabled: false, lockdown: nil)

    @Test(
        "each errno has a cause",
        arguments: [
            (ENOENT, "does not have a symbol that it needs: kvm is not loaded"),
            (EEXIST, "device type number taken"),
            (ENOKEY, "changed after it was signed"),
            (EKEYREJECTED, "changed after it was signed"),
            (EPERM, "lacks CAP_SYS_MODULE"),
            (EINVAL, "a parameter has a value that it refuses"),
            (ENODEV, "this CPU does not offer"),
            (EOPNOTSUPP, "KVM does not have a function that it needs"),
            (EBUSY, "under way"),
            (ENOSYS, "without loadable modules"),
            (ENOMEM, "no memory"),
            (ENOEXEC, "damaged"),
            (EXDEV, "refused it"),
        ])
    func causes(number: CInt, cause: String) {
        var failure = Self.plain
        failure.errno = Errno(rawValue: number)
        #expect(failure.error.errno == Errno(rawValue: number))
        #expect(failure.error.cause.contains(cause))
        #expect(!failure.error.remedy.isEmpty)
    }

    @Test("another kernel's file: both releases, and how to rebuild")
    func otherKernel() {
        var failure = Self.plain
        failure.errno = .execFormatError
        failure.vermagic = "6.12.117+deb12-amd64 SMP preempt mod_unload modversions "
        let text = failure.error.description
        #expect(text.hasPrefix("cannot load kvm_user: Exec format error: built for another kernel: vermagic 6.12.117"))
        #expect(text.contains("running 6.1.0-56-amd64"))
        #expect(text.contains("make -C kmod KDIR=/lib/modules/6.1.0-56-amd64/build"))
    }

    @Test("the same release with other options: both vermagics")
    func otherOptions() {
        var failure = Self.plain
        failure.errno = .execFormatError
        failure.runningVermagic = "6.1.0-56-amd64 SMP preempt_rt mod_unload modversions "
        #expect(failure.error.cause.hasPrefix("built with other options: "))
        #expect(failure.error.cause.contains("preempt_rt"))
    }

    @Test("EPERM: the first reason that holds, from the machine's down to the user's")
    func notPermitted() {
        var failure = Self.plain
        failure.errno = .notPermitted
        failure.isRoot = false
        #expect(failure.error.remedy == "use sudo")
        failure.lockdown = Lockdown.none
        #expect(failure.error.remedy == "use sudo")
        failure.lockdown = .integrity
        #expect(failure.error.cause.contains("locked down (integrity)"))
        failure.modulesDisabled = true
        #expect(failure.error.cause.contains("kernel.modules_disabled"))
    }

    @Test("EEXIST of a loaded module, and of one whose device type is taken")
    func exists() {
        var failure = Self.plain
        failure.errno = .fileExists
        #expect(failure.error.remedy.contains("device_type"))
        failure.isLoaded = true
        #expect(failure.error.cause == "it is loaded already")
    }

    @Test("ENOENT by name: not installed")
    func notInstalled() {
        var failure = Self.plain
        failure.errno = .noSuchFileOrDirectory
        failure.vermagic = nil
        #expect(failure.error.remedy.contains("make -C kmod modules_install"))
        failure.name = "kvm"
        #expect(failure.error.cause == "there is no such module below /lib/modules/6.1.0-56-amd64")
    }
}

@Suite("Unload failure")
struct UnloadFailureTests {
    private func failure(_ errno: Errno, _ fake: borrowing FakeTree, isRoot: Bool = true) -> ModuleError {
        UnloadFailure(
            name: "kvm_user", errno: errno, state: ModuleState(of: "kvm_user", in: fake.tree),
            processes: DescriptorHolder.all(in: fake.tree), isRoot: isRoot
        ).error
    }

    @Test("in use: modules and processes are named", arguments: [Errno.wouldBlock, .resourceBusy])
    func inUse(errno: Errno) throws {
        let fake = try FakeTree(["sys/module/kvm_user/initstate": "live", "proc/812/comm": "vmm"])
        try fake.makeFolder("sys/module/kvm_user/holders/other")
        try fake.link("proc/812/fd/9", to: "anon_inode:kvm-user")
        let error = failure(errno, fake)
        #expect(error.errno == .resourceBusy)
        #expect(
            error.description.hasSuffix(
                "it is in use by modules other; process 812 (vmm), descriptor 9: control descriptor; end them first"))
    }

    @Test("in use by what cannot be found: the count, and who to ask")
    func unknownHolder() throws {
        let fake = try FakeTree(["sys/module/kvm_user/initstate": "live", "sys/module/kvm_user/refcnt": "1"])
        #expect(failure(.wouldBlock, fake).cause.contains("(1 references)"))
        #expect(failure(.wouldBlock, fake).remedy.contains("virtual machine"))
        #expect(failure(.wouldBlock, fake, isRoot: false).remedy.contains("sudo"))
    }

    @Test("busy for its own reasons", arguments: [("coming", "it is coming"), ("going", "it is going")])
    func between(phase: String, cause: String) throws {
        let fake = try FakeTree(["sys/module/kvm_user/initstate": phase])
        #expect(failure(.resourceBusy, fake).cause == cause)
    }

    @Test("built in")
    func builtIn() throws {
        let fake = try FakeTree(["sys/module/kvm_user/parameters/device_type": "10"])
        #expect(failure(.resourceBusy, fake).cause == "it is built into the kernel")
    }

    @Test("not loaded, not root, a kernel that cannot")
    func others() throws {
        let fake = try FakeTree()
        #expect(failure(.noSuchFileOrDirectory, fake).cause == "it is not loaded")
        #expect(failure(.notPermitted, fake, isRoot: false).remedy == "use sudo")
        #expect(failure(.notPermitted, fake).cause.contains("CAP_SYS_MODULE"))
        #expect(failure(.noFunction, fake).cause == "this kernel cannot unload modules")
    }
}
