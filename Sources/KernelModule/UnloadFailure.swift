// SPDX-License-Identifier: Apache-2.0
//
// From an errno of delete_module(2) to what it means on this machine.

import SystemPackage

/// What was known when an unload failed.
struct UnloadFailure {
    /// The module's name.
    var name: String
    /// What the kernel answered.
    var errno: Errno
    /// The module's state after that.
    var state: ModuleState
    /// Processes that hold descriptors of it, as far as they could be found.
    var processes: [DescriptorHolder]
    /// Whether this process is root.
    var isRoot: Bool

    /// The failure in words. EAGAIN, which the kernel answers for a module in use, becomes EBUSY as modprobe has it.
    var error: ModuleError {
        let action = "unload \(name)"
        switch errno {
        case .resourceBusy, .wouldBlock:
            return ModuleError(action: action, errno: .resourceBusy, cause: busyCause, remedy: busyRemedy)
        case .noSuchFileOrDirectory:
            return ModuleError(action: action, errno: errno, cause: "it is not loaded")
        case .notPermitted:
            return ModuleError(
                action: action, errno: errno,
                cause: isRoot
                    ? "this root lacks CAP_SYS_MODULE, or kernel.modules_disabled is 1"
                    : "unloading modules takes root (CAP_SYS_MODULE)",
                remedy: isRoot ? "unload it on the machine itself" : "use sudo")
        case .noFunction:
            return ModuleError(
                action: action, errno: errno, cause: "this kernel cannot unload modules",
                remedy: "use a kernel with CONFIG_MODULE_UNLOAD")
        default:
            return ModuleError(
                action: action, errno: errno, cause: "the kernel refused", remedy: "the kernel log says why")
        }
    }

    private var busyCause: String {
        var users: [String] = []
        if !state.holders.isEmpty { users.append("modules \(state.holders.joined(separator: ", "))") }
        users += processes.map(\.description)
        if !users.isEmpty { return "it is in use by " + users.joined(separator: "; ") }
        if state.phase == .builtIn { return "it is built into the kernel" }
        if state.phase == .coming || state.phase == .going { return "it is \(state.phase.rawValue)" }
        let count = state.referenceCount.map { " (\($0) references)" } ?? ""
        return "it is in use\(count), and no process or module could be found that holds it"
    }

    private var busyRemedy: String {
        if state.phase == .builtIn { return "" }
        if !state.holders.isEmpty || !processes.isEmpty { return "end them first" }
        return isRoot
            ? "a virtual machine whose control descriptor is closed, or a process in another PID namespace, may hold it"
            : "processes of other users show up to root alone: use sudo"
    }
}
