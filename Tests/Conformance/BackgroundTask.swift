// SPDX-License-Identifier: Apache-2.0
//
// Something that blocks, on a thread of its own.

import CKVM
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
                outcome.thread.withLock { $0 = ckvm_thread_id() }
                let result = Result { try body() }
                outcome.result.withLock { $0 = result }
            })
    }

    /// Whether it has returned or thrown.
    var hasEnded: Bool { outcome.result.withLock { $0 != nil } }

    /// Whether it sleeps in a read, a poll or an ioctl.
    var isBlocked: Bool {
        guard let thread = outcome.thread.withLock({ $0 }),
            let call = try? textOfFile("/proc/self/task/\(thread)/syscall").split(separator: " ").first
        else { return false }
        // By their numbers on x86-64.
        return ["0", "7", "16"].contains(call)
    }

    /// Ends a blocking call that it is in.
    func interrupt() {
        thread.withLock { $0?.signal(SIGUSR2) }
    }

    /// Ends a blocking call that it is in or is about to make; whether it has returned or thrown then.
    func interruptUntilEnded() -> Bool {
        eventually {
            interrupt()
            return hasEnded
        }
    }

    /// Waits for it, once.
    func join() throws -> Value {
        if let thread = thread.withLock({ $0.take() }) { thread.join() }
        guard let result = outcome.result.withLock({ $0 }) else { throw CancellationError() }
        return try result.get()
    }

    private final class Outcome: Sendable {
        let result = Mutex<Result<Value, any Error>?>(nil)
        let thread = Mutex<pid_t?>(nil)
    }
}
