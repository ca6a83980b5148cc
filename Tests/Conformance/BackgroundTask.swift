// SPDX-License-Identifier: Apache-2.0
//
// Something that blocks, on a thread of its own.

import Glibc
import LinuxSystem
import Synchronization

/// Runs a closure on a thread, and gives what it returned or threw.
final class BackgroundTask<Value: Sendable>: Sendable {
    private let outcome: Outcome
    private let thread: Mutex<NativeThread?>

    /// Starts it.
    init(_ body: @escaping @Sendable () throws -> Value) throws {
        // SAFETY: the handler does nothing; it is there so that the signal ends a blocking call.
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in }
        _ = unsafe sigaction(SIGUSR2, &action, nil)

        let outcome = Outcome()
        self.outcome = outcome
        thread = Mutex(
            try NativeThread {
                // Swift Testing's threads block all signals, and a new thread begins with its maker's mask.
                var signals = sigset_t()
                _ = unsafe sigemptyset(&signals)
                _ = unsafe sigaddset(&signals, SIGUSR2)
                _ = unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
                let result = Result { try body() }
                outcome.result.withLock { $0 = result }
            })
    }

    /// Whether it has returned or thrown.
    var hasEnded: Bool { outcome.result.withLock { $0 != nil } }

    /// Ends a blocking call that it is in.
    func interrupt() {
        thread.withLock { $0?.signal(SIGUSR2) }
    }

    /// Waits for it, once.
    func join() throws -> Value {
        if let thread = thread.withLock({ $0.take() }) { thread.join() }
        guard let result = outcome.result.withLock({ $0 }) else { throw CancellationError() }
        return try result.get()
    }

    private final class Outcome: Sendable {
        let result = Mutex<Result<Value, any Error>?>(nil)
    }
}
