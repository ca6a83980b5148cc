// SPDX-License-Identifier: Apache-2.0
//
// A virtual machine that lasts as long as the test process, so that KVM's static keys are switched once.

import KVM

/// Keeps one virtual machine with one vCPU for the life of the process.
///
/// The first virtual machine of a system, and the first vCPU without a local APIC, patch the running kernel's code
/// (`preempt_notifier_key`, `kvm_has_noapic_vcpu`), and so does the end of the last one. Under QEMU 7.2's TCG both runs
/// that made some sixty virtual machines one after the other ended with all CPUs spinning at a two-byte no-op in the
/// scheduler's `finish_task_switch`, which looks like a stale translation of patched code; with one virtual machine
/// held it has not been seen.
final class KVMHeldMachine: Sendable {
    private let vcpu: VirtualCPU

    private init() throws {
        vcpu = try KVMSystem().makeVirtualMachine().makeVirtualCPU(index: 0)
    }

    private static let held = Result { try KVMHeldMachine() }

    /// Opens KVM, after making sure of the lasting virtual machine.
    ///
    /// - Throws: ``KVMError``, whose text says what to do; a machine without KVM fails here, and skips nothing.
    static func system() throws -> KVMSystem {
        _ = try held.get()
        return try KVMSystem()
    }
}
