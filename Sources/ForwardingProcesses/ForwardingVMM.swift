// SPDX-License-Identifier: Apache-2.0
//
// A small virtual machine monitor: one device, forwarded, and guest programs that check it.

import GuestPrograms
import KVM
public import LinuxSystem
public import MMIOForwarding
import ReferenceDevices
import Synchronization
import SystemPackage

/// A virtual machine whose one device is emulated by whoever gets its emulation descriptor.
public final class ForwardingVMM: Sendable {
    private let guest: GuestMachine
    private let placement: DevicePlacement
    private let control: ControlDescriptor
    private let unforwarded = UnforwardedAccesses()
    /// What the device's interrupt is bound to.
    private let interrupt: Box<EventDescriptor>?
    private let gate: PauseGate
    private let processors: [GuestProcessor]

    /// Makes the virtual machine and its device.
    ///
    /// - Parameters:
    ///   - placement: the device, where it is, and how many vCPUs there are.
    ///   - timeout: how long an access waits for the emulation process; nil for no limit.
    ///   - onClose: what accesses get while there is no emulation process.
    ///   - capacity: loads for which there is room in each program.
    /// - Throws: `KVMError` if there is no KVM to be had, `ForwardingError` if the module is not loaded.
    public init(_ placement: DevicePlacement, timeout: Duration?, onClose: ClosePolicy, capacity: Int) throws {
        let machine = try KVMSystem().makeVirtualMachine()
        control = try ControlDescriptor(in: machine)
        try control.setTimeout(timeout)
        try control.setOnClose(policy: onClose)
        if try control.information().features.contains(.park) { try control.setParking(true) }
        for (id, range) in placement.ranges { try control.setRange(id, to: range) }
        if let gsi = placement.interrupt {
            try machine.makeInterruptControllers()
            let event = Box(try EventDescriptor())
            try machine.assignInterrupt(event.value, gsi: gsi)
            interrupt = event
        } else {
            interrupt = nil
        }
        let guest = try GuestMachine(in: machine, vcpus: placement.vcpus, capacity: capacity)
        self.guest = guest
        self.placement = placement
        let gate = try PauseGate()
        self.gate = gate
        // Under any other policy no access may come here.
        let respond = onClose == .exit ? unforwarded.respond : unexpectedExit
        processors = try (0..<UInt32(placement.vcpus)).map {
            try GuestProcessor($0, in: guest, placement, behind: gate, respond: respond)
        }
    }

    /// Sends the emulation descriptor, and the device's interrupt, and keeps no copy of the former.
    ///
    /// - Parameter socket: connected to the emulation process.
    /// - Throws: `ForwardingError` with EBUSY if the device has an emulation process; errno of the socket.
    public func handOver(to socket: borrowing UnixSocket) throws {
        let emulation = try control.makeEmulationDescriptor()
        try Handover.send(emulation, interrupt: interrupt?.value.descriptor.rawValue, over: socket)
    }

    /// Sends another emulation descriptor, or says that the device still has one.
    ///
    /// - Parameter socket: connected to the emulation process.
    /// - Returns: whether there was another to send.
    /// - Throws: as ``handOver(to:)``, but for EBUSY.
    func handOverAgain(to socket: borrowing UnixSocket) throws -> Bool {
        do {
            try handOver(to: socket)
            return true
        } catch let error as ForwardingError where error.errno == .resourceBusy {
            try Handover.refuse(over: socket)
            return false
        }
    }

    /// Runs programs, one after the other on each vCPU, all vCPUs at once, then reads the device's memory back.
    ///
    /// The calling thread waits meanwhile.
    ///
    /// - Parameters:
    ///   - steps: the programs.
    ///   - seed: what values begin with; another one on each vCPU.
    /// - Returns: what was checked, and what was wrong.
    /// - Throws: ``ProgramError``; `UnexpectedExit` if an access came to this process and the policy is not EXIT; `KVMError`.
    public func run(_ steps: [ProgramStep], seed: UInt64) throws -> GuestReport {
        let start = ContinuousClock.now
        try runOnAll(steps, seed: seed)
        var report = GuestReport()
        for processor in processors { report.merge(processor.report) }
        try readBack(&report)
        report.unforwarded = unforwarded.count
        report.elapsed = ContinuousClock.now - start
        return report
    }

    private func runOnAll(_ steps: [ProgramStep], seed: UInt64) throws {
        let failure = Mutex<(any Error)?>(nil)
        try withThreads(processors) { processor in
            do {
                for step in steps { try processor.run(step, seed: seed) }
            } catch {
                failure.withLock { $0 = $0 ?? error }
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    // MARK: Pausing

    /// Has every vCPU leave the guest, in the middle of an access too where the device can park that.
    ///
    /// Returns at once; ``pausedDescriptor`` can be read when all are out.
    func pause() {
        gate.close()
        for processor in processors { processor.interrupt() }
    }

    /// Lets the vCPUs go on.
    func goOn() {
        gate.open()
    }

    /// Can be read while all vCPUs are out of the guest, and paused.
    var pausedDescriptor: CInt { gate.descriptor }

    // MARK: Reading back

    /// Has the first vCPU read what the device holds, and compares it with what the vCPUs' accesses made of it.
    private func readBack(_ report: inout GuestReport) throws {
        if let base = placement.registerBase {
            // A request: unlike a load from shadow memory it comes after what all vCPUs have stored.
            _ = try load(base + Scratch.Register.ticket.rawValue, &report)
            let stores = processors.reduce(0) { $0 &+ $1.model.storedParts }
            report.check(try load(base + Scratch.Register.stores.rawValue, &report), stores, "STORES of the device")
            if processors.count == 1 {
                let checksum = processors[0].model.checksum
                report.check(
                    try load(base + Scratch.Register.checksum.rawValue, &report), checksum, "CHECKSUM of the device")
            }
        }
        try readMemoryBack(&report)
    }

    private func load(_ address: UInt64, _ report: inout GuestReport) throws -> UInt64 {
        let results = try processors[0].run(.loadLoop(.eight), .init(target: address, count: 1))
        report.accesses += 1
        report.requests.loads += 1
        return results.values.first ?? .max
    }

    private func readMemoryBack(_ report: inout GuestReport) throws {
        let (program, width) = placement.reader
        let memory = placement.memory
        let count = memory.count / width
        let results = try processors[0].run(
            program, .init(target: placement.readerBase + memory.lowerBound, count: count))
        report.accesses += count
        report.requests.loads += count
        var values = results.values.makeIterator()
        for position in 0..<count {
            let offset = memory.lowerBound + UInt64(position * width)
            let wanted = expected(offset, width)
            report.check(values.next() ?? ~wanted, wanted, "memory at offset 0x\(String(offset, radix: 16)) at the end")
        }
    }

    /// What the memory holds at the end: each vCPU's part as that vCPU left it.
    private func expected(_ offset: UInt64, _ width: Int) -> UInt64 {
        (0..<width).reversed().reduce(0) { sum, index in
            let at = offset + UInt64(index)
            let owner = processors.first { placement.part(of: $0.index).contains(at) }
            return sum << 8 | UInt64(owner?.finalByte(at) ?? 0)
        }
    }
}

/// Runs `body` once for each element, all at the same time, each on a thread of its own, and waits for all.
func withThreads<Element: Sendable>(_ elements: [Element], _ body: @escaping @Sendable (Element) -> Void) throws {
    guard let first = elements.first else { return }
    let thread = try NativeThread { body(first) }
    let rest = Result { try withThreads(Array(elements.dropFirst()), body) }
    thread.join()
    try rest.get()
}
