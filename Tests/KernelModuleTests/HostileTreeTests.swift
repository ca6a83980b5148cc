// SPDX-License-Identifier: Apache-2.0
//
// /proc and /sys with anything in their files: nothing that reads them traps.

import Fuzzing
import LinuxSystem
import SeededRandom
import SystemPackage
import Testing

@testable import KernelModule

@Suite("Hostile files of the kernel", .timeLimit(.minutes(10)))
struct HostileTreeTests {
    /// Files that this library reads, as they are when all is well.
    private static let files: KeyValuePairs<String, String> = [
        "sys/module/kvm_user/initstate": "live\n", "sys/module/kvm_user/version": "1.0\n",
        "sys/module/kvm_user/srcversion": "0123ABCD\n", "sys/module/kvm_user/refcnt": "2\n",
        "sys/module/kvm_user/coresize": "40960\n", "sys/module/kvm_user/taint": "OE\n",
        "sys/module/kvm_user/parameters/device_type": "10\n", "sys/module/kvm_user/parameters/queue_depth": "256\n",
        "sys/module/module/parameters/sig_enforce": "N\n", "sys/kernel/security/lockdown": "[none] integrity\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\u{6}\0\0\0\u{1}",
        "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme svm lm\n\n", "proc/modules": "kvm 1 0 - Live 0x0\n",
        "proc/sys/kernel/osrelease": "6.1.0-56-amd64\n", "proc/sys/kernel/modules_disabled": "0\n",
        "proc/kallsyms": "0 T register_kprobe\n", "proc/900/comm": "vmm\n", "proc/2147483648/comm": "vmm\n",
        "boot/config-6.1.0-56-amd64": "\nCONFIG_KPROBES=y\n",
    ]

    @Test("A machine is looked over whatever its files say", arguments: fuzzSeeds)
    func machine(seed: UInt64) throws {
        announce(seed, of: "trees")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<25 {
            let fake = try FakeTree()
            for (path, text) in Self.files where Int.random(in: 0..<8, using: &random) > 0 {
                let bytes = Array(text.utf8)
                try fake.write(Bool.random(using: &random) ? bytes : mutated(bytes, using: &random), to: path)
            }
            for process in ["900", "2147483648", "-1"] {
                let kind = DescriptorHolder.Kind.allCases.randomElement(using: &random) ?? .control
                try fake.link("proc/\(process)/fd/\(random.next())", to: kind.rawValue)
                try fake.link("proc/\(process)/fd/9", to: kind.rawValue)
            }
            let state = ModuleState(of: "kvm_user", in: fake.tree)
            _ = (state.isUsable, state.taints.map(\.description), ForwardingModule.deviceType(state))
            _ = (KernelRelease(of: fake.tree), Lockdown(of: fake.tree), ProcessorVirtualization(of: fake.tree))
            for holder in DescriptorHolder.all(in: fake.tree) {
                #expect(holder.description.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f })
            }
            let report = MachineReport(
                tree: fake.tree, kvm: KVMProbe(version: .yes(.random(in: .min...(.max), using: &random))),
                moduleFile: nil, searchPath: "/bin")
            #expect(report.checks.count > 10)
        }
    }

    @Test("Releases, parameters and .modinfo of any bytes", arguments: fuzzSeeds)
    func texts(seed: UInt64) {
        announce(seed, of: "texts")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let text = { (right: String, random: inout SeededGenerator) in
                String(
                    decoding: Bool.random(using: &random)
                        ? mutated(Array(right.utf8), using: &random) : randomBytes(upTo: 60, using: &random),
                    as: UTF8.self)
            }
            if let release = KernelRelease(text("6.12.117+deb12-amd64", &random)) { _ = release.series }
            if let parameter = try? ModuleParameter(parsing: text("queue_depth=64", &random)) {
                #expect(parameter.description.contains("="))
            }
            let types = ["byte", "ushort", "uint", "ulong", "ullong", "short", "int", "long", "bool", "hexint"]
            let value = text("-0x7f", &random)
            for type in types { _ = DeclaredParameter(name: "p", type: type).accepts(value) }
            let declared = ModuleFile.parameters([
                ("parmtype", text("queue_depth:uint", &random)), ("parm", text("queue_depth:how many", &random)),
            ])
            #expect(declared.count <= 2)
            #expect(text("vmm", &random).printable.unicodeScalars.allSatisfy { $0.value >= 0x20 })
        }
    }

    @Test("A module file with something wrong in it is read or refused", arguments: fuzzSeeds)
    func moduleFiles(seed: UInt64) throws {
        announce(seed, of: "module files")
        var random = SeededGenerator(seed: seed)
        let right = ["name=kvm_user", "vermagic=6.1.0 SMP mod_unload", "depends=kvm", "parmtype=queue_depth:uint"]
        let fake = try FakeTree()
        for _ in 0..<100 {
            // Libkmod reads the ELF file; what it finds in .modinfo is this library's affair.
            let information = right.map { line in
                String(decoding: mutated(Array(line.utf8), using: &random).filter { $0 != 0 }, as: UTF8.self)
            }
            try fake.write(ModuleImage.bytes(information), to: "kvm_user.ko")
            if let file = try? ModuleFile(at: fake.tree.path("kvm_user.ko")) {
                _ = (file.release, file.dependencies, file.parameters.map(\.type))
            }
        }
    }
}
