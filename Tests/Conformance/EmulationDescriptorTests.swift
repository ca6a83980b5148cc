// SPDX-License-Identifier: Apache-2.0
//
// The emulation descriptor's read, write and poll: every argument that they must refuse, and what then stays.

import CKVMUser
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Emulation descriptor")
struct EmulationDescriptorTests {
    private let requestSize = MemoryLayout<kvm_user_request>.size

    @Test("read: a buffer smaller than a request is EINVAL, and nothing is lost", arguments: [0, 1, 39])
    func shortBuffer(count: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            try guest.perform(.deviceStore(1))
            #expect(throws: Errno.invalidArgument) { try emulation.rawRead(count: count) }
            #expect(try emulation.takeNow().count == 1)
        }
    }

    @Test("read: as many whole requests as fit, oldest first", arguments: [40, 41, 79, 80, 119, 120])
    func asManyAsFit(count: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            for value in 0..<4 { try guest.perform(.deviceStore(UInt128(value))) }
            #expect(try emulation.rawRead(count: count) == count / requestSize * requestSize)
            let rest = try emulation.takeNow()
            #expect(rest.map(\.data) == Array(UInt64(count / requestSize)..<4))
        }
    }

    @Test("read: more than one batch of the kernel's comes in one call, in order")
    func manyAtOnce() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<100 { try guest.perform(.deviceStore(UInt128(value))) }
            let requests = try emulation.takeNow(128)
            #expect(requests.map(\.data) == Array(0..<UInt64(100)))
            #expect(try emulation.send(requests.map { $0.reply() }) == 100)
        }
    }

    @Test("read: a buffer that faults is EFAULT, and no request is lost or reordered")
    func faultingBuffer() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            for value in 0..<40 { try guest.perform(.deviceStore(UInt128(value))) }
            let load = try guest.begin(.deviceLoad())
            #expect(try eventually { try emulation.poll(milliseconds: 0).contains(.readable) })
            for address in [UInt(0), 8, 0xffff_8000_0000_0000, UInt.max - 4095] {
                #expect(throws: Errno.badAddress) { try emulation.rawRead(address: address, count: 4096) }
            }
            // A buffer whose end faults takes what fits before it: here 2 whole requests and a half.
            let edge = try FaultingBuffer(usable: 100)
            #expect(try emulation.rawRead(address: edge.address, count: 4000) == 80)
            // One that faults in the kernel's second batch of 16.
            let later = try FaultingBuffer(usable: 18 * 40 + 3)
            #expect(try emulation.rawRead(address: later.address, count: 4000) == 18 * 40)
            let rest = try emulation.take(exactly: 21)
            #expect(rest.prefix(20).map(\.data) == Array(UInt64(20)..<40))
            #expect(rest.last?.kind == .load)
            try emulation.reply(rest[20], 1)
            // The first 20 were read through memory and are owed: only the close completes the load.
            try guest.expectWaiting(load)
            close(emulation)
            try guest.finish(load)
        }
    }

    @Test("read: none pending is EAGAIN on a non-blocking descriptor")
    func nonBlocking() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
        }
    }

    @Test("read: none pending waits, a signal ends it with EINTR and without effect")
    func interruptedRead() throws {
        try ForwardedGuest.run { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            let reader = try BackgroundTask { try emulation.value.takeNow() }
            try #require(eventually { reader.isBlocked })
            #expect(reader.interruptUntilEnded())
            #expect(throws: Errno.interrupted) { try reader.join() }
            try guest.perform(.deviceStore(1))
            #expect(try emulation.value.takeNow().count == 1)
        }
    }

    @Test("read: each request goes to one of the threads that read, and none is left behind")
    func manyReaders() throws {
        try ForwardedGuest.run(vcpus: 2) { guest in
            let emulation = Box(try guest.control.makeEmulationDescriptor())
            let last = UInt64(0xffff)
            let readers = try (0..<4).map { _ in
                try BackgroundTask {
                    var seen: [ForwardedRequest] = []
                    repeat {
                        seen += try emulation.value.takeNow(1)
                        try emulation.value.acknowledge(seen.suffix(1))
                    } while seen.last?.data != last
                    return seen.map(\.sequence)
                }
            }
            for value in 0..<300 { try guest.perform(.deviceStore(UInt128(value)), on: UInt32(value % 2)) }
            for _ in readers { try guest.perform(.deviceStore(UInt128(last))) }
            let sequences = try readers.flatMap { try $0.join() }
            #expect(sequences.count == 304)
            #expect(Set(sequences).count == 304)
        }
    }

    @Test("write: a length that is no multiple of a reply is EINVAL", arguments: [1, 39, 41, 79])
    func oddLength(count: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let requests = try emulation.takeNow()
            let bytes = [UInt8](repeating: 0, count: 80)
            #expect(throws: Errno.invalidArgument) { try emulation.rawWrite(bytes, count: count) }
            try emulation.acknowledge(requests)
        }
    }

    @Test("write: nothing is 0")
    func emptyWrite() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            #expect(try emulation.rawWrite([1], count: 0) == 0)
        }
    }

    @Test("write: a buffer that faults is EFAULT, or takes the whole replies before it")
    func faultingReplies() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value))) }
            let edge = try FaultingBuffer(usable: 100)
            #expect(try emulation.rawRead(address: edge.address, count: 4000) == 80)
            for address in [UInt(0), 0xffff_8000_0000_0000] {
                #expect(throws: Errno.badAddress) { try emulation.rawWrite(address: address, count: 80) }
            }
            #expect(try emulation.rawWrite(address: edge.address, count: 120) == 80)
            try emulation.acknowledge(try emulation.takeNow())
        }
    }

    /// What a reply may not differ in.
    static let forgeries: [Forgery] = [
        Forgery("sequence 0") { $0.seq = 0 },
        Forgery("the next sequence") { $0.seq += 1 },
        Forgery("the last sequence") { $0.seq = UInt64.max },
        Forgery("type store for load") { $0.type = UInt16(KVM_USER_STORE) },
        Forgery("an unknown type") { $0.type = 2 },
        Forgery("a shorter length") { $0.len = 2 },
        Forgery("length 0") { $0.len = 0 },
        Forgery("length 65535") { $0.len = 65535 },
        Forgery("another range") { $0.range_id = 1 },
        Forgery("range 2^32 - 1") { $0.range_id = UInt32.max },
        Forgery("an unknown flag") { $0.flags = 4 },
        Forgery("all flags") { $0.flags = UInt32.max },
    ]

    @Test("write: a reply that differs from its request is EINVAL and changes nothing", arguments: forgeries)
    func forgedReply(forgery: Forgery) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            var raw = request.raw
            forgery.forge(&raw)
            let forged = [ForwardedReply(raw: raw)]
            #expect(throws: Errno.invalidArgument) { try emulation.send(forged) }
            try guest.expectWaiting(load)
            try emulation.reply(request, 21)
            #expect(try guest.finish(load) == 21)
            #expect(try DebugCounters.ofNewestDevice()["invalid_replies"] == 1)
        }
    }

    @Test("write: a second reply to the same request is EINVAL")
    func repliedTwice() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let requests = try emulation.takeNow()
            try emulation.acknowledge(requests)
            #expect(throws: Errno.invalidArgument) { try emulation.reply(requests[0]) }
        }
    }

    @Test("write: a reply to a request that nobody has read is EINVAL, however well it is guessed")
    func guessedReply() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let first = try emulation.takeNow()[0]
            let load = try guest.begin(.deviceLoad())
            var refused = 0
            for guess in UInt64(1)...100 where guess != first.sequence {
                let forged = ForwardedRequest(sequence: guess, .load, offset: 0, length: 4)
                if (try? emulation.reply(forged, 1)) == nil { refused += 1 }
            }
            #expect(refused == 99)
            try guest.expectWaiting(load)
            try emulation.acknowledge([first])
            try emulation.reply(try emulation.take(exactly: 1)[0], 4)
            #expect(try guest.finish(load) == 4)
        }
    }

    @Test("write: the first bad reply stops it, and those before it count", arguments: [1, 5, 20, 39])
    func badInTheMiddle(good: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<40 { try guest.perform(.deviceStore(UInt128(value))) }
            let requests = try emulation.takeNow()
            var replies = requests.map { $0.reply() }
            replies[good] = ForwardedRequest(sequence: UInt64.max, .store, offset: 0, length: 4).reply()
            #expect(try emulation.send(replies) == good)
            let rest = Array(replies.dropFirst(good))
            #expect(throws: Errno.invalidArgument) { try emulation.send(rest) }
            try emulation.acknowledge(requests.dropFirst(good))
        }
    }

    @Test("write: a stale reply behind good ones stays to be told, once, as ESTALE", arguments: [1, 15, 16, 30])
    func staleInTheMiddle(good: Int) throws {
        try ForwardedGuest.run(vcpus: 2, timeout: .seconds(2)) { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<good { try guest.perform(.deviceStore(UInt128(value)), on: 0) }
            let load = try guest.begin(.deviceLoad(), on: 1)
            let requests = try emulation.take(exactly: good + 1)
            try guest.finish(load, on: 1)
            try guest.perform(.deviceStore(99), on: 0)
            let all = requests + (try emulation.take(exactly: 1))
            let replies = all.map { $0.reply() }
            #expect(try emulation.send(replies) == good)
            let rest = Array(replies.dropFirst(good))
            #expect(throws: Errno.stale) { try emulation.send(rest) }
            #expect(throws: Errno.invalidArgument) { try emulation.send(rest) }
            #expect(try emulation.send(Array(rest.dropFirst())) == 1)
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["late_replies"] == 1)
            #expect(counters["invalid_replies"] == 1)
        }
    }

    @Test("read and write take their buffers in pieces: readv, writev")
    func vectors() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value))) }
            var bytes = [UInt8](repeating: 0, count: 120)
            let transferred = unsafe bytes.withUnsafeMutableBytes { bytes -> (Int, Int) in
                // 3 requests in pieces of 50, 60 and 10 bytes.
                let start = bytes.baseAddress
                var pieces = unsafe [
                    iovec(iov_base: start, iov_len: 50), iovec(iov_base: start.map { unsafe $0 + 50 }, iov_len: 60),
                    iovec(iov_base: start.map { unsafe $0 + 110 }, iov_len: 10),
                ]
                let read = unsafe readv(emulation.descriptor.rawValue, &pieces, 3)
                return unsafe (read, writev(emulation.descriptor.rawValue, &pieces, 3))
            }
            #expect(transferred == (120, 120))
        }
    }

    @Test("write: a load's value is its lowest bytes, whatever the rest of the reply's data", arguments: [1, 2, 4, 8])
    func upperBytesIgnored(length: Int) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let load = try guest.begin(.deviceLoad(length))
            var raw = try emulation.take(exactly: 1)[0].raw
            #expect(raw.data == 0)
            raw.data = 0x8877_6655_4433_2211
            raw.offset = 99
            raw.cpu = 99
            raw.flags = KVM_USER_REQUEST_REDELIVERED
            #expect(try emulation.send([ForwardedReply(raw: raw)]) == 1)
            #expect(try guest.finish(load) == 0x8877_6655_4433_2211 & ForwardedRequest.mask(length))
        }
    }

    @Test("poll: EPOLLIN with a request pending, EPOLLOUT always, EPOLLHUP when the VM is gone")
    func pollEvents() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            #expect(try emulation.poll(milliseconds: 0) == .writable)
            try guest.perform(.deviceStore(1))
            #expect(try emulation.poll(milliseconds: 0) == [.readable, .writable])
            try emulation.acknowledge(try emulation.takeNow())
            #expect(try emulation.poll(milliseconds: 0) == .writable)
        }
    }

    @Test("an unknown ioctl is ENOTTY")
    func unknownCommand() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            for command: UInt in [0, 0xaeff, CKVMUSER_RESUME, CKVMUSER_PA_RANGE] {
                #expect(throws: Errno.inappropriateIOCTLForDevice) { try emulation.descriptor.ioctl(command) }
            }
        }
    }
}

/// One way to get a reply wrong.
struct Forgery: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let forge: @Sendable (inout kvm_user_request) -> Void

    init(_ description: String, _ forge: @escaping @Sendable (inout kvm_user_request) -> Void) {
        testDescription = description
        self.forge = forge
    }
}

/// Memory that ends where nothing is mapped.
final class FaultingBuffer {
    private let mapping: MemoryMapping
    /// The buffer's first byte.
    let address: UInt

    init(usable: Int) throws {
        mapping = try MemoryMapping(anonymous: 2 * 4096)
        let middle = unsafe mapping.baseAddress + 4096
        try systemCall(onInterrupt: .retry) { unsafe mprotect(middle, 4096, PROT_NONE) }
        address = UInt(bitPattern: middle) - UInt(usable)
    }
}

extension EmulationDescriptor {
    /// read(2) to any address.
    func rawRead(address: UInt, count: Int) throws(Errno) -> Int {
        try systemCall(onInterrupt: .fail) {
            unsafe Glibc.read(descriptor.rawValue, UnsafeMutableRawPointer(bitPattern: address), count)
        }
    }

    /// read(2) of `count` bytes into a buffer of its own.
    func rawRead(count: Int) throws(Errno) -> Int {
        var bytes = [UInt8](repeating: 0, count: max(count, 1))
        return try systemCall(onInterrupt: .fail) { unsafe Glibc.read(descriptor.rawValue, &bytes, count) }
    }

    /// write(2) from any address.
    func rawWrite(address: UInt, count: Int) throws(Errno) -> Int {
        try systemCall(onInterrupt: .fail) {
            unsafe Glibc.write(descriptor.rawValue, UnsafeRawPointer(bitPattern: address), count)
        }
    }

    /// write(2) of the first `count` bytes.
    func rawWrite(_ bytes: [UInt8], count: Int) throws(Errno) -> Int {
        try systemCall(onInterrupt: .fail) { unsafe Glibc.write(descriptor.rawValue, bytes, count) }
    }
}
