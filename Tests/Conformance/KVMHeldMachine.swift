// SPDX-License-Identifier: Apache-2.0
//
// A virtual machine that lasts as long as the test process, so that KVM's static keys are switched once.

import KVM

/// Keeps one virtual machine with one vCPU for the life of the process.
///
/// The first virtual machine of a system, and the first vCPU without a local APIC, patch the running kernel's code
/// (`preempt_notifier_key`, `kvm_has_noapic_vcpu`), and so does the end of the last one. QEMU 7.2's multi-threaded TCG
/// can keep a stale translation of a patched instruction; all CPUs of the lab then spin in the scheduler. A test run
/// that makes a hundred virtual machines one after the other met that twice in three runs.
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
