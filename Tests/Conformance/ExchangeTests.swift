// SPDX-License-Identifier: Apache-2.0
//
// KVM_DEV_USER_EXCHANGE: replies in and requests out, every argument that it must refuse, and the loop on it.

import CKVMUser
import DeviceEmulation
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Exchange")
struct ExchangeTests {
    private static let wait = UInt32(KVM_USER_EXCHANGE_WAIT)

    // MARK: What it does

    @Test("replies go in first, then requests come, oldest first, as many as there is room for")
    func bothWays() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad(), on: 1)
            let first = try emulation.take(exactly: 1)
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
            let turn = try emulation.rawExchange([first[0].reply(0x55)], room: 2)
            #expect(turn.accepted == 1)
            #expect(turn.requests.map(\.data) == [0, 1])
            #expect(try guest.finish(load, on: 1) == 0x55)
            let next = try emulation.rawExchange(turn.requests.map { $0.reply() }, room: 8)
            #expect(next.accepted == 2)
            #expect(next.requests.map(\.data) == [2])
        }
    }

    @Test("replies and requests may be in the same buffer")
    func sameBuffer() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<4 { try guest.perform(.deviceStore(UInt128(value))) }
            var buffer = try emulation.takeNow(2).map(\.raw)
            let turn = try buffer.withAddress { address throws(Errno) in
                try emulation.exchange(at: address, 2, requestsAt: address, 2)
            }
            #expect(turn == .init(accepted: 2, came: 2))
            #expect(buffer.map(\.data) == [2, 3])
        }
    }

    @Test("without WAIT, with no room, or on a non-blocking descriptor it does not wait", arguments: [false, true])
    func notWaiting(nonBlocking: Bool) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: nonBlocking)
            let nothing = EmulationDescriptor.Turn(accepted: 0, came: 0)
            #expect(try emulation.exchange(at: 0, 0, requestsAt: 0, 0, flags: Self.wait) == nothing)
            #expect(try emulation.rawExchange([], room: 4).requests.isEmpty)
            if nonBlocking { #expect(try emulation.rawExchange([], room: 4, flags: Self.wait).requests.isEmpty) }
            try guest.perform(.deviceStore(7))
            #expect(try emulation.exchange(at: 0, 0, requestsAt: 0, 0, flags: Self.wait) == nothing)
            let requests = try emulation.rawExchange([], room: 4).requests
            #expect(requests.map(\.data) == [7])
            let replied = try emulation.rawExchange(requests.map { $0.reply() }, room: 4)
            #expect(replied.accepted == 1 && replied.requests.isEmpty)
        }
    }

    @Test("with WAIT it waits for a request, replies given or not", arguments: [false, true])
    func waiting(replying: Bool) throws {
        try ForwardedGuest.run { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            var replies: [ForwardedReply] = []
            if replying {
                try guest.perform(.deviceStore(1))
                replies = try emulation.value.takeNow().map { $0.reply() }
            }
            let task = try BackgroundTask { [replies] in
                let turn = try emulation.value.rawExchange(replies, room: 4, flags: Self.wait)
                return (turn.accepted, turn.requests.map(\.data))
            }
            #expect(!eventually(within: .milliseconds(100)) { task.hasEnded })
            try guest.perform(.deviceStore(2))
            let (accepted, data) = try task.join()
            #expect(accepted == replies.count)
            #expect(data == [2])
        }
    }

    @Test("a signal ends the wait: EINTR, or success if replies were accepted", arguments: [false, true])
    func interrupted(replying: Bool) throws {
        try ForwardedGuest.run { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            var replies: [ForwardedReply] = []
            if replying {
                try guest.perform(.deviceStore(1))
                replies = try emulation.value.takeNow().map { $0.reply() }
            }
            let task = try BackgroundTask { [replies] in
                let turn = try emulation.value.rawExchange(replies, room: 4, flags: Self.wait)
                return (turn.accepted, turn.requests.count)
            }
            try #require(eventually { task.isBlocked })
            #expect(task.interruptUntilEnded())
            if replying {
                #expect(try task.join() == (1, 0))
                // They count: a second time they answer nothing.
                #expect(throws: Errno.invalidArgument) { try emulation.value.send(replies) }
            } else {
                #expect(throws: Errno.interrupted) { _ = try task.join() }
            }
        }
    }

    @Test("the end of the VM ends the wait: ENODEV, or success if replies were accepted", arguments: [false, true])
    func endOfMachine(replying: Bool) throws {
        try ModuleUnderTest.load()
        let (task, replies) = try Self.exchangeAndDropMachine(replying: replying)
        if replying {
            #expect(try task.join() == (replies, 0))
        } else {
            #expect(throws: Errno.noDevice) { _ = try task.join() }
        }
    }

    /// Has a thread wait in an exchange while the machine goes; gives also how many replies it gave.
    private static func exchangeAndDropMachine(replying: Bool) throws -> (BackgroundTask<(Int, Int)>, Int) {
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        let emulation = Box(try control.makeEmulationDescriptor())
        var replies: [ForwardedReply] = []
        if replying {
            _ = try guest.start(.storeLoop(.four), .init(target: ForwardedGuest.base, count: 1), on: 0).join()
            replies = try emulation.value.takeNow().map { $0.reply() }
        }
        let task = try BackgroundTask { [replies] in
            let turn = try emulation.value.rawExchange(replies, room: 4, flags: wait)
            return (turn.accepted, turn.requests.count)
        }
        try #require(eventually { task.isBlocked })
        return (task, replies.count)
    }

    // MARK: Bad replies

    @Test("where the first reply is bad, it fails as write does, and fetches nothing")
    func firstIsBad() throws {
        try ForwardedGuest.run(vcpus: 2, timeout: .seconds(2)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad(), on: 1)
            let stale = try emulation.take(exactly: 1)[0]
            try guest.finish(load, on: 1)
            try guest.perform(.deviceStore(1), on: 0)
            let unknown = ForwardedRequest(sequence: .max, .store, offset: 0, length: 4).reply()
            #expect(throws: Errno.invalidArgument) { try emulation.rawExchange([unknown], room: 4) }
            #expect(throws: Errno.stale) { try emulation.rawExchange([stale.reply()], room: 4) }
            // Once told, it is done with.
            #expect(throws: Errno.invalidArgument) { try emulation.rawExchange([stale.reply()], room: 4) }
            #expect(try emulation.poll(milliseconds: 0).contains(.readable))
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["late_replies"] == 1)
            #expect(counters["invalid_replies"] == 2)
            try emulation.acknowledge(try emulation.takeNow())
        }
    }

    @Test(
        "a bad reply behind good ones: those count, nothing is fetched, and the next call says why",
        arguments: [1, 16, 20])
    func badInTheMiddle(good: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<25 { try guest.perform(.deviceStore(UInt128(value))) }
            let requests = try emulation.takeNow(24)
            var replies = requests.map { $0.reply() }
            replies[good] = ForwardedRequest(sequence: .max, .store, offset: 0, length: 4).reply()
            let turn = try emulation.rawExchange(replies, room: 4, flags: Self.wait)
            #expect(turn.accepted == good)
            #expect(turn.requests.isEmpty)
            let rest = Array(replies.dropFirst(good))
            #expect(throws: Errno.invalidArgument) { try emulation.rawExchange(rest, room: 4) }
            let last = try emulation.rawExchange(requests.dropFirst(good).map { $0.reply() }, room: 4)
            #expect(last.accepted == 24 - good)
            #expect(last.requests.map(\.data) == [24])
        }
    }

    @Test("F3: a process that owes as much as it may makes room with the replies of the same call")
    func owing() throws {
        try ModuleUnderTest.withQueueDepth(2) {
            try ForwardedGuest.run { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                for value in 0..<2 { try guest.perform(.deviceStore(UInt128(value))) }
                let owed = try emulation.rawExchange([], room: 8).requests
                #expect(owed.count == 2)
                for value in 2..<4 { try guest.perform(.deviceStore(UInt128(value))) }
                #expect(try emulation.rawExchange([], room: 8).requests.isEmpty)
                #expect(try emulation.rawExchange([owed[1].reply()], room: 8).requests.map(\.data) == [2])
            }
        }
    }

    @Test("B3: it shows that the process lives")
    func signOfLife() throws {
        try ForwardedGuest.run(timeout: .milliseconds(200)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)
            _ = try emulation.rawExchange([], room: 0)
            try guest.control.setTimeout(.seconds(60))
            let load = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 1)
            try emulation.reply(requests[0], 3)
            #expect(try guest.finish(load) == 3)
        }
    }

    // MARK: Bad arguments

    @Test("unknown flags and padding are EINVAL, and nothing is done", arguments: [(2, 0), (0x8000_0000, 0), (0, 1)])
    func badFlags(flags: UInt32, pad: UInt32) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let requests = try emulation.takeNow()
            #expect(throws: Errno.invalidArgument) {
                try emulation.rawExchange(requests.map { $0.reply() }, room: 4, flags: flags, pad: pad)
            }
            try emulation.acknowledge(requests)
        }
    }

    @Test("a bad pointer to the structure is EFAULT, also to one that cannot be written, and nothing is done")
    func badStructure() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for pointer in [UInt(0), 8, 0xffff_8000_0000_0000, UInt.max] {
                #expect(throws: Errno.badAddress) { try emulation.descriptor.ioctl(CKVMUSER_EXCHANGE, pointer) }
            }
            try guest.perform(.deviceStore(1))
            let page = try MemoryMapping(anonymous: 4096)
            var room = kvm_user_request()
            try unsafe withUnsafeMutablePointer(to: &room) { room in
                var raw = kvm_dev_user_exchange()
                raw.requests = UInt64(UInt(bitPattern: room))
                raw.nr_requests = 1
                unsafe page.baseAddress.storeBytes(of: raw, as: kvm_dev_user_exchange.self)
                try systemCall(onInterrupt: .fail) { unsafe mprotect(page.baseAddress, 4096, PROT_READ) }
                let structure = unsafe UInt(bitPattern: page.baseAddress)
                #expect(throws: Errno.badAddress) { try emulation.descriptor.ioctl(CKVMUSER_EXCHANGE, structure) }
            }
            #expect(try emulation.takeNow().count == 1)
        }
    }

    @Test("replies that fault are EFAULT, or the whole ones before count")
    func faultingReplies() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value))) }
            let edge = try FaultingBuffer(usable: 100)
            #expect(try emulation.rawRead(address: edge.address, count: 4000) == 80)
            for address in [UInt(0), 0xffff_8000_0000_0000, UInt.max - 39] {
                #expect(throws: Errno.badAddress) { try emulation.exchange(at: address, 2, requestsAt: 0, 0) }
            }
            // More than there is memory in the world.
            let turn = try emulation.exchange(at: edge.address, .max, requestsAt: 0, 0)
            #expect(turn == .init(accepted: 2, came: 0))
            #expect(try emulation.takeNow().map(\.data) == [2])
        }
    }

    @Test("room that faults is EFAULT, or takes what fits; with replies accepted it is success. No request is lost")
    func faultingRoom() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<6 { try guest.perform(.deviceStore(UInt128(value))) }
            for address in [UInt(0), 0xffff_8000_0000_0000, UInt.max - 39] {
                #expect(throws: Errno.badAddress) { try emulation.exchange(at: 0, 0, requestsAt: address, 4) }
            }
            let edge = try FaultingBuffer(usable: 100)
            #expect(
                try emulation.exchange(at: 0, 0, requestsAt: edge.address, .max) == .init(accepted: 0, came: 2))
            #expect(
                try emulation.exchange(at: edge.address, 1, requestsAt: 8, 4) == .init(accepted: 1, came: 0))
            #expect(try emulation.takeNow().map(\.data) == [2, 3, 4, 5])
        }
    }

    // MARK: Threads

    @Test("each request goes to one of the threads that exchange, and none is left behind")
    func manyThreads() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            let last = UInt64(0xffff)
            let threads = try (0..<4).map { _ in
                try BackgroundTask {
                    var seen: [ForwardedRequest] = []
                    repeat {
                        let replies = seen.suffix(1).map { $0.reply() }
                        seen += try emulation.value.rawExchange(replies, room: 1, flags: Self.wait).requests
                    } while seen.last?.data != last
                    try emulation.value.acknowledge(seen.suffix(1))
                    return seen.map(\.sequence)
                }
            }
            for value in 0..<300 { try guest.perform(.deviceStore(UInt128(value)), on: UInt32(value % 2)) }
            for _ in threads { try guest.perform(.deviceStore(UInt128(last))) }
            let sequences = try threads.flatMap { try $0.join() }
            #expect(sequences.count == 304)
            #expect(Set(sequences).count == 304)
        }
    }

    // MARK: The transport and the server on it

    @Test("the transport leaves stale replies out, counts them, and gives the rest, with the call and without")
    func transportStale() throws {
        for usesCall in [true, false] {
            try ForwardedGuest.run(vcpus: 2, timeout: .seconds(2)) { guest in
                var emulation = try guest.control.makeEmulationDescriptor()
                emulation.features = usesCall ? nil : []
                try guest.perform(.deviceStore(1), on: 0)
                let load = try guest.begin(.deviceLoad(), on: 1)
                let requests = try emulation.take(exactly: 2)
                try guest.finish(load, on: 1)
                for value in 2..<4 { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
                let more = try emulation.takeNow(1)
                let came = try emulation.turn(Self.replies(to: requests + more))
                #expect(came.map(\.data) == [3])
                #expect(emulation.staleReplies == 1)
                #expect(emulation.features?.contains(.exchange) == usesCall)
                try emulation.acknowledge(came)
            }
        }
    }

    @Test("the transport throws EINVAL for a reply that answers nothing, and EINTR at a signal with all replies given")
    func transportErrors() throws {
        try ForwardedGuest.run { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            try guest.perform(.deviceStore(1))
            let requests = try emulation.value.takeNow()
            let task = try BackgroundTask {
                var mine = try emulation.value.duplicate()
                return try mine.turn(Self.replies(to: requests)).count
            }
            try #require(eventually { task.isBlocked })
            #expect(task.interruptUntilEnded())
            #expect(throws: Errno.interrupted) { _ = try task.join() }
            var mine = try emulation.value.duplicate()
            #expect(throws: Errno.invalidArgument) { _ = try mine.turn(Self.replies(to: requests)) }
        }
    }

    @Test("the transport on a non-blocking descriptor throws EAGAIN where it would wait")
    func transportNonBlocking() throws {
        try ForwardedGuest.run { guest in
            var emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { _ = try emulation.turn([]) }
        }
    }

    private static func replies(to requests: [ForwardedRequest]) -> [ForwardedReply] {
        requests.map { $0.reply() }
    }

    @Test("after the VM is gone the server still carries out what was posted, in small batches", arguments: [1, 3, 64])
    func serverDrains(batch: Int) throws {
        try ModuleUnderTest.load()
        let (count, emulation) = try Self.storeAndDropMachine()
        let device = SharedDevice(WindowMemory(count: 0x1000))
        let server = DeviceServer(device, on: try emulation.value.duplicate(), batch: batch)
        #expect(try server.run() == .machineGone)
        #expect(device.counters.stores == UInt64(count))
        #expect(device.withDevice { $0.bytes[0] } == UInt8(count - 1))
    }

    private static func storeAndDropMachine() throws -> (Int, Box<EmulationDescriptor>) {
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        let emulation = Box(try control.makeEmulationDescriptor())
        _ = try guest.start(.storeLoop(.one), .init(target: ForwardedGuest.base, count: 10), on: 0).join()
        return (10, emulation)
    }

    @Test("stop() ends servers that wait in it, and nothing is owed then", arguments: [1, 2])
    func stopping(threads count: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let device = SharedDevice(WindowMemory(count: 0x1000))
            let threads = try (0..<count).map { _ in
                Joinable(try DeviceServer(device, on: try emulation.duplicate()).start())
            }
            for value in 0..<50 {
                try guest.perform(.deviceStore(UInt128(value), 8, 8))
                #expect(try guest.perform(.deviceLoad(8, 8)) == UInt64(value))
            }
            device.stop()
            for thread in threads { #expect(try thread.wait() == .stopped) }
            #expect(device.counters.stores == 50)
            #expect(device.counters.staleReplies == 0)
            // A load waits for no store that was left over.
            let load = try guest.begin(.deviceLoad(8, 8))
            try emulation.reply(try emulation.take(exactly: 1)[0], 4)
            #expect(try guest.finish(load) == 4)
        }
    }

    @Test("a process that owes more than it should keeps EINVAL apart from stale: the server ends with the error")
    func serverFails() throws {
        try ForwardedGuest.run { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            // Another thread answers first, so that the server's own reply answers nothing.
            let server = DeviceServer(
                SharedDevice(WindowMemory(count: 0x1000)), on: try emulation.value.duplicate(),
                observer: { try? emulation.value.reply($0.request) })
            let thread = Joinable(try server.start())
            try guest.perform(.deviceStore(1))
            #expect(throws: Errno.invalidArgument) { try thread.wait() }
        }
    }
}

/// A server's thread that an array can hold.
private final class Joinable {
    private var thread: ServerThread?

    init(_ thread: consuming ServerThread) {
        self.thread = consume thread
    }

    /// Why the server returned; once.
    func wait() throws(Errno) -> ServerEnd? {
        guard let thread = thread.take() else { return nil }
        return try thread.wait()
    }
}

extension EmulationDescriptor {
    /// What came of an exchange.
    struct Turn: Hashable {
        let accepted: Int
        let came: Int
    }

    /// KVM_DEV_USER_EXCHANGE with any argument.
    func exchange(
        at replies: UInt, _ replyCount: UInt32, requestsAt requests: UInt, _ room: UInt32, flags: UInt32 = 0,
        pad: UInt32 = 0
    ) throws(Errno) -> Turn {
        var raw = kvm_dev_user_exchange(
            replies: UInt64(replies), requests: UInt64(requests), nr_replies: replyCount, nr_requests: room,
            flags: flags, pad: pad)
        try descriptor.ioctl(CKVMUSER_EXCHANGE, &raw, onInterrupt: .fail)
        return Turn(accepted: Int(raw.nr_replies), came: Int(raw.nr_requests))
    }

    /// The same with arrays.
    func rawExchange(
        _ replies: [ForwardedReply], room: Int, flags: UInt32 = 0, pad: UInt32 = 0
    ) throws(Errno) -> (accepted: Int, requests: [ForwardedRequest]) {
        var given = replies.map(\.raw)
        var taken = [kvm_user_request](repeating: kvm_user_request(), count: room)
        let turn = try given.withAddress { given throws(Errno) in
            try taken.withAddress { taken throws(Errno) in
                try exchange(
                    at: given, UInt32(replies.count), requestsAt: taken, UInt32(room), flags: flags, pad: pad)
            }
        }
        return (turn.accepted, taken.prefix(turn.came).map { ForwardedRequest(raw: $0) })
    }

    /// One turn of the transport, with room for 8 requests.
    mutating func turn(_ replies: [ForwardedReply]) throws(Errno) -> [ForwardedRequest] {
        var requests = [ForwardedRequest](
            repeating: ForwardedRequest(sequence: 0, .load, offset: 0, length: 0), count: 8)
        var room = requests.mutableSpan
        let count = try exchange(replies.span, for: &room)
        return Array(requests.prefix(count))
    }
}

extension [kvm_user_request] {
    /// Gives `body` the address of the elements, valid for its duration.
    mutating func withAddress<Result>(
        _ body: (UInt) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        try unsafe withUnsafeMutableBufferPointer { elements throws(Errno) in
            try body(UInt(bitPattern: elements.baseAddress))
        }
    }
}
