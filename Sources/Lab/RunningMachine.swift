// SPDX-License-Identifier: Apache-2.0
//
// A VM that runs: its output, its limits, its end.

import Glibc
import LinuxSystem
import SystemPackage

/// A VM and the three streams that come out of it.
struct RunningMachine: ~Copyable {
    private let child: ChildProcess
    private let output: OwnedDescriptor
    private let standardError: OwnedDescriptor
    private let consoleStream: OwnedDescriptor
    private var console = ConsoleLog()
    /// Which streams every process of the VM has closed, which QEMU does by ending.
    private var outputEnded = false
    private var standardErrorEnded = false
    private var consoleEnded = false
    /// Whether nobody takes this process's output any more.
    private var readerGone = false

    /// Takes over a VM.
    init(
        child: ChildProcess, output: consuming OwnedDescriptor, standardError: consuming OwnedDescriptor,
        console: consuming OwnedDescriptor
    ) {
        self.child = child
        self.output = output
        self.standardError = standardError
        consoleStream = console
    }

    deinit {
        // Whatever went wrong, no QEMU stays.
        if !(outputEnded && consoleEnded) { child.signalGroup(SIGKILL) }
        child.wait()
    }

    /// Passes the output on until the VM ends or is ended.
    ///
    /// - Parameters:
    ///   - bootLimit: seconds until the command must have started.
    ///   - timeLimit: seconds from then until it must have ended.
    ///   - log: takes the console.
    ///   - signals: any of them ends the VM.
    mutating func watch(
        bootLimit: Int, timeLimit: Int, log: borrowing OwnedDescriptor, signals: borrowing SignalDescriptor
    ) -> LabResult {
        var (stage, deadline) = (Stage.booting, Deadline(seconds: bootLimit))
        var ending = LabResult.Ending.machineEnded
        while !(outputEnded && consoleEnded) {
            pass(log: log, signals: signals.descriptor.rawValue, waiting: deadline.milliseconds)
            let signal = readerGone ? SIGPIPE : signals.take()
            switch stage {
            case .ending:
                if deadline.hasPassed { child.signalGroup(SIGKILL) }
            case _ where signal != nil || deadline.hasPassed:
                ending = signal.map { .interrupted(signal: Int($0)) } ?? .timeLimitPassed
                child.signalGroup(SIGHUP)
                (stage, deadline) = (.ending, Deadline(seconds: 3))
            case .booting where console.started:
                (stage, deadline) = (.running, Deadline(seconds: timeLimit))
            case .running where console.status != nil:
                (stage, deadline) = (.poweringOff, Deadline(seconds: 30))
            case .booting, .running, .poweringOff:
                break
            }
        }
        drainStandardError()
        console.finish()
        return LabResult(ending, console: console)
    }

    private enum Stage {
        case booting, running, poweringOff, ending
    }

    /// Waits for something to happen and passes on what has come.
    private mutating func pass(log: borrowing OwnedDescriptor, signals: CInt, waiting milliseconds: CInt) {
        // poll(2) ignores negative numbers.
        var events = [
            outputEnded ? -1 : output.rawValue, standardErrorEnded ? -1 : standardError.rawValue,
            consoleEnded ? -1 : consoleStream.rawValue, signals,
        ].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        guard unsafe poll(&events, nfds_t(events.count), milliseconds) > 0 else { return }
        if events[0].revents != 0 { outputEnded = !forward(output.rawValue, to: STDOUT_FILENO) }
        if events[1].revents != 0 { standardErrorEnded = !forward(standardError.rawValue, to: STDERR_FILENO) }
        if events[2].revents != 0 {
            let bytes = readSome(consoleStream.rawValue)
            consoleEnded = bytes == nil
            console.append(bytes ?? [])
            write(bytes ?? [], to: log.rawValue)
        }
    }

    private mutating func drainStandardError() {
        while !standardErrorEnded {
            standardErrorEnded = !forward(standardError.rawValue, to: STDERR_FILENO)
        }
    }

    /// Passes on what waits.
    ///
    /// - Returns: whether more may come.
    private mutating func forward(_ source: CInt, to destination: CInt) -> Bool {
        guard let bytes = readSome(source) else { return false }
        if !write(bytes, to: destination) { readerGone = true }
        return true
    }
}

/// Reads what waits. C: `read`.
///
/// - Returns: bytes, or nil at the end of the stream.
private func readSome(_ descriptor: CInt) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let count = try? systemCall(onInterrupt: .retry) { unsafe read(descriptor, &bytes, bytes.count) }
    guard let count, count > 0 else { return nil }
    return Array(bytes.prefix(count))
}

/// Writes all of it, waiting if the descriptor is a non-blocking one. C: `write`.
///
/// - Returns: whether anybody takes it.
@discardableResult
private func write(_ bytes: [UInt8], to descriptor: CInt) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
        do throws(Errno) {
            let count = try systemCall(onInterrupt: .retry) {
                unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            }
            rest = rest.dropFirst(count)
        } catch .wouldBlock {
            var event = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&event, 1, -1)
        } catch {
            return false
        }
    }
    return true
}

/// A point in time to wait for.
private struct Deadline {
    private let instant: ContinuousClock.Instant

    init(seconds: Int) { instant = .now + .seconds(seconds) }

    var hasPassed: Bool { instant <= .now }

    /// How long from now, for poll(2): rounded up, a day at most.
    var milliseconds: CInt {
        let left = max(.zero, ContinuousClock.now.duration(to: instant))
        return CInt(min(left / .milliseconds(1), 86_400_000).rounded(.up))
    }
}
