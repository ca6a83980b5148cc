// SPDX-License-Identifier: Apache-2.0
//
// Keeps a device emulated: starts the emulation process, and another one whenever it dies.

import DeviceEmulation
import Glibc
package import LinuxSystem
package import Logging
import MMIOForwarding
package import SystemPackage

/// The connection to a VMM, and one emulation process after the other for its device.
///
/// Each process gets a descriptor that the VMM makes when the last one is closed. What the kernel does with accesses
/// meanwhile is the VMM's choice, ``ForwardingVMM``'s `onClose`: with HOLD they wait, and what was not replied to comes
/// again. A `DeviceRecord` in memory of this process tells the next emulation process what the device was, and which
/// of those requests had been carried out. So for a device that saves its state the guest notices nothing but time; one
/// that does not begins anew.
package struct EmulationSupervisor: ~Copyable {
    /// What came of it all.
    package struct Report: Sendable {
        /// What all processes together did, as far as they had written it down, and why it ended.
        package let session: EmulationSession.Report
        /// How many processes were started after the first.
        package let restarts: Int
    }

    private let path: FilePath
    private let limit: Duration
    private let socket: UnixSocket
    private let signals: SignalDescriptor
    private let record: SupervisedRecord
    private let start: (CInt) throws -> ChildProcess
    private let logger: Logger
    /// Connected to the present process, which ends when this does.
    private var link: UnixSocket?
    private var restarts = 0
    private var isStopping = false
    private var isMachineGone = false

    /// How long a descriptor may stay open after its process is gone.
    private static let patience = Duration.seconds(5)

    /// Connects to a VMM; call it before the process has other threads.
    ///
    /// - Parameters:
    ///   - path: where the VMM waits.
    ///   - limit: how long to wait for a VMM that is not there yet, and then for its device.
    ///   - start: starts a process that runs ``EmulationSession/run(supervisedOver:logger:)`` with that socket as its
    ///     standard input.
    ///   - logger: is told what happens.
    /// - Throws: ``HandoverError``; errno of `signalfd` and `memfd_create`.
    package init(
        at path: FilePath, waiting limit: Duration, logger: Logger,
        startingProcesses start: @escaping (CInt) throws -> ChildProcess
    ) throws {
        // First: nothing that is started may be forgotten.
        let signals = try SignalDescriptor(taking: [SIGINT, SIGTERM, SIGCHLD])
        let record = try SupervisedRecord()
        socket = try EmulationSession.connect(to: path, within: limit, logger)
        self.signals = signals
        self.record = record
        self.path = path
        self.limit = limit
        self.start = start
        self.logger = logger
    }

    /// Keeps the device emulated until the virtual machine is gone.
    ///
    /// SIGINT and SIGTERM end it, and the emulation process with it: that has 5 seconds to give the replies that it
    /// owes, or until the next signal.
    ///
    /// - Returns: what came of it.
    /// - Throws: ``HandoverError``; ``SupervisionError`` if processes die faster than they can be of use; errno of what
    ///   it takes to start one.
    package consuming func run() throws -> Report {
        var backoff = RestartBackoff()
        var process = try launch(try EmulationSession.receive(from: socket, at: path, within: limit))
        while true {
            let (begin, commits) = (ContinuousClock.now, try progress().commits)
            let status = try wait(for: process)
            if status == 0 { isMachineGone = true }
            if isMachineGone || isStopping { return try report() }
            let served = try progress().commits != commits
            guard let delay = backoff.delay(served: served, lifetime: ContinuousClock.now - begin) else {
                throw SupervisionError(status: status)
            }
            logger.warning(
                "the emulation process died, starting another one",
                metadata: ["process": "\(process.process)", "status": "\(status)", "delay": "\(delay)"])
            try pause(delay)
            guard let next = try launchAnother() else { return try report() }
            process = next
            restarts += 1
        }
    }

    private func progress() throws -> (commits: UInt64, counters: ServerCounters) {
        try DeviceRecord.progress(in: record.file)
    }

    private func report() throws -> Report {
        let end: ServerEnd = isStopping ? .stopped : .machineGone
        return Report(session: .init(counters: try progress().counters, end: end), restarts: restarts)
    }

    // MARK: Processes

    /// Starts a process for the device, and keeps no copy of its descriptor.
    private mutating func launch(_ handover: consuming Handover) throws -> ChildProcess {
        let pair = try UnixSocket.pair()
        let here = pair.first
        let there = pair.second
        let process = try start(there.descriptor.rawValue)
        logger.info("started an emulation process", metadata: ["process": "\(process.process)"])
        // It has not read anything yet, but what is here has room in the socket.
        try record.send(over: here)
        try handover.pass(over: here)
        link = consume here
        return process
    }

    /// Waits until a process has ended, and passes signals to end on to it.
    ///
    /// - Returns: its exit status; 128 + n if signal n ended it.
    private mutating func wait(for process: ChildProcess) throws -> Int32 {
        var deadline: ContinuousClock.Instant?
        while true {
            if let status = process.statusIfEnded() { return status }
            let isLate = deadline.map { ContinuousClock.now >= $0 } ?? false
            if isLate { process.signalGroup(SIGKILL) }
            let ready = try waitForAny(
                of: [signals.descriptor.rawValue], milliseconds: deadline == nil || isLate ? -1 : 100)
            guard ready[0], takeEndingSignal() else { continue }
            process.signalGroup(deadline == nil ? SIGTERM : SIGKILL)
            deadline = deadline ?? ContinuousClock.now + Self.patience
        }
    }

    /// Takes all signals that have come.
    ///
    /// - Returns: whether one of them was to end all this.
    private mutating func takeEndingSignal() -> Bool {
        var isEnding = false
        while let signal = signals.take() {
            if signal != SIGCHLD { isEnding = true }
        }
        if isEnding { isStopping = true }
        return isEnding
    }

    /// Waits, but for no longer than it takes a signal to come.
    private mutating func pause(_ duration: Duration) throws {
        let end = ContinuousClock.now + duration
        while !isStopping, ContinuousClock.now < end {
            if try waitForAny(of: [signals.descriptor.rawValue], milliseconds: 10)[0] { _ = takeEndingSignal() }
        }
    }

    // MARK: Descriptors

    /// Starts a process on another descriptor.
    ///
    /// - Returns: nil if there is none to be had any more, or nobody wants one.
    private mutating func launchAnother() throws -> ChildProcess? {
        let end = ContinuousClock.now + Self.patience
        while !isStopping {
            switch try answer() {
            case .here(let handover): return try launch(handover)
            case .gone:
                isMachineGone = true
                return nil
            case .busy:
                // The kernel may close a descriptor a little after its process, and another process may have it.
                guard ContinuousClock.now < end else {
                    throw HandoverError(action: .receive, path: path, errno: .resourceBusy)
                }
                try pause(.milliseconds(10))
            case .unanswered: break
            }
        }
        return nil
    }

    /// What the VMM says.
    private enum Answer: ~Copyable {
        case here(Handover)
        /// The device still has a descriptor.
        case busy
        /// The VMM is gone.
        case gone
        /// A signal came first.
        case unanswered
    }

    /// Asks the VMM for another descriptor.
    private mutating func answer() throws -> Answer {
        do throws(Errno) {
            try Handover.requestAnother(over: socket)
            while true {
                let ready = try waitForAny(of: [socket.descriptor.rawValue, signals.descriptor.rawValue])
                if ready[0] { return .here(try Handover(receivingFrom: socket)) }
                if takeEndingSignal() { return .unanswered }
            }
        } catch {
            switch error {
            case .resourceBusy: return .busy
            case .connectionReset, .brokenPipe: return .gone
            default: throw HandoverError(action: .receive, path: path, errno: error)
            }
        }
    }
}

/// Emulation processes that died one after the other.
package struct SupervisionError: Error, Hashable, Sendable, CustomStringConvertible {
    /// How the last one ended: its exit status, or 128 + n after signal n.
    package let status: Int32

    package var description: String {
        "\(RestartBackoff.limit) emulation processes in a row died before they had served anything, the last one with "
            + "status \(status); see what they say with --log-level debug, or run the device without --reattach"
    }
}
