// SPDX-License-Identifier: Apache-2.0
//
// The single checks of a machine report: first what guests need now.

import CLinuxSystem
import SystemPackage

/// The machine under examination.
struct ExaminedMachine {
    let tree: SystemTree
    let kvm: KVMProbe
    let searchPath: String
    /// How this program is started.
    let command: String
    let release: KernelRelease?

    /// The oldest and the newest series that the module is tested on.
    static let testedSeries = (oldest: "6.1", newest: "6.12")

    init(tree: SystemTree, kvm: KVMProbe, searchPath: String, command: String) {
        self.tree = tree
        self.kvm = kvm
        self.searchPath = searchPath
        self.command = command
        release = KernelRelease(of: tree)
    }

    var processor: MachineCheck {
        if let virtualization = ProcessorVirtualization(of: tree) {
            return .ok("CPU virtualisation", virtualization.rawValue)
        }
        return .missing(
            "CPU virtualisation", "neither SVM nor VT-x",
            "enable it in the firmware or the hypervisor above; the lab (\(command) lab run) works without")
    }

    var kernel: MachineCheck {
        let name = "kernel"
        guard let release, let oldest = KernelRelease(Self.testedSeries.oldest),
            let newest = KernelRelease(Self.testedSeries.newest)
        else { return .missing(name, "/proc/sys/kernel/osrelease cannot be read", "mount /proc") }
        if release < oldest {
            return .missing(name, "\(release) is older than \(oldest)", "start a kernel from \(oldest) to \(newest)")
        }
        if newest < release {
            return .note(name, "\(release) is newer than \(newest), the newest tested", "expect to adapt kmod/glue.c")
        }
        return .ok(name, "\(release), within \(oldest) to \(newest)")
    }

    var kvmModules: MachineCheck {
        let part = ProcessorVirtualization(of: tree)?.moduleName ?? "kvm_amd or kvm_intel"
        let states = ["kvm", part].map { ModuleState(of: $0, in: tree) }
        let detail = states.map { "\($0.name) \($0.phase.rawValue)" }.joined(separator: ", ")
        if states.allSatisfy(\.isUsable) { return .ok("KVM modules", detail) }
        return .missing("KVM modules", detail, ifLoading("sudo \(command) module load loads them"))
    }

    var node: MachineCheck {
        let name = "/dev/kvm"
        let access: NodeAccess
        do throws(Errno) {
            access = try NodeAccess(of: tree.path("dev/kvm"))
        } catch {
            return .missing(name, "\(error)", ifLoading("load KVM's modules; in a container, pass the node in"))
        }
        let group = access.groupName ?? String(access.group)
        let detail = "mode \(String(access.mode, radix: 8)), user \(access.user), group \(group)"
        if access.isUsable { return .ok(name, detail) }
        return .missing(name, "\(detail): not for this user", "join its group: sudo usermod -aG \(group) $USER")
    }

    var version: MachineCheck {
        switch kvm.version {
        case .yes(12): .ok("KVM API", "version 12")
        case .yes(let other): .missing("KVM API", "version \(other), not 12", "use Linux's own KVM")
        case .no(let error): .missing("KVM API", "/dev/kvm: \(error)", "see /dev/kvm above")
        case .notAsked: .missing("KVM API", "not asked", "see /dev/kvm above")
        }
    }

    var virtualMachine: MachineCheck {
        switch kvm.machine {
        case .yes: .ok("KVM_CREATE_VM", "works")
        case .no(let error):
            .missing("KVM_CREATE_VM", "\(error)", "the kernel log says why; is another hypervisor in use?")
        case .notAsked: .missing("KVM_CREATE_VM", "not asked", "see KVM API above")
        }
    }

    var module: MachineCheck {
        let name = ForwardingModule.name
        let state = ModuleState(of: name, in: tree)
        guard state.isUsable else {
            return .missing(name, state.phase.rawValue, ifLoading("sudo \(command) module load"))
        }
        guard let type = ForwardingModule.deviceType(state) else {
            return .missing(
                name, "\(state.phase.rawValue), but sysfs shows no device_type", ifLoading("unload it, load this one"))
        }
        let version = state.version.map { " \($0)" } ?? ""
        return .ok(name, "\(state.phase.rawValue)\(version), device type \(type)")
    }

    var device: MachineCheck {
        let name = "KVM_CREATE_DEVICE_TEST"
        return switch kvm.device {
        case .yes: .ok(name, "KVM makes devices of the type")
        case .no(let error):
            .missing(name, "\(error)", ifLoading("another module may have the type: load with another device_type"))
        case .notAsked: .missing(name, "not asked", "see above: it takes KVM and \(ForwardingModule.name)")
        }
    }

    // MARK: - What building and loading the module takes

    /// A remedy that loads something or builds what is to be loaded, or where it says why nothing can be loaded.
    private func ifLoading(_ remedy: String) -> String {
        moduleSupport.verdict == .ok ? remedy : "nothing can be loaded now: see loadable modules below"
    }

    var moduleSupport: MachineCheck {
        let name = "loadable modules"
        guard tree.exists("proc/modules") else {
            return .note(name, "the kernel has none", "use a kernel with CONFIG_MODULES, or the lab")
        }
        if (try? tree.text("proc/sys/kernel/modules_disabled")) == "1" {
            return .note(name, "kernel.modules_disabled is 1: nothing more can be loaded", "restart the machine")
        }
        return .ok(name, "yes")
    }

    var signatures: MachineCheck {
        let name = "module signatures"
        let sign = "sign kvm_user.ko with an enrolled key, or switch secure boot off"
        let secureBoot = isSecureBoot ? "secure boot on" : "secure boot off"
        if let lockdown = Lockdown(of: tree), lockdown != .none {
            return .note(name, "\(secureBoot), lockdown \(lockdown.rawValue): signed modules only", sign)
        }
        if (try? tree.text("sys/module/module/parameters/sig_enforce")) == "Y" {
            return .note(name, "\(secureBoot), module.sig_enforce is on: signed modules only", sign)
        }
        return .ok(name, "\(secureBoot), not enforced")
    }

    var kprobes: MachineCheck {
        let name = "kprobes"
        let enable = "kvm_user finds KVM's functions with one: use a kernel with CONFIG_KPROBES"
        if Lockdown(of: tree) == .confidentiality { return .note(name, "forbidden by lockdown", enable) }
        if tree.exists("sys/kernel/debug/kprobes") { return .ok(name, "listed in debugfs") }
        switch kprobesConfiguration {
        case true?: return .ok(name, "CONFIG_KPROBES=y")
        case false?: return .note(name, "CONFIG_KPROBES is not set", enable)
        case nil: break
        }
        if let symbols = try? tree.bytes("proc/kallsyms"), !symbols.isEmpty {
            return symbols.holds(" register_kprobe\n")
                ? .ok(name, "register_kprobe is in /proc/kallsyms")
                : .note(name, "register_kprobe is not in /proc/kallsyms", enable)
        }
        return .note(name, "cannot be told", "mount debugfs, or read the kernel's configuration")
    }

    var headers: MachineCheck {
        guard let release else { return .note("kernel headers", "the kernel's release is not known") }
        let folder = "lib/modules/\(release)/build"
        if tree.exists("\(folder)/Makefile") { return .ok("kernel headers", "/\(folder)") }
        return .note(
            "kernel headers", "/\(folder) is not there",
            ifLoading("to build kvm_user here: apt install linux-headers-\(release)"))
    }

    func moduleFile(_ file: Result<ModuleFile, ModuleError>?) -> MachineCheck {
        let name = "kvm_user.ko"
        let build = ifLoading("make -C kmod KDIR=/lib/modules/\(release?.description ?? "$(uname -r)")/build")
        return switch file {
        case nil: .note(name, "not built for this kernel", build)
        case .failure(let error)?: .note(name, error.cause, error.remedy)
        case .success(let file)?:
            if file.release == release?.description {
                .ok(name, "\(file.path), vermagic \(file.vermagic)")
            } else {
                .note(name, "\(file.path) is for \(file.release), running \(release?.description ?? "?")", build)
            }
        }
    }

    // MARK: - What is good to have

    var memoryControl: MachineCheck {
        let name = "memory cgroup"
        let remedy = "without it the memory of devices is not bounded per VMM: use cgroup v2 with its memory controller"
        guard let controllers = try? tree.text("sys/fs/cgroup/cgroup.controllers") else {
            return .note(name, "cgroup v2 is not at /sys/fs/cgroup", remedy)
        }
        if controllers.split(separator: " ").contains("memory") { return .ok(name, "v2, memory controller on") }
        return .note(name, "v2 without its memory controller", remedy)
    }

    func program(_ program: String, package: String) -> MachineCheck {
        let folders = searchPath.split(separator: ":").filter { $0.hasPrefix("/") }
        if let folder = folders.first(where: { tree.exists("\($0.dropFirst())/\(program)") }) {
            return .ok("lab: \(program)", "\(folder)/\(program)")
        }
        return .note("lab: \(program)", "not in PATH", "for the lab: make deps, which fetches \(package)")
    }

    func virtme(missing path: FilePath?) -> MachineCheck {
        let name = "lab: virtme-ng"
        guard let path else { return .ok(name, "in the lab's cache") }
        return .note(name, "not at \(path)", "for the lab: make deps, which fetches it")
    }

    /// The EFI variable: four bytes of attributes, then 1 if secure boot is on.
    private var isSecureBoot: Bool {
        let path = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        guard let bytes = try? tree.bytes(path), bytes.count == 5 else { return false }
        return bytes[4] == 1
    }

    /// What the distribution's copy of the configuration says; nil if there is none.
    private var kprobesConfiguration: Bool? {
        guard let release, let text = try? tree.bytes("boot/config-\(release)") else { return nil }
        return text.holds("\nCONFIG_KPROBES=y\n")
    }
}

extension [UInt8] {
    /// Whether `text` is somewhere in these bytes. C: `memmem`.
    fileprivate func holds(_ text: StaticString) -> Bool {
        unsafe withUnsafeBytes { bytes in
            guard let start = bytes.baseAddress else { return false }
            return unsafe clinux_contains(start, bytes.count, text.utf8Start, text.utf8CodeUnitCount)
        }
    }
}
