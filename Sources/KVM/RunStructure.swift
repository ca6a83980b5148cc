// SPDX-License-Identifier: Apache-2.0
//
// struct kvm_run, the page that a vCPU and the kernel share, and the handle that ends KVM_RUN from another thread.

import CKVM
import LinuxSystem
import Synchronization
import SystemPackage

/// The mapping of a vCPU's `struct kvm_run`, and which thread runs the vCPU.
@safe final class RunStructure: Sendable {
    private let mapping: MemoryMapping
    /// Kernel id of the thread that ran the vCPU last; 0 before the first run.
    let thread = Atomic<Int32>(0)

    init(_ mapping: consuming MemoryMapping) {
        self.mapping = mapping
    }

    // SAFETY: the mapping begins with struct kvm_run, is page-aligned, and lives as long as this object.
    var run: UnsafeMutablePointer<kvm_run> {
        unsafe mapping.baseAddress.assumingMemoryBound(to: kvm_run.self)
    }

    // MARK: immediate_exit

    /// What `immediate_exit` is set for; to the kernel every bit is the same.
    private enum ImmediateExit {
        static let request: UInt8 = 1
        static let probe: UInt8 = 2
    }

    /// Has the kernel return at once from KVM_RUN, and from waiting for a parked access.
    func requestExit() {
        unsafe ckvm_run_add_immediate_exit(run, ImmediateExit.request)
    }

    /// The same for the vCPU's own thread, which can take this back and leave another's request.
    func beginProbe() {
        unsafe ckvm_run_add_immediate_exit(run, ImmediateExit.probe)
    }

    /// Undoes ``beginProbe()``.
    func endProbe() {
        unsafe ckvm_run_remove_immediate_exit(run, ImmediateExit.probe)
    }

    /// Notes that all who asked have been obeyed.
    func clearImmediateExit() {
        unsafe ckvm_run_remove_immediate_exit(run, .max)
    }

    // MARK: Parts of the mapping

    /// The `count` bytes at `offset` in the mapping, or nil if they are not all in it.
    func bytes(at offset: UInt64, count: Int) -> UnsafeMutableRawPointer? {
        guard offset <= UInt64(mapping.count), count >= 0, UInt64(count) <= UInt64(mapping.count) - offset else {
            return nil
        }
        return unsafe mapping.baseAddress + Int(offset)
    }

    /// The page of the ring of coalesced stores, or nil where the mapping has none.
    var coalescedRing: UnsafeMutableRawPointer? {
        unsafe bytes(at: UInt64(KVM_COALESCED_MMIO_PAGE_OFFSET * 4096), count: 4096)
    }
}

/// Ends a vCPU's ``VirtualCPU/run()`` from any thread. Made by ``VirtualCPU/interrupter``; may outlive the vCPU.
public struct VirtualCPUInterrupter: Sendable {
    let run: RunStructure

    /// Makes the vCPU's current `run()` return `.interrupted`, or its next one if it is not running now.
    ///
    /// No call is lost, whenever it comes; several before the vCPU notices count as one. If `run()` is just then
    /// returning with another exit, the next `run()` returns `.interrupted` before the guest executes anything.
    ///
    /// It sets `immediate_exit` in `struct kvm_run` and sends the thread SIGRTMIN, whose handler does nothing and
    /// restarts other system calls. C: `tgkill`.
    public func interrupt() {
        // The flag first, then the thread: a thread that is not known yet will see the flag in KVM_RUN.
        run.requestExit()
        let thread = run.thread.load(ordering: .sequentiallyConsistent)
        // ESRCH says that the thread has ended: nobody to wake.
        if thread != 0 { _ = ckvm_kick(thread) }
    }

    /// Installs the signal's handler, once for the process.
    static let isReady: Bool = ckvm_install_kick_handler() == 0
}
