// SPDX-License-Identifier: Apache-2.0
//
// Where vCPUs wait while their virtual machine is paused.

import Glibc
import LinuxSystem
import SystemPackage

/// A gate that each vCPU's thread passes before it runs the guest, and that a pause closes.
///
/// Whoever closes it has to interrupt those who are inside. C: `pthread_cond_t`.
@safe final class PauseGate: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): everything below the lock changes under it alone.
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let opened = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let emptied: EventDescriptor
    private var isClosed = false
    private var inside = 0
    private var isEmptiedSignalled = false

    init() throws(Errno) {
        emptied = try EventDescriptor()
        unsafe lock.initialize(to: pthread_mutex_t())
        unsafe opened.initialize(to: pthread_cond_t())
        _ = unsafe pthread_mutex_init(lock, nil)
        _ = unsafe pthread_cond_init(opened, nil)
    }

    deinit {
        _ = unsafe pthread_cond_destroy(opened)
        _ = unsafe pthread_mutex_destroy(lock)
        unsafe opened.deallocate()
        unsafe lock.deallocate()
    }

    private func locked(_ body: () -> Void) {
        _ = unsafe pthread_mutex_lock(lock)
        body()
        _ = unsafe pthread_mutex_unlock(lock)
    }

    /// Can be read while the gate is closed and nobody is inside.
    var descriptor: CInt { emptied.descriptor.rawValue }

    /// Waits while the gate is closed, and goes inside.
    func enter() {
        locked {
            while isClosed { _ = unsafe pthread_cond_wait(opened, lock) }
            inside += 1
        }
    }

    /// Comes out.
    func leave() {
        locked {
            inside -= 1
            tellIfEmptied()
        }
    }

    /// Lets nobody in any more.
    func close() {
        locked {
            isClosed = true
            tellIfEmptied()
        }
    }

    /// Lets everybody in again.
    func open() {
        locked {
            isClosed = false
            _ = unsafe pthread_cond_broadcast(opened)
            // Its count is 1: this does not wait.
            if isEmptiedSignalled { _ = try? emptied.wait() }
            isEmptiedSignalled = false
        }
    }

    private func tellIfEmptied() {
        guard isClosed, inside == 0, !isEmptiedSignalled else { return }
        // An eventfd of this process takes a 1.
        try? emptied.signal()
        isEmptiedSignalled = true
    }
}
