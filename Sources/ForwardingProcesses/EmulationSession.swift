// SPDX-License-Identifier: Apache-2.0
//
// The emulation process from beginning to end: find the VMM, get the device, serve it, count.

public import DeviceEmulation
import Glibc
public import LinuxSystem
public import Logging
import MMIOForwarding
public import ReferenceDevices
import Synchronization
public import SystemPackage

/// One device, emulated for the VMM that hands it over.
public struct EmulationSession: Sendable {
    /// The device.
    public let device: ReferenceDevice
    /// Threads that serve it.
    public let threads: Int
    /// Requests that a thread takes at once, at most.
    public let batch: Int
    /// How its requests come.
    public let delivery: RequestDelivery

    /// Plans a session.
    ///
    /// - Parameters:
    ///   - device: what to emulate.
    ///   - threads: how many threads serve it, 1 or more; with a ring it is one.
    ///   - batch: how many requests a thread takes at once, 1 or more.
    ///   - delivery: how requests come.
    public init(_ device: ReferenceDevice, threads: Int, batch: Int, delivery: RequestDelivery = .init()) {
        self.device = device
        self.threads = delivery.usesRing ? 1 : max(1, threads)
        self.batch = max(1, batch)
        self.delivery = delivery
    }

    /// What came of a session.
    public struct Report: Hashable, Sendable {
        /// What the servers did.
        public let counters: ServerCounters
        /// Why they stopped.
        public let end: ServerEnd
    }

    /// Serves the device until the virtual machine is gone; call it before the process has other threads.
    ///
    /// SIGINT and SIGTERM end it once each thread has replied to what it had taken.
    ///
    /// - Parameters:
    ///   - path: where the VMM waits.
    ///   - limit: how long to wait for a VMM that is not there yet, and then for its device.
    ///   - observer: sees every request with its reply, on the threads that serve.
    ///   - logger: is told what happens.
    /// - Returns: what came of it.
    /// - Throws: ``HandoverError``; errno of the emulation descriptor.
    public func run(
        at path: FilePath, waiting limit: Duration, observer: RequestObserver? = nil, logger: Logger
    ) throws -> Report {
        let socket = try Self.connect(to: path, within: limit, logger)
        let handover = try Self.receive(from: socket, at: path, within: limit)
        logger.info("got the device", metadata: ["device": "\(device.name)", "socket": "\(path)"])
        let signals = try SignalDescriptor(taking: [SIGINT, SIGTERM])
        let report = try serve(handover, until: signals, observer: observer, logger)
        // Held until now: its end tells the VMM that this process is gone.
        withExtendedLifetime(socket) {}
        return report
    }

    /// Serves the device for an ``EmulationSupervisor`` that is this process's parent, until the virtual machine or
    /// the parent is gone; call it before the process has other threads.
    ///
    /// - Parameters:
    ///   - socket: connected to the supervisor.
    ///   - logger: is told what happens.
    /// - Returns: what came of it, the processes before this one included.
    /// - Throws: errno of the socket, the record and the emulation descriptor.
    public func run(supervisedOver socket: borrowing UnixSocket, logger: Logger) throws -> Report {
        let record = try SupervisedRecord(receivingFrom: socket)
        let handover = try Handover(receivingFrom: socket)
        let signals = try SignalDescriptor(taking: [SIGINT, SIGTERM])
        return try serve(
            handover, until: signals, or: socket.descriptor.rawValue, recordingIn: Box(record.file), logger)
    }

    /// Takes what the VMM hands over, for which it has a second at least.
    static func receive(
        from socket: borrowing UnixSocket, at path: FilePath, within limit: Duration
    ) throws(HandoverError) -> Handover {
        do throws(Errno) {
            let milliseconds = CInt(min(max(limit, .seconds(1)) / .milliseconds(1), Double(CInt.max)))
            guard try waitForAny(of: [socket.descriptor.rawValue], milliseconds: milliseconds)[0] else {
                throw .timedOut
            }
            return try Handover(receivingFrom: socket)
        } catch {
            throw HandoverError(action: .receive, path: path, errno: error)
        }
    }

    /// Connects, trying again while there is nobody; after a second it says what it waits for.
    static func connect(
        to path: FilePath, within limit: Duration, _ logger: Logger
    ) throws(HandoverError) -> UnixSocket {
        let begin = ContinuousClock.now
        let end = begin + limit
        var isSilent = true
        while true {
            do throws(Errno) {
                return try UnixSocket(connectingTo: path)
            } catch {
                let mayCome = error == .noSuchFileOrDirectory || error == .connectionRefused
                guard mayCome, ContinuousClock.now < end else {
                    throw HandoverError(action: .connect, path: path, errno: error)
                }
            }
            if isSilent, ContinuousClock.now >= begin + .seconds(1) {
                logger.notice("waiting for a VMM at \(path)")
                isSilent = false
            }
            usleep(20_000)
        }
    }

    /// Serves until a signal comes, or something else that can be waited for.
    private func serve(
        _ handover: consuming Handover, until signals: borrowing SignalDescriptor, or other: CInt? = nil,
        recordingIn file: Box<OwnedDescriptor>? = nil, observer: RequestObserver? = nil, _ logger: Logger
    ) throws -> Report {
        let emulation = handover.emulation
        var line: EventInterruptLine?
        if let interrupt = handover.interrupt { line = EventInterruptLine(interrupt) }
        // Unbuffered: a process that is killed has lost nothing that it had sent.
        let transmit: @Sendable (UInt8) -> Void = { _ = try? FileDescriptor.standardOutput.writeAll([$0]) }
        return try serve(
            device.make(.init(interrupt: line, transmit: transmit)), on: emulation, until: signals, or: other,
            recordingIn: file, observer, logger)
    }

    private func serve(
        _ device: some MMIODevice & Sendable, on emulation: borrowing EmulationDescriptor,
        until signals: borrowing SignalDescriptor, or other: CInt?, recordingIn file: Box<OwnedDescriptor>?,
        _ observer: RequestObserver?, _ logger: Logger
    ) throws -> Report {
        var record: DeviceRecord?
        if let file {
            let depth = try emulation.information().queueDepth
            record = try DeviceRecord(in: file.value, of: device, queueDepth: Int(depth))
        }
        if let coalescing = delivery.coalescing {
            try emulation.setCoalescing(stores: coalescing.stores, for: coalescing.time)
        }
        let shared = SharedDevice(device, record: record)
        let stopper = try Stopper(on: [signals.descriptor.rawValue] + (other.map { [$0] } ?? [])) { shared.stop() }
        let end = Result { try run(threads, shared, on: emulation, observer, logger) }
        stopper.end()
        // Obeyed: it must not end the process before the report.
        while signals.take() != nil {}
        return Report(counters: shared.counters, end: try end.get())
    }

    /// Runs that many servers, each on a thread of its own, until all have returned.
    ///
    /// - Returns: why the first of them did.
    private func run<Device: MMIODevice>(
        _ count: Int, _ shared: SharedDevice<Device>, on emulation: borrowing EmulationDescriptor,
        _ observer: RequestObserver?, _ logger: Logger
    ) throws -> ServerEnd {
        let thread = try start(shared, on: try emulation.duplicate(), observer, logger)
        let rest = count > 1 ? Result { try run(count - 1, shared, on: emulation, observer, logger) } : nil
        // Without all of its threads the device must not go on.
        if case .failure = rest { shared.stop() }
        let end = try thread.wait()
        _ = try rest?.get()
        return end
    }

    private func start<Device: MMIODevice>(
        _ shared: SharedDevice<Device>, on emulation: consuming EmulationDescriptor, _ observer: RequestObserver?,
        _ logger: Logger
    ) throws -> ServerThread {
        guard delivery.usesRing else { return try serve(shared, on: emulation, observer, logger) }
        return try serve(shared, on: try RequestRing(emulation, spins: Self.spins), observer, logger)
    }

    /// How often to look at the ring before sleeping. With one CPU nobody could put anything there meanwhile.
    private static var spins: Int { sysconf(CInt(_SC_NPROCESSORS_ONLN)) > 1 ? 2000 : 0 }

    private func serve<Device: MMIODevice>(
        _ shared: SharedDevice<Device>, on transport: consuming some RequestTransport & ~Copyable & Sendable,
        _ observer: RequestObserver?, _ logger: Logger
    ) throws(Errno) -> ServerThread {
        guard delivery.usesShadow else {
            return try DeviceServer(
                shared, on: RequestsOnly(transport), batch: batch, observer: observer, logger: logger
            ).start()
        }
        return try DeviceServer(shared, on: transport, batch: batch, observer: observer, logger: logger).start()
    }
}

/// A thread that waits for a signal, or for the parent's end, on behalf of threads that serve.
private struct Stopper: ~Copyable {
    private let cancelled: Box<EventDescriptor>
    private let thread: NativeThread

    /// Waits until one of the descriptors can be read, and then runs `stop`. They outlive the thread, which end()
    /// waits for.
    init(on descriptors: [CInt], _ stop: @escaping @Sendable () -> Void) throws(Errno) {
        let cancelled = Box(try EventDescriptor())
        let thread = try NativeThread {
            let ready = try? waitForAny(of: [cancelled.value.descriptor.rawValue] + descriptors)
            if let ready, !ready[0] { stop() }
        }
        self.cancelled = cancelled
        self.thread = thread
    }

    /// Ends the wait.
    consuming func end() {
        // An eventfd of this process takes a 1.
        try? cancelled.value.signal()
        thread.join()
    }
}
