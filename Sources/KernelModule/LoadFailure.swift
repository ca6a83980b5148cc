// SPDX-License-Identifier: Apache-2.0
//
// From an errno of finit_module(2) to what it means on this machine.

import Glibc
import SystemPackage

/// What was known when a load failed.
struct LoadFailure {
    /// The module's name.
    var name: String
    /// What the kernel answered.
    var errno: Errno
    /// What the file was built for; nil if it was loaded by name.
    var vermagic: String?
    /// What modules of the running kernel say, taken from one of its own; nil if none could be read.
    var runningVermagic: String?
    /// `uname -r`.
    var runningRelease: String
    /// Whether this process is root.
    var isRoot: Bool
    /// Whether the kernel lists the module all the same.
    var isLoaded: Bool
    /// Whether kernel.modules_disabled is set.
    var modulesDisabled: Bool
    /// The lockdown mode, nil if there is none.
    var lockdown: Lockdown?

    /// The failure in words.
    var error: ModuleError {
        let (cause, remedy) = explanation
        return ModuleError(action: "load \(name)", errno: errno, cause: cause, remedy: remedy)
    }

    private var explanation: (cause: String, remedy: String) {
        switch errno {
        case .execFormatError: formatExplanation
        case .notPermitted: permissionExplanation
        case .fileExists where isLoaded:
            ("it is loaded already", "unload it first to load another file or other parameters")
        case .fileExists:
            (
                "the module found the KVM device type number taken, or the kernel has a part of that name",
                "choose another number with the parameter device_type"
            )
        case .noSuchFileOrDirectory where vermagic == nil && name == ForwardingModule.name:
            (
                "it is not installed below /lib/modules/\(runningRelease), and no file was given",
                "build it with make -C kmod and load it in the checkout or by --path, or make -C kmod modules_install"
            )
        case .noSuchFileOrDirectory where vermagic == nil:
            (
                "there is no such module below /lib/modules/\(runningRelease)",
                "install the modules of the running kernel, or run depmod"
            )
        case .noSuchFileOrDirectory:
            (
                "the kernel does not have a symbol that it needs: kvm is not loaded, or is of another kernel",
                "load kvm first; the kernel log names the symbol"
            )
        case Errno(rawValue: ENOKEY), Errno(rawValue: EKEYREJECTED), Errno(rawValue: EBADMSG):
            (
                "it was changed after it was signed, or the kernel takes only modules signed with a key that it has",
                "build it again; under module.sig_enforce, sign it with an enrolled key (scripts/sign-file)"
            )
        case .invalidArgument:
            ("a parameter has a value that it refuses, or the file is damaged", "the kernel log says which")
        case .notSupported where name == ForwardingModule.name:
            (
                "this kernel's KVM does not have a function that it needs, and the kernel log names it",
                "use Linux 6.1 or 6.12 as Debian has them, or the lab"
            )
        case .operationNotSupportedByDevice, .notSupported, Errno(rawValue: EIO):
            (
                "this CPU does not offer what it drives, or the firmware switched it off",
                "enable virtualisation (SVM or VT-x) in the firmware, or use the lab"
            )
        case .resourceBusy:
            ("another load or unload of it is under way, or what it needs is taken", "try again")
        case .noFunction:
            ("this kernel was built without loadable modules", "use a kernel with CONFIG_MODULES, or the lab")
        case .noMemory: ("the kernel has no memory for it", "free some")
        default: ("the kernel refused it", "the kernel log says why")
        }
    }

    private var formatExplanation: (cause: String, remedy: String) {
        let rebuild = "rebuild with make -C kmod KDIR=/lib/modules/\(runningRelease)/build"
        guard let vermagic else { return ("the file below /lib/modules is damaged", "install the kernel again") }
        if vermagic.prefix(while: { $0 != " " }) != runningRelease {
            return ("built for another kernel: vermagic \(vermagic), running \(runningRelease)", rebuild)
        }
        if let runningVermagic, runningVermagic != vermagic {
            return ("built with other options: vermagic \(vermagic), running \(runningVermagic)", rebuild)
        }
        return ("the file is damaged, or its symbol versions are not those of \(runningRelease)", rebuild)
    }

    private var permissionExplanation: (cause: String, remedy: String) {
        if modulesDisabled {
            return ("kernel.modules_disabled is 1: nothing can be loaded until the next start", "restart the machine")
        }
        if let lockdown, lockdown != .none {
            return (
                "the kernel is locked down (\(lockdown.rawValue)), as secure boot does: it takes signed modules only",
                "sign the file with an enrolled key, or switch secure boot off"
            )
        }
        if !isRoot { return ("loading modules takes root (CAP_SYS_MODULE)", "use sudo") }
        return (
            "this root lacks CAP_SYS_MODULE, as in a container, or a security module forbids it",
            "load it on the machine itself"
        )
    }
}
