// SPDX-License-Identifier: Apache-2.0
//
// The rules O1 to O3, O5 and O6: who is delivered when, and who waits for whom.

import GuestPrograms
import KVM
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Ordering")
struct OrderingTests {
    @Test("O1: requests are delivered in the order in which they were accepted, across vCPUs")
    func acceptanceOrder() throws {
        try ForwardedGuest.run(vcpus: 3) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let order: [UInt32] = [0, 1, 0, 2, 2, 1, 0, 1, 2, 0]
            for (position, vcpu) in order.enumerated() {
                try guest.perform(.deviceStore(UInt128(position)), on: vcpu)
            }
            let load = try guest.begin(.deviceLoad(), on: 1)
            // In small bites, as the order is the queue's and not a read's.
            var requests: [ForwardedRequest] = []
            while requests.count < order.count + 1 {
                requests += try emulation.take(exactly: min(3, order.count + 1 - requests.count))
            }
            #expect(requests.map(\.vcpu) == order + [1])
            #expect(requests.map(\.data) == (0..<UInt64(order.count)).map { $0 } + [0])
            #expect(requests.last?.kind == .load)
            #expect(Set(requests.map(\.sequence)).count == requests.count)
            #expect(!requests.map(\.sequence).contains(0))
            try emulation.acknowledge(requests)
            try guest.finish(load, on: 1)
        }
    }

    @Test("O2: a store is posted: the vCPU goes on before anybody reads it, and every value is kept")
    func postedStores() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let lengths = [1, 2, 4, 8]
            for value in 0..<40 {
                try guest.perform(.deviceStore(0xf0f1_f2f3_f4f5_f600 + UInt128(value), lengths[value % 4], 8))
            }
            let requests = try emulation.take(exactly: 40)
            for (value, request) in requests.enumerated() {
                let length = lengths[value % 4]
                let data = (0xf0f1_f2f3_f4f5_f600 + UInt64(value)) & ForwardedRequest.mask(length)
                #expect(request.kind == .store)
                #expect(request.data == data)
                #expect(request.length == length)
                #expect(request.offset == 8)
                #expect(request.rangeID == 0)
                #expect(!request.isRedelivered)
            }
            try emulation.acknowledge(requests)
        }
    }

    @Test("O3: a load waits for its reply and for every older store of its vCPU, in whatever order they are replied to")
    func loadsWaitForStores() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            try guest.perform(.deviceStore(2))
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 3)
            try guest.expectWaiting(load)
            try emulation.reply(requests[2], 0x1234_5678)
            try guest.expectWaiting(load)
            try emulation.reply(requests[1])
            try guest.expectWaiting(load)
            try emulation.reply(requests[0])
            #expect(try guest.finish(load) == 0x1234_5678)
        }
    }

    @Test("O3: with the stores replied to first, the load completes with its reply")
    func loadCompletesLast() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let load = try guest.begin(.deviceLoad(8))
            let requests = try emulation.take(exactly: 2)
            try emulation.reply(requests[0])
            try guest.expectWaiting(load)
            try emulation.reply(requests[1], 0x8877_6655_4433_2211)
            #expect(try guest.finish(load) == 0x8877_6655_4433_2211)
        }
    }

    @Test("O5: vCPUs are woken one by one")
    func individualWakeUps() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let loads = [try guest.begin(.deviceLoad(), on: 0), try guest.begin(.deviceLoad(), on: 1)]
            let requests = try emulation.take(exactly: 2).sorted { $0.vcpu < $1.vcpu }
            try emulation.reply(requests[1], 11)
            #expect(try guest.finish(loads[1], on: 1) == 11)
            try guest.expectWaiting(loads[0], on: 0)
            try emulation.reply(requests[0], 10)
            #expect(try guest.finish(loads[0], on: 0) == 10)
        }
    }

    @Test("O5: one vCPU's outstanding stores do not delay another's load")
    func othersStoresDoNotDelay() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<10 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
            let load = try guest.begin(.deviceLoad(), on: 1)
            let requests = try emulation.take(exactly: 11)
            try emulation.reply(requests[10], 77)
            #expect(try guest.finish(load, on: 1) == 77)
            try emulation.acknowledge(Array(requests.prefix(10)))
        }
    }

    @Test("O6: a full queue makes a store wait for space, while a load has its place (O5)")
    func fullQueue() throws {
        try ModuleUnderTest.withQueueDepth(4) {
            try ForwardedGuest.run(vcpus: 2) { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                for value in 0..<4 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
                let fifth = try guest.begin(.deviceStore(4), on: 0)
                try guest.expectWaiting(fifth, on: 0)
                let load = try guest.begin(.deviceLoad(), on: 1)
                try guest.expectWaiting(load, on: 1)

                // The four stores leave space for the fifth, which is accepted after the load.
                let stores = try emulation.take()
                #expect(stores.map(\.data) == [0, 1, 2, 3])
                try guest.finish(fifth, on: 0)
                try emulation.acknowledge(stores)
                let rest = try emulation.take(exactly: 2)
                #expect(rest.map(\.kind) == [.load, .store])
                try emulation.reply(rest[0], 99)
                #expect(try guest.finish(load, on: 1) == 99)
                try emulation.reply(rest[1])
                #expect(try DebugCounters.ofNewestDevice()["space_waits"] == 1)
            }
        }
    }

    @Test("O6: stores that wait for space are accepted in the order in which they came")
    func waitingStoresInOrder() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try ForwardedGuest.run(vcpus: 4) { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                try guest.perform(.deviceStore(100), on: 0)
                var waiting: [GuestMailbox.Ticket] = []
                for vcpu: UInt32 in [2, 0, 3, 1] {
                    let ticket = try guest.begin(.deviceStore(UInt128(vcpu)), on: vcpu)
                    try guest.expectWaiting(ticket, on: vcpu)
                    waiting.append(ticket)
                }
                var values: [UInt64] = []
                for _ in 0..<5 {
                    let requests = try emulation.take(exactly: 1)
                    values += requests.map(\.data)
                    try emulation.acknowledge(requests)
                }
                #expect(values == [100, 2, 0, 3, 1])
                for (ticket, vcpu) in zip(waiting, [2, 0, 3, 1] as [UInt32]) { try guest.finish(ticket, on: vcpu) }
            }
        }
    }

    @Test("O6: a queue of depth 4 flooded by one vCPU, while another loads, loses and reorders nothing (O5)")
    func flood() throws {
        try ModuleUnderTest.withQueueDepth(4) {
            let machine = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 2)
            let control = try ControlDescriptor(in: machine.machine)
            try control.setTimeout(.seconds(60))
            try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
            let emulation = try control.makeEmulationDescriptor()
            let (stores, loads) = (2000, 200)
            let flood = try machine.start(.storeLoop(.four), .init(target: ForwardedGuest.base, count: stores), on: 0)
            let loader = try machine.start(.loadLoop(.four), .init(target: ForwardedGuest.base, count: loads), on: 1)
            var expected = (0..<UInt64(stores)).map { $0 }[...]
            var answered: [UInt64] = []
            while !expected.isEmpty || answered.count < loads {
                for request in try emulation.take() {
                    if request.kind == .store {
                        #expect(request.vcpu == 0)
                        #expect(request.data == expected.removeFirst())
                        try emulation.reply(request)
                    } else {
                        answered.append(UInt64(answered.count))
                        try emulation.reply(request, answered[answered.count - 1])
                    }
                }
            }
            _ = try flood.join()
            #expect(try loader.join().values == answered)
        }
    }
}
