// SPDX-License-Identifier: Apache-2.0
//
// signalfd(2): signals that arrive as something to poll, not as an interruption.

import CLinuxSystem
import Glibc
public import SystemPackage

/// A signalfd: the signals it was made for no longer act on this thread but wait to be taken.
///
/// Make it before other threads start, for a signal goes to any thread that does not block it.
public struct SignalDescriptor: ~Copyable, Sendable {
    /// The signalfd itself, non-blocking, to poll: readable when a signal waits.
    public let descriptor: OwnedDescriptor
    private let signals: [CInt]

    /// Blocks the signals in this thread and makes a descriptor for them. C: `pthread_sigmask`, `signalfd`.
    ///
    /// - Parameter signals: signal numbers; SIGKILL and SIGSTOP cannot be had.
    /// - Throws: errno of signalfd, EMFILE above all.
    public init(taking signals: [CInt]) throws(Errno) {
        var set = Self.set(of: signals)
        _ = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        descriptor = OwnedDescriptor(
            adopting: try systemCall(onInterrupt: .retry) {
                unsafe signalfd(-1, &set, CInt(SFD_CLOEXEC | SFD_NONBLOCK))
            })
        self.signals = signals
    }

    deinit {
        var set = Self.set(of: signals)
        _ = unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
    }

    /// Takes one signal that has arrived. C: `read`.
    ///
    /// - Returns: its number, or nil if none waits.
    public func take() -> CInt? {
        var information = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        let count = unsafe read(descriptor.rawValue, &information, size)
        return count == size ? CInt(truncatingIfNeeded: information.ssi_signo) : nil
    }

    /// Has one of the signals act on the process as if it had not been taken. C: `pthread_sigmask`, `raise`.
    ///
    /// - Parameter signal: its number. With SIGTSTP this returns once the process is continued, or at once where there
    ///   is nobody to continue it (an orphaned process group).
    public func actOn(_ signal: CInt) {
        var set = Self.set(of: [signal])
        _ = unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
        _ = raise(signal)
        _ = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    private static func set(of signals: [CInt]) -> sigset_t {
        var set = sigset_t()
        _ = unsafe sigemptyset(&set)
        for signal in signals { _ = unsafe sigaddset(&set, signal) }
        return set
    }
}
