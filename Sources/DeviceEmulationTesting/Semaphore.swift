// SPDX-License-Identifier: Apache-2.0
//
// A POSIX semaphore, whose wait a signal ends as it ends a read of the emulation descriptor.

import Glibc
import LinuxSystem
import SystemPackage

/// A counting semaphore. C: `sem_t`.
@safe final class Semaphore: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): sem_t is made for threads, and the address is fixed for life.
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() {
        unsafe semaphore.initialize(to: sem_t())
        unsafe sem_init(semaphore, 0, 0)
    }

    deinit {
        unsafe sem_destroy(semaphore)
        unsafe semaphore.deallocate()
    }

    /// Lets one waiter go.
    func signal() {
        unsafe sem_post(semaphore)
    }

    /// Waits for a signal(); EINTR if a signal handler ran meanwhile. C: `sem_wait`.
    func waitInterruptibly() throws(Errno) {
        try systemCall(onInterrupt: .fail) { unsafe sem_wait(semaphore) }
    }

    /// Waits for a signal(). C: `sem_wait`.
    func wait() {
        while unsafe sem_wait(semaphore) != 0 {}
    }
}
