// SPDX-License-Identifier: Apache-2.0
//
// What signals do to a VMM's process: end it, or stop it with its vCPUs out of the guest, and continue it.

import Glibc
import LinuxSystem
import Logging

/// The signals of a session, and the pause that they may have asked for.
struct SessionPause: ~Copyable {
    private let vmm: ForwardingVMM
    private let signals: SignalDescriptor
    private let logger: Logger
    /// When SIGTSTP came; nil while nothing is to be paused.
    private var asked: ContinuousClock.Instant?

    /// Takes over the session's signals.
    init(of vmm: ForwardingVMM, at signals: consuming SignalDescriptor, _ logger: Logger) {
        self.vmm = vmm
        self.signals = signals
        self.logger = logger
    }

    /// Does as signals say until one of two descriptors can be read.
    ///
    /// - Returns: whether it was the first one.
    /// - Throws: ``EndedBySignal``; errno of the wait.
    @discardableResult
    mutating func obey(until one: CInt, or other: CInt? = nil) throws -> Bool {
        let watched = [one, signals.descriptor.rawValue, vmm.pausedDescriptor] + (other.map { [$0] } ?? [])
        while true {
            let ready = try waitForAny(of: watched)
            if ready[0] { return true }
            if ready[1], let signal = signals.take() { try obey(signal) }
            if ready[2] { try stop() }
            if ready.count > 3, ready[3] { return false }
        }
    }

    private mutating func obey(_ signal: CInt) throws {
        switch signal {
        case SIGTSTP where asked == nil:
            asked = .now
            vmm.pause()
        case SIGTSTP: break
        case SIGCONT: goOn()
        default: throw EndedBySignal(signal: signal)
        }
    }

    /// Stops the process until it is continued: all vCPUs are out.
    private mutating func stop() throws {
        guard let start = asked else { return }
        logger.notice(
            "paused, all vCPUs are out of the guest",
            metadata: ["after_ms": "\((ContinuousClock.now - start) / .milliseconds(1))"])
        // What came meanwhile is newer: SIGCONT, say.
        if let signal = signals.take() { try obey(signal) }
        if asked != nil { signals.actOn(SIGTSTP) }
        goOn()
    }

    private mutating func goOn() {
        guard asked != nil else { return }
        asked = nil
        vmm.goOn()
        logger.notice("going on")
    }
}
