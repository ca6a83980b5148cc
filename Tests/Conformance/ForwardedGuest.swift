// SPDX-License-Identifier: Apache-2.0
//
// A guest with a forwarded device: vCPUs that make the accesses a test asks for, one at a time.

import GuestPrograms
import KVM
import MMIOForwarding
import Synchronization
import SystemPackage
import Testing

/// A virtual machine whose vCPUs wait for a test to tell them what to access.
final class ForwardedGuest: Sendable {
    /// Where the device answers unless a test moves it: range 0.
    static let base: UInt64 = 0xd000_0000
    /// Ports where it answers: range 1.
    static let port: UInt64 = 0x3f8

    let guest: GuestMachine
    let control: ControlDescriptor
    private let programs: [RunningProgram]
    private let log: ExitLog

    /// Runs `body` with such a guest, and ends it after; emulation descriptors must be closed by then.
    ///
    /// - Parameter respond: what vCPUs do about exits; nil to note and answer those for accesses.
    static func run<Result>(
        vcpus: Int = 1, timeout: Duration? = .seconds(60), respond: GuestExitHandler? = nil,
        _ body: (ForwardedGuest) throws -> Result
    ) throws -> Result {
        let guest = try ForwardedGuest(vcpus: vcpus, timeout: timeout, respond)
        let result = Swift.Result { try body(guest) }
        try guest.end()
        return try result.get()
    }

    private init(vcpus: Int, timeout: Duration?, _ respond: GuestExitHandler?) throws {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: vcpus)
        self.guest = guest
        control = try ControlDescriptor(in: guest.machine)
        try control.setTimeout(timeout)
        try control.setRange(0, to: GuestRange(.memory, at: Self.base, length: 0x4000))
        try control.setRange(1, to: GuestRange(.ports, at: Self.port, length: 8))
        let exits = ExitLog()
        log = exits
        let note: GuestExitHandler = { exit, vcpu in
            guard exit != .interrupted else { return }
            exits.add(exit)
            vcpu.setLoadedValue(ForwardedGuest.unforwardedValue)
        }
        programs = try (0..<UInt32(vcpus)).map { index in
            try guest.start(.mailbox, .init(target: 0, count: 0), on: index, respond: respond ?? note)
        }
    }

    /// What loads give that went to the VMM.
    static let unforwardedValue: UInt64 = 0x5656_5656_5656_5656

    /// Accesses that went to the VMM instead of the device.
    var exits: [VirtualCPU.Exit] { log.all }

    private func end() throws {
        for index in 0..<UInt32(programs.count) { try guest.mailbox(of: index).end() }
        for program in programs { _ = try program.join() }
    }

    /// Sends a vCPU's thread a signal that ends its run as soon as that can end.
    func interrupt(_ vcpu: Int) {
        programs[vcpu].interrupter.interrupt()
    }

    /// Has a vCPU begin an access.
    func begin(_ access: GuestAccess, on vcpu: UInt32 = 0) throws -> GuestMailbox.Ticket {
        try guest.mailbox(of: vcpu).post(access)
    }

    /// Whether the vCPU is past the access.
    func isDone(_ ticket: GuestMailbox.Ticket, on vcpu: UInt32 = 0) throws -> Bool {
        try guest.mailbox(of: vcpu).isDone(ticket)
    }

    /// Waits for the access, and gives what it loaded.
    @discardableResult
    func finish(_ ticket: GuestMailbox.Ticket, on vcpu: UInt32 = 0) throws -> UInt64 {
        try #require(try eventually { try isDone(ticket, on: vcpu) }, "vCPU \(vcpu) is stuck")
        return UInt64(truncatingIfNeeded: try guest.mailbox(of: vcpu).loadedValue())
    }

    /// Has a vCPU make an access, and waits until it is past it.
    @discardableResult
    func perform(_ access: GuestAccess, on vcpu: UInt32 = 0) throws -> UInt64 {
        try finish(try begin(access, on: vcpu), on: vcpu)
    }

    /// Expects that the vCPU does not get past the access for a while, though it could.
    func expectWaiting(
        _ ticket: GuestMailbox.Ticket, on vcpu: UInt32 = 0, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let past = try eventually(within: .milliseconds(100)) { try isDone(ticket, on: vcpu) }
        #expect(!past, "vCPU \(vcpu) went on", sourceLocation: sourceLocation)
    }
}

/// The exits of all vCPUs.
private final class ExitLog: Sendable {
    private let exits = Mutex<[VirtualCPU.Exit]>([])

    func add(_ exit: VirtualCPU.Exit) {
        exits.withLock { $0.append(exit) }
    }

    var all: [VirtualCPU.Exit] { exits.withLock { $0 } }
}

extension GuestAccess {
    /// A load of the device in its usual place.
    static func deviceLoad(_ length: Int = 4, _ offset: UInt64 = 0) -> GuestAccess {
        .load(length, at: ForwardedGuest.base + offset)
    }

    /// A store to it.
    static func deviceStore(_ value: UInt128, _ length: Int = 4, _ offset: UInt64 = 0) -> GuestAccess {
        .store(value, length, at: ForwardedGuest.base + offset)
    }
}

extension EmulationDescriptor {
    /// Takes up to `maximum` requests once there are any.
    func take(_ maximum: Int = 64) throws -> [ForwardedRequest] {
        guard try poll(milliseconds: 20_000).contains(.readable) else { return [] }
        return try takeNow(maximum)
    }

    /// Takes up to `maximum` requests, as a read does.
    func takeNow(_ maximum: Int = 64) throws(Errno) -> [ForwardedRequest] {
        var requests = [ForwardedRequest](
            repeating: ForwardedRequest(sequence: 0, .load, offset: 0, length: 0), count: maximum)
        var room = requests.mutableSpan
        let count = try read(into: &room)
        return Array(requests.prefix(count))
    }

    /// Takes exactly `count` requests.
    func take(exactly count: Int) throws -> [ForwardedRequest] {
        var all: [ForwardedRequest] = []
        while all.count < count {
            let more = try take(count - all.count)
            try #require(!more.isEmpty, "\(all.count) of \(count) requests came")
            all += more
        }
        return all
    }

    /// Replies to one request.
    func reply(_ request: ForwardedRequest, _ value: UInt64 = 0) throws(Errno) {
        _ = try send([request.reply(value)])
    }

    /// Writes replies; gives how many were accepted.
    func send(_ replies: [ForwardedReply]) throws(Errno) -> Int {
        try write(replies.span)
    }

    /// Replies to some requests, in this order, and expects that all are accepted.
    func acknowledge(_ requests: some Sequence<ForwardedRequest>) throws {
        for request in requests { try reply(request) }
    }
}

extension ControlDescriptor {
    /// A device that parks, with a long time limit and one range where tests have it.
    static func parking(in machine: VirtualMachine, range: UInt32 = 0, length: UInt64) throws -> ControlDescriptor {
        let control = try ControlDescriptor(in: machine)
        try control.setTimeout(.seconds(60))
        try control.setRange(range, to: GuestRange(.memory, at: ForwardedGuest.base, length: length))
        try control.setParking(true)
        return control
    }
}
