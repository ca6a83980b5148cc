// SPDX-License-Identifier: Apache-2.0
//
// The VMM's process from beginning to end: wait for the emulation process, hand over, run the guest, judge.

import Glibc
public import LinuxSystem
public import Logging
public import MMIOForwarding
import Synchronization
public import SystemPackage

/// A signal ended a session; everything that it had made is gone.
public struct EndedBySignal: Error, Hashable, Sendable {
    /// The signal's number.
    public let signal: Int32
}

/// One virtual machine, one device, one emulation process.
public struct VMMSession: Sendable {
    /// The device and the vCPUs.
    public let placement: DevicePlacement
    /// What each vCPU runs.
    public let steps: [ProgramStep]
    /// What values begin with.
    public let seed: UInt64
    /// How long an access waits for the emulation process; nil for no limit.
    public let timeout: Duration?
    /// What accesses get while there is no emulation process.
    public let onClose: ClosePolicy

    /// Plans a session.
    ///
    /// - Parameters:
    ///   - placement: the device and the vCPUs.
    ///   - steps: what each vCPU runs; at least one.
    ///   - seed: what values begin with.
    ///   - timeout: how long an access waits for the emulation process; nil for no limit.
    ///   - onClose: what accesses get while there is no emulation process.
    /// - Throws: ``ProgramError`` for a program that cannot run there.
    public init(
        _ placement: DevicePlacement, running steps: [ProgramStep], seed: UInt64, timeout: Duration?,
        onClose: ClosePolicy = .abort
    ) throws(ProgramError) {
        for step in steps {
            for vcpu in 0..<UInt32(placement.vcpus) { _ = try placement.target(step, seed: seed, vcpu: vcpu) }
        }
        self.placement = placement
        self.steps = steps
        self.seed = seed
        self.timeout = timeout
        self.onClose = onClose
    }

    /// What came of a session.
    public struct Report: Sendable {
        /// The emulation process.
        public let peer: UnixSocket.Peer
        /// Whether it was still connected when the guests had ended.
        public let peerStayed: Bool
        /// How many more descriptors it asked for and got, each after the last one had closed.
        public let replacements: Int
        /// What the guests did and saw.
        public let guest: GuestReport
    }

    /// Runs the session; call it before the process has other threads.
    ///
    /// SIGINT and SIGTERM end it, whatever it waits for. vCPUs that wait in the kernel by then end with the process.
    /// SIGTSTP stops the process once all vCPUs are out of the guest, and after SIGCONT they go on.
    ///
    /// - Parameters:
    ///   - path: where the emulation process finds this one. The file goes when it has, or when the session ends.
    ///   - access: who may connect.
    ///   - logger: is told who connects, and when they are gone.
    /// - Returns: what came of it.
    /// - Throws: ``EndedBySignal``; ``HandoverError``; what ``ForwardingVMM`` throws.
    public func run(at path: FilePath, _ access: HandoverSocket.Access, logger: Logger) throws -> Report {
        let signals = try SignalDescriptor(taking: [SIGINT, SIGTERM, SIGTSTP, SIGCONT])
        // Before anybody is let in: what is missing on this machine shows here.
        let capacity = max(placement.memory.count, steps.map(\.loads).max() ?? 0)
        let vmm = try ForwardingVMM(placement, timeout: timeout, onClose: onClose, capacity: capacity)
        let listener = try HandoverSocket(at: path, access)
        logger.info("waiting for an emulation process", metadata: ["socket": "\(path)"])
        var pause = SessionPause(of: vmm, at: signals, logger)
        try pause.obey(until: listener.rawValue)
        let socket = try listener.accept()
        // One that asks and never listens must not hold this process up.
        try socket.setNonBlocking()
        let peer = try socket.peer()
        logger.info(
            "an emulation process connected",
            metadata: ["process": "\(peer.process)", "user": "\(peer.user)", "group": "\(peer.group)"])
        try vmm.handOver(to: socket)
        let run = try GuestRun(vmm, steps, seed: seed)
        let (stayed, replacements) = try wait(for: run, on: vmm, socket, &pause, logger)
        return Report(peer: peer, peerStayed: stayed, replacements: replacements, guest: try run.report())
    }

    /// Waits until the guests have ended; a process that asks for another descriptor meanwhile gets one.
    ///
    /// - Returns: whether the emulation process was connected all the time, and how many more descriptors it got.
    private func wait(
        for run: borrowing GuestRun, on vmm: ForwardingVMM, _ socket: borrowing UnixSocket,
        _ pause: inout SessionPause, _ logger: Logger
    ) throws -> (stayed: Bool, replacements: Int) {
        var replacements = 0
        while try !pause.obey(until: run.ended.descriptor, or: socket.descriptor.rawValue) {
            guard try isServed(vmm, &replacements, over: socket, logger) else {
                try pause.obey(until: run.ended.descriptor)
                return (false, replacements)
            }
        }
        return (true, replacements)
    }

    /// Gives the emulation process what it asks for.
    ///
    /// - Returns: false if there is nothing to be expected of it any more.
    private func isServed(
        _ vmm: ForwardingVMM, _ replacements: inout Int, over socket: borrowing UnixSocket, _ logger: Logger
    ) throws -> Bool {
        do {
            guard try Handover.takeRequest(from: socket) else {
                logger.warning("the emulation process is gone; \(onClose.consequence)")
                return false
            }
            if try vmm.handOverAgain(to: socket) { replacements += 1 }
            return true
        } catch {
            logger.error("the emulation process asked for what it cannot have", metadata: ["error": "\(error)"])
            return false
        }
    }
}

extension ClosePolicy {
    /// What becomes of accesses when nobody will come any more, in words.
    fileprivate var consequence: String {
        switch self {
        case .abort: "loads read all-ones and stores are dropped"
        case .hold: "accesses wait up to the time limit, then loads read all-ones and stores are dropped"
        case .exit: "accesses come to this process, which answers loads with all-ones and drops stores"
        }
    }
}

/// Guests that run on a thread of their own.
private struct GuestRun: ~Copyable {
    /// Can be read when they have ended.
    let ended: Ended
    private let thread: NativeThread

    /// The end and what came of it.
    final class Ended: Sendable {
        let event: EventDescriptor
        let result = Mutex<Result<GuestReport, any Error>?>(nil)

        init() throws(Errno) {
            event = try EventDescriptor()
        }

        var descriptor: CInt { event.descriptor.rawValue }
    }

    init(_ vmm: ForwardingVMM, _ steps: [ProgramStep], seed: UInt64) throws {
        let ended = try Ended()
        let thread = try NativeThread {
            let result = Result { try vmm.run(steps, seed: seed) }
            ended.result.withLock { $0 = result }
            // An eventfd of this process takes a 1.
            try? ended.event.signal()
        }
        self.ended = ended
        self.thread = thread
    }

    /// Waits for the guests' end.
    consuming func report() throws -> GuestReport {
        let ended = ended
        thread.join()
        guard let result = ended.result.withLock({ $0 }) else { throw Errno.canceled }
        return try result.get()
    }
}
