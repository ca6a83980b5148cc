// SPDX-License-Identifier: Apache-2.0
//
// Calls whose copies take long: other threads, signals and guests meanwhile.

import CKVMUser
import Glibc
import GuestPrograms
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Slow memory")
struct SlowMemoryTests {
    private let size = MemoryLayout<kvm_user_request>.stride
    /// More than the module copies at a time.
    private let many = 40

    /// Runs `body` with as many stores pending, of 0, 1 and so on.
    private func withStores(
        _ count: Int, _ body: (ForwardedGuest, Box<EmulationDescriptor>, Box<SlowMemory>) throws -> Void
    ) throws {
        try ForwardedGuest.run { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            for value in 0..<count { try guest.perform(.deviceStore(UInt128(value))) }
            try body(guest, emulation, Box(try SlowMemory()))
        }
    }

    @Test("O1: while a thread's read copies, another one's waits its turn, or gets nothing, and guests go on")
    func inTurn() throws {
        try withStores(3) { guest, emulation, memory in
            let slow = try BackgroundTask { [size] in
                try emulation.value.rawRead(address: memory.value.address, count: size)
            }
            try #require(eventually { memory.value.isWaitedFor })
            // The first store is on its way to that thread: what comes after it may not overtake it.
            #expect(try emulation.value.rawExchange([], room: 4).requests.isEmpty)
            let waiting = try BackgroundTask { try emulation.value.takeNow() }
            #expect(!eventually(within: .milliseconds(100)) { waiting.hasEnded })
            #expect(waiting.interruptUntilEnded())
            #expect(throws: Errno.interrupted) { try waiting.join() }
            try guest.perform(.deviceStore(3))
            try memory.value.give()
            #expect(try slow.join() == size)
            #expect(memory.value.requests(1).map(\.data) == [0])
            #expect(try emulation.value.takeNow().map(\.data) == [1, 2, 3])
        }
    }

    @Test("read: a signal ends a long one with what was copied, and the rest is there for the next")
    func interruptedRead() throws {
        try withStores(many) { _, emulation, memory in
            let slow = try BackgroundTask { [size, many] in
                try emulation.value.rawRead(address: memory.value.address, count: many * size)
            }
            try #require(eventually { memory.value.isWaitedFor })
            slow.interrupt()
            try memory.value.give()
            let count = try slow.join() / size
            #expect((1..<many).contains(count))
            let values = memory.value.requests(count).map(\.data) + (try emulation.value.takeNow()).map(\.data)
            #expect(values == Array(0..<UInt64(many)))
        }
    }

    @Test("write: a signal ends a long one with the replies that were taken, and the rest counts the next time")
    func interruptedWrite() throws {
        try withStores(many) { _, emulation, memory in
            let replies = try emulation.value.take(exactly: many).map { $0.reply() }
            let slow = try BackgroundTask { [size, many] in
                try emulation.value.rawWrite(address: memory.value.address, count: many * size)
            }
            try #require(eventually { memory.value.isWaitedFor })
            slow.interrupt()
            let bytes = replies.flatMap { reply in
                unsafe withUnsafeBytes(of: reply.raw) { unsafe [UInt8]($0) }
            }
            try memory.value.give(bytes)
            let count = try slow.join() / size
            #expect((1..<many).contains(count))
            // Had one of them been taken before, this would be refused.
            #expect(try emulation.value.send(Array(replies[count...])) == many - count)
        }
    }

    @Test("F4: the structure of an EXCHANGE that waits becomes read-only: EFAULT, and the device goes on")
    func structureGone() throws {
        try withStores(0) { guest, emulation, _ in
            let page = try ArgumentPage(room: 4)
            let waiting = try BackgroundTask {
                try emulation.value.descriptor.ioctl(CKVMUSER_EXCHANGE, page.address, onInterrupt: .fail)
            }
            try #require(eventually { waiting.isBlocked })
            try page.protect()
            try guest.perform(.deviceStore(9))
            #expect(throws: Errno.badAddress) { try waiting.join() }
            // It was sent, and a process that lost the count still has it.
            #expect(page.request.data == 9)
            try emulation.value.reply(page.request)
            try guest.perform(.deviceStore(10))
            #expect(try emulation.value.takeNow().map(\.data) == [10])
        }
    }
}

/// The argument of an EXCHANGE that waits for requests, in memory that can be made read-only, and room for them.
@safe private final class ArgumentPage: Sendable {
    private let argument: MemoryMapping
    private let room: MemoryMapping

    init(room count: UInt32) throws {
        argument = try MemoryMapping(anonymous: 4096)
        room = try MemoryMapping(anonymous: 4096)
        let raw = kvm_dev_user_exchange(
            replies: 0, requests: UInt64(UInt(bitPattern: unsafe room.baseAddress)), nr_replies: 0, nr_requests: count,
            flags: UInt32(KVM_USER_EXCHANGE_WAIT), pad: 0)
        unsafe argument.baseAddress.storeBytes(of: raw, as: kvm_dev_user_exchange.self)
    }

    var address: UInt { UInt(bitPattern: unsafe argument.baseAddress) }

    /// The first request that came.
    var request: ForwardedRequest {
        ForwardedRequest(raw: unsafe room.baseAddress.load(as: kvm_user_request.self))
    }

    /// Makes the argument read-only.
    func protect() throws(Errno) {
        try systemCall(onInterrupt: .retry) { unsafe mprotect(argument.baseAddress, argument.count, PROT_READ) }
    }
}
