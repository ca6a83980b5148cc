// SPDX-License-Identifier: Apache-2.0
//
// The report of made-up machines: a good one, then one thing wrong at a time.

import KernelModule
import SystemPackage
import Testing

@Suite("Machine report")
struct MachineReportTests {
    /// A machine on which everything is as it should be.
    private static func goodMachine() throws -> FakeTree {
        let fake = try FakeTree([
            "proc/cpuinfo": "flags\t\t: fpu svm\n", "proc/sys/kernel/osrelease": "6.1.0-56-amd64\n",
            "proc/modules": "", "dev/kvm": "",
            "sys/module/kvm/initstate": "live", "sys/module/kvm_amd/initstate": "live",
            "sys/module/kvm_user/initstate": "live", "sys/module/kvm_user/version": "1.0",
            "sys/module/kvm_user/parameters/device_type": "10",
            "sys/kernel/security/lockdown": "[none] integrity confidentiality",
            "boot/config-6.1.0-56-amd64": "CONFIG_X=y\nCONFIG_KPROBES=y\n",
            "lib/modules/6.1.0-56-amd64/build/Makefile": "",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            "opt/bin/qemu-system-x86_64": "",
        ])
        try fake.write(
            ModuleImage.bytes(["name=kvm_user", "vermagic=6.1.0-56-amd64 SMP "]), to: "checkout/kvm_user.ko")
        return fake
    }

    private static let goodKVM = KVMProbe(version: .yes(12), machine: .yes(0), device: .yes(0))

    private static func report(_ fake: borrowing FakeTree, kvm: KVMProbe = goodKVM) -> MachineReport {
        let path = fake.tree.path("checkout/kvm_user.ko")
        let file = Result { () throws(ModuleError) in try ModuleFile(at: path) }
        return MachineReport(tree: fake.tree, kvm: kvm, moduleFile: file, searchPath: "/usr/bin:relative:/opt/bin")
    }

    private static func check(_ report: MachineReport, _ name: String) throws -> MachineCheck {
        try #require(report.checks.first { $0.name == name })
    }

    @Test("a good machine runs guests and has no remedies")
    func good() throws {
        let fake = try Self.goodMachine()
        let report = Self.report(fake)
        #expect(report.checks.allSatisfy { $0.verdict == .ok && $0.remedy.isEmpty })
        #expect(report.runsGuests)
        #expect(report.checks.count == 16)
        #expect(Set(report.checks.map(\.name)).count == 16)
        #expect(try Self.check(report, "kvm_user").detail == "live 1.0, device type 10")
    }

    @Test("a bare machine runs none, and every finding that matters says what to do")
    func bare() throws {
        let fake = try FakeTree()
        let report = MachineReport(
            tree: fake.tree, kvm: KVMProbe(version: .no(.noSuchFileOrDirectory)), moduleFile: nil, searchPath: "")
        #expect(!report.runsGuests)
        #expect(report.checks.filter { $0.verdict == .missing }.allSatisfy { !$0.remedy.isEmpty })
        #expect(
            report.checks.filter { $0.verdict == .missing }.map(\.name) == [
                "CPU virtualisation", "kernel", "KVM modules", "/dev/kvm", "KVM API", "KVM_CREATE_VM", "kvm_user",
                "KVM_CREATE_DEVICE_TEST",
            ])
    }

    @Test(
        "one thing wrong is found, and only what guests need now is missing",
        arguments: [
            ("proc/cpuinfo", "flags : fpu\n", "CPU virtualisation", MachineCheck.Verdict.missing, "SVM"),
            ("proc/sys/kernel/osrelease", "5.10.0-1\n", "kernel", .missing, "older than 6.1"),
            ("proc/sys/kernel/osrelease", "6.18.0\n", "kernel", .note, "newer than 6.12"),
            ("sys/module/kvm_amd/initstate", "going", "KVM modules", .missing, "kvm_amd going"),
            ("sys/module/kvm_user/initstate", "coming", "kvm_user", .missing, "coming"),
            ("sys/module/kvm_user/parameters/device_type", "ten", "kvm_user", .missing, "no device_type"),
            ("proc/sys/kernel/modules_disabled", "1\n", "loadable modules", .note, "modules_disabled"),
            (
                "sys/kernel/security/lockdown", "none [integrity] confidentiality", "module signatures", .note,
                "integrity"
            ),
            ("sys/kernel/security/lockdown", "none integrity [confidentiality]", "kprobes", .note, "lockdown"),
            ("sys/module/module/parameters/sig_enforce", "Y\n", "module signatures", .note, "sig_enforce"),
            ("boot/config-6.1.0-56-amd64", "# CONFIG_KPROBES is not set\n", "kprobes", .note, "not set"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu io\n", "memory cgroup", .note, "without its memory controller"),
            ("checkout/kvm_user.ko", "no module", "kvm_user.ko", .note, "no kernel module"),
        ])
    func wrong(path: String, text: String, name: String, verdict: MachineCheck.Verdict, detail: String) throws {
        let fake = try Self.goodMachine()
        try fake.write(text, to: path)
        let report = Self.report(fake)
        let check = try Self.check(report, name)
        #expect(check.verdict == verdict)
        #expect(check.detail.contains(detail))
        #expect(!check.remedy.isEmpty)
        #expect(report.runsGuests == (verdict != .missing))
    }

    @Test("secure boot shows, by its EFI variable", arguments: [(UInt8(1), "on"), (0, "off")])
    func secureBoot(value: UInt8, word: String) throws {
        let fake = try Self.goodMachine()
        try fake.write(
            [6, 0, 0, 0, value], to: "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
        #expect(try Self.check(Self.report(fake), "module signatures").detail.hasPrefix("secure boot \(word)"))
    }

    @Test(
        "without a configuration, kprobes show in the kernel's symbols",
        arguments: [
            ("0 T register_kprobe\n0 T x\n", MachineCheck.Verdict.ok), ("0 T register_kprobes\n", .note), ("", .note),
        ])
    func kprobeSymbols(symbols: String, verdict: MachineCheck.Verdict) throws {
        let fake = try FakeTree(["proc/sys/kernel/osrelease": "6.1.0", "proc/kallsyms": symbols])
        let report = MachineReport(tree: fake.tree, kvm: Self.goodKVM, moduleFile: nil, searchPath: "")
        #expect(try Self.check(report, "kprobes").verdict == verdict)
    }

    @Test(
        "what KVM refuses is missing",
        arguments: [
            (KVMProbe(version: .no(.permissionDenied)), "KVM API", "Permission denied"),
            (KVMProbe(version: .yes(11)), "KVM API", "not 12"),
            (KVMProbe(version: .yes(12), machine: .no(.resourceBusy)), "KVM_CREATE_VM", "busy"),
            (
                KVMProbe(version: .yes(12), machine: .yes(0), device: .no(.operationNotSupportedByDevice)),
                "KVM_CREATE_DEVICE_TEST", "No such device"
            ),
        ])
    func refusals(kvm: KVMProbe, name: String, detail: String) throws {
        let fake = try Self.goodMachine()
        let report = Self.report(fake, kvm: kvm)
        let check = try Self.check(report, name)
        #expect(check.verdict == .missing)
        #expect(check.detail.contains(detail))
        #expect(!report.runsGuests)
    }

    @Test("the lab's virtme-ng is looked for where the lab does, whatever is in PATH")
    func virtme() throws {
        let fake = try Self.goodMachine()
        try fake.write("", to: "usr/bin/vng")
        let report = MachineReport(
            tree: fake.tree, kvm: Self.goodKVM, moduleFile: nil, searchPath: "/usr/bin",
            missingVirtme: "/cache/virtme-run")
        let check = try Self.check(report, "lab: virtme-ng")
        #expect(check.verdict == .note)
        #expect(check.detail == "not at /cache/virtme-run")
        #expect(check.remedy.contains("make deps"))
    }

    @Test("remedies name this program as it was started")
    func command() throws {
        let fake = try FakeTree(["proc/modules": ""])
        let report = MachineReport(
            tree: fake.tree, kvm: Self.goodKVM, moduleFile: nil, searchPath: "", command: ".build/debug/mmiofd")
        #expect(try Self.check(report, "kvm_user").remedy == "sudo .build/debug/mmiofd module load")
        #expect(try Self.check(report, "KVM modules").remedy.hasPrefix("sudo .build/debug/mmiofd module load"))
        #expect(try Self.check(report, "CPU virtualisation").remedy.contains(".build/debug/mmiofd lab run"))
    }

    @Test(
        "where nothing can be loaded, no remedy loads or builds a module",
        arguments: [[:], ["proc/modules": "", "proc/sys/kernel/modules_disabled": "1\n"]])
    func nothingLoads(files: [String: String]) throws {
        let fake = try FakeTree(["proc/sys/kernel/osrelease": "6.1.0-56-amd64\n"])
        for (path, text) in files { try fake.write(text, to: path) }
        let kvm = KVMProbe(version: .yes(12), machine: .yes(0), device: .no(.operationNotSupportedByDevice))
        let report = MachineReport(tree: fake.tree, kvm: kvm, moduleFile: nil, searchPath: "")
        let names = [
            "KVM modules", "/dev/kvm", "kvm_user", "KVM_CREATE_DEVICE_TEST", "kernel headers", "kvm_user.ko",
        ]
        for name in names {
            #expect(try Self.check(report, name).remedy == "nothing can be loaded now: see loadable modules below")
        }
    }

    @Test("a module file of another kernel is a note, with the command that builds the right one")
    func otherKernelsFile() throws {
        let fake = try Self.goodMachine()
        try fake.write(
            ModuleImage.bytes(["name=kvm_user", "vermagic=6.12.1 SMP "]), to: "checkout/kvm_user.ko")
        let check = try Self.check(Self.report(fake), "kvm_user.ko")
        #expect(check.verdict == .note)
        #expect(check.detail.contains("is for 6.12.1, running 6.1.0-56-amd64"))
        #expect(check.remedy == "make -C kmod KDIR=/lib/modules/6.1.0-56-amd64/build")
    }
}
