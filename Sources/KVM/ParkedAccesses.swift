// SPDX-License-Identifier: Apache-2.0
//
// Accesses that a part of the kernel keeps for a vCPU whose run a signal ended, and how they are completed.

/// A part of the kernel that answers guests' accesses, and that leaves one unanswered where a signal comes first.
///
/// KVM then makes the exit of an access that nobody handles, so ``VirtualCPU/run()`` asks those whom
/// ``VirtualMachine/add(_:)`` has named whether the access is theirs. Its callers see ``VirtualCPU/Exit/interrupted``,
/// and the next run waits for the answer first.
public protocol ParkedAccesses: Sendable {
    /// Waits until a vCPU's parked access is complete.
    ///
    /// It must not wait while `immediate_exit` of the vCPU's `struct kvm_run` is set, as KVM_RUN does not, nor beyond
    /// a signal.
    ///
    /// - Parameters:
    ///   - access: the access that the vCPU has exited for.
    ///   - vcpu: the vCPU's ``VirtualCPU/index``.
    /// - Throws: errno of the call, EBUSY if another thread waits for the same access.
    func resume(_ access: VirtualCPU.MemoryAccess, of vcpu: UInt32) throws(KVMError) -> AccessResumption
}

/// What became of an access that a vCPU has exited for.
public enum AccessResumption: Hashable, Sendable {
    /// A parked access is complete: what the load gave, 0 for a store. The vCPU may run on.
    case complete(UInt64)
    /// It was not parked: it is for the virtual machine monitor to answer.
    case notParked
    /// It is not complete yet, and stays parked.
    case interrupted
}
