// SPDX-License-Identifier: Apache-2.0
//
// The server's loop: fetching, replying, counting, ending.

import DeviceEmulation
import DeviceEmulationTesting
import Glibc
import MMIOForwarding
import Synchronization
import SystemPackage
import Testing

@Suite("Server", .timeLimit(.minutes(10)))
struct ServerTests {
    private func bus(stores count: Int) -> InMemoryBus {
        let bus = InMemoryBus()
        for value in 0..<count { bus.store(0, length: 8, UInt64(value)) }
        bus.end()
        return bus
    }

    @Test("Every request is replied to once, in order, whatever the batch", arguments: [-1, 0, 1, 2, 3, 64, 1000])
    func batches(size: Int) throws {
        let bus = bus(stores: 200)
        let shared = SharedDevice(RecordingDevice())
        #expect(try DeviceServer(shared, on: bus.transport(), batch: size).run() == .machineGone)
        #expect(bus.replies.count == 200)
        #expect(bus.owed == 0)
        #expect(shared.withDevice { $0.entries.compactMap(\.stored) } == (0..<200).map { UInt64($0) })
        let expected = max(size, 1)
        #expect(shared.counters.largestBatch == min(expected, 200))
        #expect(shared.counters.batches == UInt64((200 + expected - 1) / expected))
        #expect(shared.counters.stores == 200)
    }

    @Test("A server returns when the machine is gone")
    func machineGone() throws {
        let bus = InMemoryBus()
        bus.end()
        #expect(try DeviceServer(RecordingDevice(), on: bus.transport()).run() == .machineGone)
    }

    @Test("A server on a thread answers loads as they come")
    func live() throws {
        let bus = InMemoryBus()
        let thread = try DeviceServer(RecordingDevice(), on: bus.transport()).start()
        for value in 0..<1000 {
            bus.store(8, length: 8, UInt64(value))
            #expect(bus.load(8, length: 8) == UInt64(value))
        }
        bus.end()
        #expect(try thread.wait() == .machineGone)
    }

    @Test("stop() ends servers that wait for requests, and those that wait for their turn")
    func stopWhileWaiting() throws {
        let bus = InMemoryBus()
        let shared = SharedDevice(RecordingDevice())
        let one = try DeviceServer(shared, on: bus.transport()).start()
        let two = try DeviceServer(shared, on: bus.transport()).start()
        usleep(20_000)
        shared.stop()
        #expect(try one.wait() == .stopped)
        #expect(try two.wait() == .stopped)
    }

    @Test("stop() while requests keep coming leaves nothing owed")
    func stopUnderLoad() throws {
        let bus = InMemoryBus()
        let shared = SharedDevice(RecordingDevice())
        let one = try DeviceServer(shared, on: bus.transport()).start()
        let two = try DeviceServer(shared, on: bus.transport()).start()
        for value in 0..<20_000 {
            bus.store(0, length: 8, UInt64(value))
            if value == 10_000 { shared.stop() }
        }
        #expect(try one.wait() == .stopped)
        #expect(try two.wait() == .stopped)
        #expect(bus.owed == 0)
        #expect(bus.replies.count < 20_000)
        #expect(UInt64(bus.replies.count) == shared.counters.requests)
    }

    @Test("A server that is started after stop() returns at once")
    func startAfterStop() throws {
        let shared = SharedDevice(RecordingDevice())
        shared.stop()
        #expect(try DeviceServer(shared, on: InMemoryBus().transport()).run() == .stopped)
    }

    @Test("stop() from the server's own thread does not deadlock, and the batch is still replied to")
    func stopFromWithin() throws {
        let bus = InMemoryBus()
        bus.store(0, length: 1, 1)
        let shared = SharedDevice(RecordingDevice())
        let server = DeviceServer(shared, on: bus.transport(), observer: { _ in shared.stop() })
        #expect(try server.run() == .stopped)
        #expect(bus.replies.count == 1)
        #expect(bus.owed == 0)
    }

    @Test("A signal during the wait changes nothing, and no reply is given twice")
    func interrupted() throws {
        var transport = FlakyTransport(failing: [.interrupted, nil, .interrupted, .interrupted, nil])
        transport.requests = 2
        let shared = SharedDevice(RecordingDevice())
        #expect(try DeviceServer(shared, on: transport).run() == .machineGone)
        #expect(shared.counters.stores == 2)
    }

    @Test("An error of the transport ends the server with that error", arguments: [Errno.invalidArgument, .badAddress])
    func transportFails(error: Errno) {
        let transport = FlakyTransport(failing: [error])
        #expect(throws: error) { try DeviceServer(RecordingDevice(), on: transport).run() }
    }

    @Test("A transport that says it delivered more than there was room for does not crash the server")
    func lyingTransport() throws {
        struct Liar: RequestTransport {
            var staleReplies: UInt64 { 0 }
            var calls = 0
            mutating func exchange(
                _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
            ) throws(Errno) -> Int {
                calls += 1
                return calls == 1 ? .max : 0
            }
        }
        let shared = SharedDevice(RecordingDevice())
        #expect(try DeviceServer(shared, on: Liar(), batch: 4).run() == .machineGone)
        #expect(shared.counters.malformed == 4)
    }

    @Test("Replies that came too late are counted")
    func staleReplies() throws {
        let bus = InMemoryBus()
        let sequence = bus.makeSequence()
        bus.submit(ForwardedRequest(sequence: sequence, .load, offset: 0, length: 4))
        bus.store(0, length: 4, 1)
        bus.end()
        let shared = SharedDevice(RecordingDevice())
        // The observer runs between the device and the reply.
        let server = DeviceServer(shared, on: bus.transport(), batch: 1) { served in
            if served.request.sequence == sequence { bus.retire(sequence) }
        }
        try server.run()
        #expect(shared.counters.staleReplies == 1)
        #expect(bus.replies.count == 1)
    }

    @Test("An observer sees every request in order, with its reply and what became of it")
    func observer() throws {
        let seen = Mutex<[ServedRequest]>([])
        var device = RecordingDevice()
        device.refused[8] = .readOnly
        let guest = ScriptedGuest(device) { served in seen.withLock { $0.append(served) } }
        guest.send([
            ForwardedRequest(sequence: 1, .store, offset: 0, length: 4, data: 7),
            ForwardedRequest(sequence: 2, .load, offset: 0, length: 4),
            ForwardedRequest(sequence: 3, .store, offset: 8, length: 4, data: 7),
            ForwardedRequest(sequence: 4, .load, offset: 0, length: 0),
        ])
        let all = seen.withLock { $0 }
        #expect(all.map(\.value) == [0, 7, 0, 0])
        #expect(all.map(\.outcome) == [.done, .done, .refused(.readOnly), .malformed])
        #expect(all.map(\.request.kind) == [.store, .load, .store, .load])
    }

    @Test("Counters can be read while the server runs")
    func countersWhileRunning() throws {
        let bus = InMemoryBus()
        let shared = SharedDevice(RecordingDevice())
        let thread = try DeviceServer(shared, on: bus.transport()).start()
        for count in 1...100 {
            _ = bus.load(0, length: 1)
            #expect(shared.counters.loads == UInt64(count))
        }
        bus.end()
        try thread.wait()
    }

    @Test("The host's side gets at the device while the server waits for the guest")
    func hostSide() throws {
        let bus = InMemoryBus()
        let shared = SharedDevice(RecordingDevice())
        let thread = try DeviceServer(shared, on: bus.transport()).start()
        usleep(10_000)
        shared.withDevice { $0.bytes[5] = 0x55 }
        #expect(bus.load(5, length: 1) == 0x55)
        bus.end()
        try thread.wait()
    }

    @Test("A device that cannot be copied can be served")
    func noncopyableDevice() {
        struct Unique: MMIODevice, ~Copyable {
            var value: UInt64 = 0
            var label: String { "unique" }
            mutating func load(_ access: Access) throws(AccessFault) -> UInt64 { value }
            mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) { self.value = value }
        }
        let guest = ScriptedGuest(Unique())
        guest.store(0, .four, 9)
        #expect(guest.load(0, .four) == 9)
        #expect(guest.shared.label == "unique")
    }

    @Test("A device is called by the name of its type unless it says otherwise")
    func label() {
        #expect(SharedDevice(RecordingDevice()).label == "RecordingDevice")
    }
}

/// Fails as told, then brings stores one by one, then the end. It takes each reply once.
private struct FlakyTransport: RequestTransport {
    /// The result of each call: an error, or nil for a request.
    var outcomes: [Errno?]
    var requests = 0
    var owed: UInt64 = 0
    var next: UInt64 = 1
    var staleReplies: UInt64 { 0 }

    init(failing outcomes: [Errno?]) {
        self.outcomes = outcomes
    }

    mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        for index in replies.indices {
            guard replies[index].sequence == owed else { throw .invalidArgument }
            owed = 0
        }
        if requests.isEmpty { return 0 }
        guard !outcomes.isEmpty else { return 0 }
        if let error = outcomes.removeFirst() { throw error }
        requests[0] = ForwardedRequest(sequence: next, .store, offset: 0, length: 8, data: next)
        owed = next
        next += 1
        return 1
    }
}
