// SPDX-License-Identifier: Apache-2.0
//
// A POSIX thread: for work that blocks in a system call, a vCPU's run above all.

import Glibc
public import SystemPackage

/// A thread that runs one closure, to be waited for with ``join()`` or let go with ``detach()``.
public struct NativeThread: ~Copyable, Sendable {
    private let thread: pthread_t

    /// Starts a thread. C: `pthread_create`.
    ///
    /// - Parameter body: runs on it.
    /// - Throws: errno: EAGAIN if no thread is to be had.
    public init(_ body: @escaping @Sendable () -> Void) throws(Errno) {
        // SAFETY: the thread takes this reference over; where there is none, it is given back below.
        let argument = unsafe Unmanaged.passRetained(Body(body))
        var thread = pthread_t()
        let error = unsafe pthread_create(
            &thread, nil,
            { argument in
                if let argument = unsafe argument {
                    unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }, argument.toOpaque())
        guard error == 0 else {
            unsafe argument.release()
            throw Errno(rawValue: error)
        }
        self.thread = thread
    }

    /// Sends a signal to the thread, which must not have been joined. C: `pthread_kill`.
    ///
    /// - Parameter number: one that the process has a handler for; without SA_RESTART it ends a blocking call.
    public func signal(_ number: CInt) {
        pthread_kill(thread, number)
    }

    /// Waits until the closure has returned. C: `pthread_join`.
    public consuming func join() {
        pthread_join(thread, nil)
    }

    /// Lets the thread end when it likes. C: `pthread_detach`.
    public consuming func detach() {
        pthread_detach(thread)
    }

    /// What pthread_create's one pointer points at.
    private final class Body {
        let run: @Sendable () -> Void

        init(_ run: @escaping @Sendable () -> Void) {
            self.run = run
        }
    }
}
