// SPDX-License-Identifier: Apache-2.0
//
// Which threads serve a device, and how they are asked to leave.

import Glibc
import Synchronization

/// The threads that serve one device, and the request to leave.
struct RunningServers: ~Copyable, Sendable {
    private let threads = Mutex<[pthread_t]>([])
    private let stopRequested = Atomic(false)

    /// Whether the servers are to return.
    var isStopping: Bool {
        stopRequested.load(ordering: .acquiring)
    }

    /// Notes that the calling thread serves from here on, and lets the signal through to it: a thread inherits its
    /// mask, and a worker thread of libdispatch, for one, blocks all signals.
    ///
    /// - Returns: the thread's signal mask as it was, for ``leave(restoring:)``.
    func enter() -> sigset_t {
        var wakeUp = sigset_t()
        var before = sigset_t()
        unsafe sigemptyset(&wakeUp)
        unsafe sigaddset(&wakeUp, WakeUpSignal.number)
        unsafe pthread_sigmask(SIG_UNBLOCK, &wakeUp, &before)
        let thread = pthread_self()
        threads.withLock { $0.append(thread) }
        return before
    }

    /// Notes that the calling thread serves no longer; the last thing that a server does.
    func leave(restoring mask: sigset_t) {
        var mask = mask
        unsafe pthread_sigmask(SIG_SETMASK, &mask, nil)
        let thread = pthread_self()
        threads.withLock { threads in
            if let index = threads.firstIndex(of: thread) { threads.remove(at: index) }
        }
    }

    /// Asks all to leave, and waits for all but the calling thread.
    func stop() {
        stopRequested.store(true, ordering: .releasing)
        WakeUpSignal.install()
        while wakeOthers() {
            usleep(1_000)
        }
    }

    /// Signals every server's thread but the calling one; false if there is none.
    private func wakeOthers() -> Bool {
        let caller = pthread_self()
        // Under the lock: a thread in the list cannot have ended.
        return threads.withLock { threads in
            var found = false
            for thread in threads where thread != caller {
                found = true
                pthread_kill(thread, WakeUpSignal.number)
            }
            return found
        }
    }
}

/// The signal that ends a server's wait: SIGURG, which by default does nothing, so that a stray one does no harm.
private enum WakeUpSignal {
    static let number = SIGURG

    /// Installs a handler that does nothing, without SA_RESTART, where there is none.
    static func install() {
        _ = installed
    }

    private static let installed: Void = {
        var current = sigaction()
        // SAFETY: both structures live through the calls; the union's two members are both one pointer.
        guard unsafe sigaction(number, nil, &current) == 0 else { return }
        let handler = unsafe unsafeBitCast(current.__sigaction_handler.sa_handler, to: Int.self)
        guard handler == 0 || handler == 1 else { return }  // SIG_DFL, SIG_IGN
        var mine = sigaction()
        unsafe mine.__sigaction_handler.sa_handler = { _ in }
        _ = unsafe sigaction(number, &mine, nil)
    }()
}
