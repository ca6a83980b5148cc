// SPDX-License-Identifier: Apache-2.0
//
// A device that goes on in another process: each access exactly once, wherever the one before was killed.

import DeviceEmulation
import DeviceEmulationTesting
import LinuxSystem
import MMIOForwarding
import SeededRandom
import Synchronization
import SystemPackage
import Testing

/// A device on which nothing can be done twice unnoticed.
private struct Ledger: MMIODevice, Sendable {
    var sum: UInt64 = 0
    var loads: UInt64 = 0
    var stores: UInt64 = 0
    /// Runs while the state is being saved.
    var whileSaving: @Sendable () -> Void = {}

    let label = "ledger"

    mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        defer { loads &+= 1 }
        return loads
    }

    mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        stores &+= 1
        // Neither twice nor in another order.
        sum = sum &* 0x9e37_79b9_7f4a_7c15 &+ value
    }

    var savedSize: Int { 21 + 3 }

    func save(to bytes: inout MutableRawSpan) {
        bytes.storeBytes(of: sum, toByteOffset: 0, as: UInt64.self)
        whileSaving()
        bytes.storeBytes(of: loads, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: stores, toByteOffset: 16, as: UInt64.self)
    }

    mutating func restore(from bytes: RawSpan) {
        // SAFETY: any bytes are a number, and savedSize says that they are there.
        sum = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self)
        loads = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self)
        stores = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 16, as: UInt64.self)
    }
}

/// The kernel's queues under the policy HOLD, and what becomes of a process at each call.
private final class HoldingQueues: Sendable {
    struct State {
        var pending: [ForwardedRequest]
        var sent: [ForwardedRequest] = []
        /// Loads' values by sequence number.
        var values: [UInt64: UInt64] = [:]
        var random: SeededGenerator
        var redelivered = 0
    }

    let state: Mutex<State>
    private let depth: Int

    init(_ requests: [ForwardedRequest], depth: Int, seed: UInt64) {
        state = Mutex(State(pending: requests, random: SeededGenerator(seed: seed)))
        self.depth = depth
    }

    var isDone: Bool { state.withLock { $0.pending.isEmpty && $0.sent.isEmpty } }

    /// A process is gone: what it had comes again.
    func close() {
        state.withLock { state in
            let again = state.sent.map { request in
                ForwardedRequest(
                    sequence: request.sequence, request.kind, offset: request.offset, length: request.length,
                    data: request.data, redelivered: true)
            }
            state.redelivered += again.count
            state.pending = again + state.pending
            state.sent = []
        }
    }

    /// Takes replies and gives requests, unless the process is killed at some moment of the call: 0.
    func exchange(_ replies: [ForwardedReply], _ room: Int) throws(Errno) -> [ForwardedRequest]? {
        try state.withLock { state throws(Errno) in
            let fate = UInt8.random(in: 0..<8, using: &state.random)
            let accepted = fate == 0 ? Int.random(in: 0...replies.count, using: &state.random) : replies.count
            for reply in replies.prefix(accepted) {
                guard let index = state.sent.firstIndex(where: { $0.sequence == reply.sequence }) else {
                    throw .invalidArgument
                }
                if state.sent[index].kind == .load { state.values[reply.sequence] = reply.data }
                state.sent.remove(at: index)
            }
            if fate == 0 { return nil }
            let count = min(room, state.pending.count, depth - state.sent.count)
            let requests = Array(state.pending.prefix(Int.random(in: min(1, count)...count, using: &state.random)))
            state.pending.removeFirst(requests.count)
            state.sent += requests
            return fate == 1 ? nil : requests
        }
    }
}

private struct HoldingTransport: RequestTransport, ~Copyable, Sendable {
    let queues: HoldingQueues
    let staleReplies: UInt64 = 0

    mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        var owed: [ForwardedReply] = []
        for index in replies.indices { owed.append(replies[index]) }
        guard let taken = try queues.exchange(owed, requests.count) else { return 0 }
        for (index, request) in taken.enumerated() { requests[index] = request }
        return taken.count
    }
}

@Suite("Device record", .timeLimit(.minutes(10)))
struct DeviceRecordTests {
    /// Loads and stores by turns, more or less.
    private func requests(_ count: Int, seed: UInt64) -> [ForwardedRequest] {
        var random = SeededGenerator(seed: seed)
        return (1...UInt64(count)).map { number in
            let kind: ForwardedRequest.Kind = Bool.random(using: &random) ? .load : .store
            return ForwardedRequest(sequence: number &* 0x9e37_79b9_7f4a_7c15, kind, offset: 0, length: 8, data: number)
        }
    }

    @Test("F1: processes killed at any moment of a call: each access takes effect once, in order", arguments: 1...20)
    func exactlyOnce(seed: UInt64) throws {
        let requests = requests(2000, seed: seed)
        let depth = 16
        let queues = HoldingQueues(requests, depth: depth, seed: seed)
        let file = try DeviceRecord.makeFile()
        var processes = 0
        var counters = ServerCounters()
        var device = Ledger()
        while !queues.isDone {
            let record = try DeviceRecord(in: file, of: Ledger(), queueDepth: depth)
            let shared = SharedDevice(Ledger(), record: record)
            try DeviceServer(shared, on: HoldingTransport(queues: queues), batch: 8).run()
            queues.close()
            processes += 1
            counters = shared.counters
            device = shared.withDevice { $0 }
        }
        #expect(processes > 20)
        #expect(queues.state.withLock(\.redelivered) > 20)
        var expected = Ledger()
        for request in requests {
            if request.kind == .store { try expected.store(request.data, Access(0, .eight)) }
        }
        let loads = requests.filter { $0.kind == .load }
        #expect(device.sum == expected.sum)
        #expect(device.stores == expected.stores)
        #expect(device.loads == UInt64(loads.count))
        // Each load has the value of its place.
        let values = queues.state.withLock(\.values)
        #expect(loads.map { values[$0.sequence] } == (0..<UInt64(loads.count)).map { $0 })
        #expect(counters.loads == UInt64(loads.count))
        #expect(counters.stores == expected.stores)
        #expect(try DeviceRecord.progress(in: file).counters == counters)
    }

    @Test("A process killed in the middle of writing down leaves what was written before")
    func halfWritten() throws {
        let file = try DeviceRecord.makeFile()
        let snapshot = Mutex<[[UInt8]]>([])
        let path = "/proc/self/fd/\(file.rawValue)"
        var ledger = Ledger()
        ledger.whileSaving = {
            let bytes = Self.contents(of: FilePath(path))
            snapshot.withLock { $0.append(bytes) }
        }
        let bus = InMemoryBus()
        for value in 1...20 as ClosedRange<UInt64> { bus.store(0, length: 8, value) }
        bus.end()
        let record = try DeviceRecord(in: file, of: ledger, queueDepth: 4)
        try DeviceServer(SharedDevice(ledger, record: record), on: bus.transport(), batch: 4).run()
        let snapshots = snapshot.withLock { $0 }
        try #require(snapshots.count == 5)
        for (batches, bytes) in snapshots.enumerated() {
            let copy = try DeviceRecord.makeFile()
            try copy.fileDescriptor.writeAll(bytes)
            let record = try DeviceRecord(in: copy, of: Ledger(), queueDepth: 4)
            let stores = SharedDevice(Ledger(), record: record).withDevice { $0.stores }
            #expect(stores == UInt64(4 * batches))
            #expect(record.counters.stores == stores)
        }
    }

    private static func contents(of path: FilePath) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = try? unsafe bytes.withUnsafeMutableBytes { room in
            let file = try FileDescriptor.open(path, .readOnly)
            defer { try? file.close() }
            return try unsafe file.read(into: room)
        }
        return Array(bytes.prefix(count ?? 0))
    }

    @Test("With a record several servers reply in the order of execution")
    func repliesInOrder() throws {
        let bus = InMemoryBus()
        let file = try DeviceRecord.makeFile()
        let record = try DeviceRecord(in: file, of: Ledger(), queueDepth: 64)
        let shared = SharedDevice(Ledger(), record: record)
        let servers = try (0..<4).map { _ in
            ServerHandle(try DeviceServer(shared, on: bus.transport(), batch: 3).start())
        }
        let sequences = (0..<2000).map { _ in bus.makeSequence() }
        for sequence in sequences { bus.submit(ForwardedRequest(sequence: sequence, .store, offset: 0, length: 8)) }
        bus.end()
        for server in servers { #expect(try server.wait() == .machineGone) }
        #expect(bus.replies.map(\.sequence) == sequences)
    }

    @Test("Without a record a redelivered request is carried out like any other")
    func withoutRecord() throws {
        let bus = InMemoryBus()
        let sequence = bus.makeSequence()
        for redelivered in [false, true] {
            bus.submit(
                ForwardedRequest(
                    sequence: sequence, .store, offset: 0, length: 8, data: 5, redelivered: redelivered))
        }
        bus.end()
        let shared = SharedDevice(Ledger())
        try DeviceServer(shared, on: bus.transport(), batch: 1).run()
        #expect(shared.withDevice { $0.stores } == 2)
        #expect(shared.counters.redelivered == 1)
    }

    @Test("A device without a state of its own begins anew, and its replies are remembered")
    func stateless() throws {
        let file = try DeviceRecord.makeFile()
        let bus = InMemoryBus()
        let sequence = bus.makeSequence()
        bus.submit(ForwardedRequest(sequence: sequence, .store, offset: 0, length: 8, data: 5))
        bus.submit(ForwardedRequest(sequence: sequence, .store, offset: 0, length: 8, data: 5, redelivered: true))
        bus.end()
        for stores in [1, 0] as [UInt64] {
            let device = RecordingDevice()
            let shared = SharedDevice(device, record: try DeviceRecord(in: file, of: device, queueDepth: 4))
            let seen = try serveOne(shared, on: bus)
            #expect(seen == Int(stores))
        }
        #expect(try DeviceRecord.progress(in: file).commits == 2)
    }

    /// Serves one request, and gives how many accesses the device saw.
    private func serveOne(_ shared: SharedDevice<RecordingDevice>, on bus: InMemoryBus) throws -> Int {
        let server = DeviceServer(shared, on: bus.transport(), batch: 1) { _ in shared.stop() }
        try server.run()
        return shared.withDevice { $0.entries.count }
    }
}
