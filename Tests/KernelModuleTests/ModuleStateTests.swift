// SPDX-License-Identifier: Apache-2.0
//
// Module states, holders and the rest of /proc and /sys, in made-up trees.

import KernelModule
import SystemPackage
import Testing

@Suite("Module state")
struct ModuleStateTests {
    @Test("all fields of a live module")
    func live() throws {
        let fake = try FakeTree([
            "sys/module/kvm_user/initstate": "live\n", "sys/module/kvm_user/version": "1.0\n",
            "sys/module/kvm_user/srcversion": "0123ABCD\n", "sys/module/kvm_user/refcnt": "2\n",
            "sys/module/kvm_user/coresize": "40960\n", "sys/module/kvm_user/taint": "OE\n",
            "sys/module/kvm_user/parameters/device_type": "10\n",
            "sys/module/kvm_user/parameters/queue_depth": "256\n",
        ])
        try fake.makeFolder("sys/module/kvm_user/holders/other")
        let state = ModuleState(of: "kvm-user", in: fake.tree)
        #expect(state.name == "kvm_user")
        #expect(state.phase == .live)
        #expect(state.isUsable)
        #expect(state.version == "1.0")
        #expect(state.sourceVersion == "0123ABCD")
        #expect(state.referenceCount == 2)
        #expect(state.size == 40960)
        #expect(state.taints == [.outOfTree, .unsigned])
        #expect(state.parameters == ["device_type": "10", "queue_depth": "256"])
        #expect(state.holders == ["other"])
    }

    @Test("a module that the kernel does not have")
    func notLoaded() throws {
        let fake = try FakeTree()
        let state = ModuleState(of: "kvm_user", in: fake.tree)
        #expect(state.phase == .notLoaded)
        #expect(!state.isUsable)
        #expect(state.version == nil)
        #expect(state.referenceCount == nil)
        #expect(state.holders.isEmpty)
        #expect(state.parameters.isEmpty)
    }

    @Test("initstate says coming and going", arguments: [ModuleState.Phase.coming, .going])
    func between(phase: ModuleState.Phase) throws {
        let fake = try FakeTree(["sys/module/kvm_user/initstate": phase.rawValue + "\n"])
        let state = ModuleState(of: "kvm_user", in: fake.tree)
        #expect(state.phase == phase)
        #expect(!state.isUsable)
    }

    @Test("a folder with parameters alone is of a built-in module")
    func builtIn() throws {
        let fake = try FakeTree(["sys/module/kvm/parameters/halt_poll_ns": "200000\n"])
        let state = ModuleState(of: "kvm", in: fake.tree)
        #expect(state.phase == .builtIn)
        #expect(state.isUsable)
    }

    @Test("a folder that has no initstate yet, but a taint file, is of a module being set up")
    func settingUp() throws {
        let fake = try FakeTree(["sys/module/kvm_user/taint": "\n"])
        #expect(ModuleState(of: "kvm_user", in: fake.tree).phase == .coming)
    }

    @Test(
        "every letter of taint has words",
        arguments: [
            ("P", "proprietary"), ("O", "out of tree"), ("F", "forced"), ("C", "staging"), ("E", "unsigned"),
            ("K", "live patch"), ("N", "test"), ("Z", "taint Z"),
        ])
    func taints(letter: String, words: String) throws {
        let fake = try FakeTree(["sys/module/m/initstate": "live", "sys/module/m/taint": letter])
        #expect(ModuleState(of: "m", in: fake.tree).taints.map(\.description) == [words])
    }
}

@Suite("Descriptor holders")
struct DescriptorHolderTests {
    @Test("control and emulation descriptors are found, by process and number; others are not")
    func found() throws {
        let fake = try FakeTree(["proc/900/comm": "vmm\n", "proc/1000/comm": "emulate\n", "proc/version": "x"])
        try fake.link("proc/900/fd/10", to: "anon_inode:kvm-user")
        try fake.link("proc/900/fd/9", to: "anon_inode:kvm-user")
        try fake.link("proc/900/fd/3", to: "anon_inode:kvm-vm")
        try fake.link("proc/900/fd/4", to: "/tmp/anon_inode:kvm-user")
        try fake.link("proc/1000/fd/0", to: "anon_inode:kvm-user-emulation")
        try fake.link("proc/self/fd/9", to: "anon_inode:kvm-user")
        try fake.makeFolder("proc/1001/fd")
        let holders = DescriptorHolder.all(in: fake.tree)
        #expect(
            holders.map(\.description) == [
                "process 900 (vmm), descriptor 9: control descriptor",
                "process 900 (vmm), descriptor 10: control descriptor",
                "process 1000 (emulate), descriptor 0: emulation descriptor",
            ])
    }

    @Test("a process that ends in the middle leaves a holder without a name")
    func nameless() throws {
        let fake = try FakeTree()
        try fake.link("proc/7/fd/1", to: "anon_inode:kvm-user")
        #expect(DescriptorHolder.all(in: fake.tree).map(\.command) == ["?"])
    }

    @Test("without /proc nobody is found")
    func noProc() throws {
        let fake = try FakeTree()
        #expect(DescriptorHolder.all(in: fake.tree).isEmpty)
    }
}

@Suite("Kernel facts")
struct KernelFactTests {
    @Test("releases are taken apart and compared as numbers, not as text")
    func releases() throws {
        let old = try #require(KernelRelease("6.1.0-56-amd64"))
        let new = try #require(KernelRelease("6.12.117+deb12-amd64"))
        let bare = try #require(KernelRelease("6.2-rc1"))
        #expect(old.series == "6.1")
        #expect(old < bare)
        #expect(bare < new)
        #expect(new.buildName == "6.12")
        #expect(KernelRelease("6.1.192-kasan")?.buildName == "kasan")
        #expect(KernelRelease("6.1.192-kasan")?.series == "6.1")
        #expect(old.description == "6.1.0-56-amd64")
    }

    @Test("what is no release is nil", arguments: ["", "6", "six.one", ".1", "6.x"])
    func noRelease(text: String) {
        #expect(KernelRelease(text) == nil)
    }

    @Test(
        "the marked lockdown mode counts",
        arguments: [
            ("[none] integrity confidentiality\n", Lockdown.none), ("none [integrity] confidentiality\n", .integrity),
            ("none integrity [confidentiality]\n", .confidentiality),
        ])
    func lockdown(text: String, mode: Lockdown) throws {
        let fake = try FakeTree(["sys/kernel/security/lockdown": text])
        #expect(Lockdown(of: fake.tree) == .some(mode))
    }

    @Test("no lockdown, or one that is not known, is nil", arguments: ["", "none", "[total]"])
    func noLockdown(text: String) throws {
        let fake = try FakeTree(["sys/kernel/security/lockdown": text])
        #expect(Lockdown(of: fake.tree) == Optional<Lockdown>.none)
        let empty = try FakeTree()
        #expect(Lockdown(of: empty.tree) == Optional<Lockdown>.none)
    }

    @Test(
        "the CPU's flags say which module drives it",
        arguments: [
            ("fpu vme svm lm", "kvm_amd"), ("fpu vme vmx lm", "kvm_intel"), ("fpu svm_lock vmxx", nil),
        ] as [(String, String?)])
    func processor(flags: String, module: String?) throws {
        let fake = try FakeTree(["proc/cpuinfo": "processor\t: 0\nflags\t\t: \(flags)\nbugs\t: svm\n\n"])
        #expect(ProcessorVirtualization(of: fake.tree)?.moduleName == module)
    }

    @Test("udev tells of nodes if udevd runs, else the kernel")
    func source() throws {
        let with = try FakeTree(["run/udev/control": ""])
        let without = try FakeTree()
        #expect(DeviceMonitor.Source(of: with.tree) == .udev)
        #expect(DeviceMonitor.Source(of: without.tree) == .kernel)
    }
}
