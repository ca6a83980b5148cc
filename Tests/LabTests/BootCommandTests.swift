// SPDX-License-Identifier: Apache-2.0
//
// The VM's command line, the script inside it, and where the cache is.

import SystemPackage
import Testing

@testable import Lab

@Suite("Boot command")
struct BootCommandTests {
    private static func arguments(_ change: (inout LabConfiguration) -> Void = { _ in }) -> [String] {
        var configuration = LabConfiguration(kernel: .series("6.1"), directory: "/home/dev/mmiofd")
        change(&configuration)
        return BootCommand(configuration: configuration, image: "/c/kernels/6.1/boot/vmlinuz-6.1")
            .arguments(running: "/c/run/lab.1/command", standardError: "/c/run/lab.1/stderr")
    }

    private static func value(of option: String, in arguments: [String]) -> String? {
        arguments.firstIndex(of: option).map { arguments[$0 + 1] }
    }

    @Test("The host's /dev/kvm is used only when asked for")
    func kvm() {
        #expect(Self.arguments().contains("--disable-kvm"))
        #expect(Self.value(of: "-cpu", in: Self.arguments()) == "max")
        let kvm = Self.arguments { $0.accelerator = .kvm }
        #expect(!kvm.contains("--disable-kvm"))
        #expect(Self.value(of: "-cpu", in: kvm) == "host")
    }

    @Test("An oops ends the VM, and the console keeps every line")
    func kernelParameters() {
        let arguments = Self.arguments { $0.kernelParameters = ["idle=poll"] }
        let parameters = zip(arguments, arguments.dropFirst()).filter { $0.0 == "--kopt" }.map(\.1)
        for parameter in ["oops=panic", "panic=-1", "printk.devkmsg=on", "idle=poll"] {
            #expect(parameters.contains(parameter))
        }
        // Without it virtme-ng boots with `quiet`.
        #expect(arguments.contains("--show-boot-console") && arguments.contains("--verbose"))
    }

    @Test("A kernel with checkers gets their parameters and patience, Debian's get none of it")
    func debugKernelParameters() {
        let patience = "rcupdate.rcu_cpu_stall_timeout=120"
        let kasan = Self.arguments { $0.kernel = LabKernel("kasan") }
        #expect(kasan.contains("kasan_multi_shot") && kasan.contains("no5lvl") && kasan.contains(patience))
        let kcsan = Self.arguments { $0.kernel = LabKernel("kcsan") }
        #expect(!kcsan.contains("kasan_multi_shot") && kcsan.contains(patience))
        #expect(!Self.arguments().contains(patience))
    }

    @Test("Every kernel boots through an initramfs, whether its 9p is a module or not")
    func initramfs() {
        #expect(Self.arguments().contains("--force-initramfs"))
    }

    @Test("One's own QEMU arguments come where they win: after the others, before the accelerator")
    func qemuOptions() {
        let arguments = Self.arguments { $0.qemuOptions = ["-icount", "shift=0,sleep=off"] }
        #expect(arguments.suffix(4) == ["-icount", "shift=0,sleep=off", "-accel", "tcg,thread=single"])
        #expect(arguments.firstIndex(of: "--qemu-opts")! < arguments.firstIndex(of: "-cpu")!)
        #expect(!arguments[arguments.firstIndex(of: "--qemu-opts")!...].contains { $0.hasPrefix("--k") })
    }

    @Test(
        "A checkout that the VM's own mounts cover is mounted over them",
        arguments: [
            ("/home/dev/mmiofd", false), ("/tmp/mmiofd", false), ("/srv/home/mmiofd", false), ("/var/lib/ci/x", false),
            ("/runner/mmiofd", false), ("/var/tmp/mmiofd", true), ("/run/ci/mmiofd", true), ("/dev/shm/m", true),
        ] as [(FilePath, Bool)])
    func hidden(directory: FilePath, hidden: Bool) {
        let arguments = Self.arguments { $0.directory = directory }
        #expect(Self.value(of: "--rodir", in: arguments) == (hidden ? directory.string : nil))
        #expect(Self.value(of: "--cwd", in: arguments) == directory.string)
    }
}

@Suite("Guest script")
struct GuestScriptTests {
    @Test(
        "The command's words reach it as they are",
        arguments: [
            ("echo", "'echo'"), ("a b", "'a b'"), ("$HOME", "'$HOME'"), ("it's", #"'it'\''s'"#), ("", "''"),
            ("'", #"''\'''"#),
        ])
    func quote(text: String, quoted: String) {
        #expect(GuestScript.quote(text) == quoted)
    }

    @Test("The command runs between the marks, in the checkout, with the caller's PATH, and its status is passed on")
    func order() throws {
        let script = GuestScript(directory: "/tmp/it's here", path: "/opt/swift/usr/bin:/usr/bin")
            .running(["echo", "a b"])
        let lines = script.split(separator: "\n").map(String.init)
        let command = try #require(lines.firstIndex(of: "'echo' 'a b' </dev/null"))
        let directory = try #require(lines.firstIndex(of: #"cd '/tmp/it'\''s here' || exit 125"#))
        let start = try #require(lines.firstIndex { $0.contains(GuestScript.startMark) })
        let end = try #require(lines.firstIndex { $0.contains(GuestScript.endMark) })
        #expect(directory < start && start < command && command < end)
        #expect(lines[command + 1] == "status=$?")
        #expect(lines.last == "exit $status")
        #expect(script.contains("export PATH='/opt/swift/usr/bin:/usr/bin':"))
    }
}

@Suite("Cache")
struct LabCacheTests {
    @Test(
        "The cache is where the scripts look for it",
        arguments: [
            (["HOME": "/home/dev"], "/home/dev/.cache/mmiofd"),
            (["HOME": "/home/dev", "XDG_CACHE_HOME": "/x"], "/x/mmiofd"),
            (["HOME": "/home/dev", "XDG_CACHE_HOME": "/x", "MMIOFD_CACHE": "/m"], "/m"),
            (["HOME": "/home/dev", "XDG_CACHE_HOME": "", "MMIOFD_CACHE": ""], "/home/dev/.cache/mmiofd"),
            (["HOME": "/home/dev", "MMIOFD_CACHE": "../m"], "/src/m"),
        ] as [([String: String], FilePath)])
    func place(environment: [String: String], directory: FilePath) {
        #expect(LabCache(environment: { environment[$0] }, current: "/src/mmiofd").directory == directory)
    }

    @Test("A kernel that is not there is named, with what to do")
    func missing() {
        let cache = LabCache(directory: "/nonexistent/mmiofd")
        #expect(throws: LabError.kernelMissing("6.1", cache: "/nonexistent/mmiofd")) {
            try cache.image(of: LabKernel("6.1"))
        }
        #expect(throws: LabError.imageMissing("./vmlinuz")) { try cache.image(of: LabKernel("./vmlinuz")) }
        #expect(LabError.kernelMissing("6.1", cache: "/c").description.contains("make deps"))
        #expect(LabError.kernelMissing("kcsan", cache: "/c").description.contains("build-debug-kernel kcsan"))
        #expect(LabError.kernelMissing("6.7", cache: "/c").description.contains("6.1, 6.12, kasan, kcsan"))
    }
}
