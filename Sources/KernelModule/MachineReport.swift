// SPDX-License-Identifier: Apache-2.0
//
// Everything that a machine has or lacks for guests to run through kvm_user.

public import SystemPackage

/// A machine looked over, from its CPU to the module.
///
/// What guests need now is ``MachineCheck/Verdict/ok`` or ``MachineCheck/Verdict/missing``; what is needed to build or
/// load the module, to bound memory or to run the lab is at worst a ``MachineCheck/Verdict/note``.
public struct MachineReport: Sendable, Hashable {
    /// The findings, in the order in which things depend on each other.
    public let checks: [MachineCheck]

    /// Whether guests can run through the module now: nothing is missing.
    public var runsGuests: Bool { !checks.contains { $0.verdict == .missing } }

    /// Looks over the machine that this runs on; opens /dev/kvm.
    ///
    /// - Parameters:
    ///   - moduleFile: a kvm_user.ko to compare with the running kernel; nil if none is known.
    ///   - searchPath: where programs are, as in the environment's PATH.
    ///   - missingVirtme: where the lab looks for its virtme-ng and it is not; nil if it is there.
    ///   - command: how this program is started, for what to do.
    public init(moduleFile: FilePath?, searchPath: String, missingVirtme: FilePath?, command: String) {
        let state = ModuleState(of: ForwardingModule.name)
        self.init(
            tree: .running, kvm: KVMProbe(deviceType: ForwardingModule.deviceType(state)),
            moduleFile: moduleFile.map { path in
                Result { () throws(ModuleError) in try ModuleFile(at: path) }
            },
            searchPath: searchPath, missingVirtme: missingVirtme, command: command)
    }

    /// Looks over a machine that `tree` tells of.
    ///
    /// - Parameters:
    ///   - tree: its /proc, /sys, /dev, /lib, /boot and programs.
    ///   - kvm: what its /dev/kvm answers.
    ///   - moduleFile: a kvm_user.ko, or why it could not be read; nil if none is known.
    ///   - searchPath: where programs are, as in the environment's PATH.
    ///   - missingVirtme: where the lab looks for its virtme-ng and it is not; nil if it is there.
    ///   - command: how this program is started, for what to do.
    public init(
        tree: SystemTree, kvm: KVMProbe, moduleFile: Result<ModuleFile, ModuleError>?, searchPath: String,
        missingVirtme: FilePath? = nil, command: String = "mmiofd"
    ) {
        let machine = ExaminedMachine(tree: tree, kvm: kvm, searchPath: searchPath, command: command)
        checks = [
            machine.processor, machine.kernel, machine.kvmModules, machine.node, machine.version,
            machine.virtualMachine,
            machine.module, machine.device,
            machine.moduleSupport, machine.signatures, machine.kprobes, machine.headers,
            machine.moduleFile(moduleFile), machine.memoryControl,
            machine.program("qemu-system-x86_64", package: "qemu-system-x86"),
            machine.virtme(missing: missingVirtme),
        ]
    }
}
