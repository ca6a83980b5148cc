// SPDX-License-Identifier: Apache-2.0
//
// The order of execution at one and at two emulation threads.

import DeviceEmulation
import DeviceEmulationTesting
import Glibc
import MMIOForwarding
import Synchronization
import Testing

@Suite("Order", .timeLimit(.minutes(10)))
struct OrderTests {
    /// Checks that each vCPU's stores count up, and answers loads with the last one.
    private struct Sequencer: MMIODevice, Sendable {
        var last = [UInt64](repeating: 0, count: 8)
        var outOfOrder = 0
        var served: Set<UInt> = []

        mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
            last[Int(access.vcpu)]
        }

        mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
            if value != last[Int(access.vcpu)] + 1 { outOfOrder += 1 }
            last[Int(access.vcpu)] = value
            served.insert(UInt(pthread_self()))
        }
    }

    @Test("Four vCPUs' loads and stores are carried out in program order", arguments: [1, 2, 4], [1, 64])
    func programOrder(threads: Int, batch: Int) async throws {
        let bus = InMemoryBus()
        let shared = SharedDevice(Sequencer())
        var servers: [ServerHandle] = []
        for _ in 0..<threads {
            servers.append(ServerHandle(try DeviceServer(shared, on: bus.transport(), batch: batch).start()))
        }
        let wrong = Atomic(0)
        let guests = try (0..<4).map { vcpu in
            try ThreadHandle {
                for value in 1...5_000 as ClosedRange<UInt64> {
                    bus.store(0, length: 8, value, vcpu: UInt32(vcpu))
                    if value % 16 == 0, bus.load(0, length: 8, vcpu: UInt32(vcpu)) != value {
                        wrong.add(1, ordering: .relaxed)
                    }
                }
            }
        }
        for guest in guests { guest.join() }
        // A thread that the scheduler has left out so far gets its turn.
        var value: UInt64 = 0
        while shared.withDevice({ $0.served.count }) < threads {
            value += 1
            bus.store(0, length: 8, value, vcpu: 4)
            usleep(100)
        }
        bus.end()
        for server in servers { #expect(try server.wait() == .machineGone) }
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect(bus.owed == 0)
        let (outOfOrder, last, served) = shared.withDevice { ($0.outOfOrder, $0.last, $0.served.count) }
        #expect(outOfOrder == 0)
        #expect(last.prefix(4).allSatisfy { $0 == 5_000 })
        #expect(served == threads, "every thread took part")
    }

    @Test("The order of delivery, across vCPUs, is the order of execution")
    func deliveryOrder() throws {
        let bus = InMemoryBus()
        for value in 0..<50_000 { bus.store(0, length: 8, UInt64(value), vcpu: UInt32(value % 7)) }
        bus.end()
        let shared = SharedDevice(RecordingDevice())
        let one = try DeviceServer(shared, on: bus.transport(), batch: 3).start()
        let two = try DeviceServer(shared, on: bus.transport(), batch: 5).start()
        try one.wait()
        try two.wait()
        let inOrder = shared.withDevice { device in
            device.entries.map(\.stored).elementsEqual((0..<50_000).map { UInt64($0) })
        }
        #expect(inOrder)
        #expect(bus.replies.count == 50_000)
    }
}
