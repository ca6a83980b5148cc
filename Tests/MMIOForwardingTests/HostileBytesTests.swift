// SPDX-License-Identifier: Apache-2.0
//
// Bytes from a kernel or a VMM that means no good: nothing traps, hangs or stays open.

import CKVMUser
import Fuzzing
import Glibc
import LinuxSystem
import SeededRandom
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Hostile bytes at the descriptors", .timeLimit(.minutes(10)))
struct HostileBytesTests {
    init() {
        // A reply to a descriptor that is a socket or a pipe must not end the process.
        _ = signal(SIGPIPE, SIG_IGN)
    }

    @Test("Any 40 bytes are a request that can be looked at and replied to", arguments: fuzzSeeds)
    func requests(seed: UInt64) {
        announce(seed, of: "requests")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<5000 {
            let request = randomRequest(using: &random)
            let reply = request.reply(.random(in: 0...(.max), using: &random))
            #expect(reply.sequence == request.sequence)
            #expect(request.length == 0 || !request.description.isEmpty)
            #expect(request == request && request.withSequence(1).sequence == 1)
            _ = (request.hashValue, reply.data, request.hasKnownKind, request.isRedelivered)
        }
    }

    @Test("Any bytes are a device's information", arguments: fuzzSeeds)
    func information(seed: UInt64) {
        announce(seed, of: "information")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<1000 {
            let bytes = (0..<MemoryLayout<kvm_dev_user_info>.size).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            // SAFETY: any bytes are a value of the C structure.
            let raw = unsafe bytes.withUnsafeBytes { unsafe $0.loadUnaligned(as: kvm_dev_user_info.self) }
            let information = DeviceInformation(raw)
            #expect(information.queueDepth == raw.queue_depth)
        }
    }

    @Test("A device type of any bytes is a number or an error", arguments: fuzzSeeds)
    func deviceType(seed: UInt64) throws {
        announce(seed, of: "device types")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            let bytes = mutated(Array("10\n".utf8), using: &random)
            let file = try HostileDescriptor.file(bytes)
            let path = FilePath("/proc/self/fd/\(file.rawValue)")
            let type = try? DeviceType.current(path: path)
            if bytes == Array("10\n".utf8) { #expect(type?.rawValue == 10) }
        }
    }

    @Test(
        "A handover of any message, with any number of descriptors, is taken or refused, and leaks none",
        arguments: fuzzSeeds)
    func handover(seed: UInt64) throws {
        announce(seed, of: "handovers")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let pair = try UnixSocket.pair()
            let pipe = try HostileDescriptor.pipe()
            let greeting = Array("mmiofd handover 1".utf8)
            var message = Bool.random(using: &random) ? greeting : mutated(greeting, using: &random)
            if message.isEmpty { message = [0] }
            let count = Int.random(in: 0...4, using: &random)
            try pair.first.send(message, descriptors: Array(repeating: pipe.writing.rawValue, count: count))
            let wasTaken = Self.receive(pair.second)
            #expect(wasTaken == (message == greeting && (1...2).contains(count)), "\(message) \(count)")
            // Nobody else has the other end: all that came is closed.
            let reading = pipe.closeWriting()
            let isAtEnd = reading.isAtEnd()
            #expect(isAtEnd, "\(message) \(count)")
        }
    }

    private static func receive(_ socket: borrowing UnixSocket) -> Bool {
        do throws(Errno) {
            let handover = try Handover(receivingFrom: socket)
            return handover.emulation.descriptor.rawValue >= 0
        } catch {
            return false
        }
    }

    @Test("Whatever is read and however little is taken, an exchange ends", arguments: fuzzSeeds)
    func exchange(seed: UInt64) throws {
        announce(seed, of: "exchanges")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var emulation = EmulationDescriptor(adopting: try HostileDescriptor.random(using: &random))
            var requests = (0..<Int.random(in: 0...8, using: &random)).map { _ in randomRequest(using: &random) }
            let replies = (0..<Int.random(in: 0...8, using: &random)).map { _ in
                randomRequest(using: &random).reply(.random(in: 0...(.max), using: &random))
            }
            for _ in 0..<4 { Self.exchange(&emulation, replies, &requests) }
        }
    }

    private static func exchange(
        _ emulation: inout EmulationDescriptor, _ replies: [ForwardedReply], _ requests: inout [ForwardedRequest]
    ) {
        do throws(Errno) {
            var room = requests.mutableSpan
            let count = try emulation.exchange(replies.span, for: &room)
            #expect((0...requests.count).contains(count))
        } catch {
            // An errno is an answer too.
        }
    }

    @Test("An exchange that says it did more than was asked, or nothing of it, is an error", arguments: fuzzSeeds)
    func counts(seed: UInt64) {
        announce(seed, of: "exchange counts")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            var raw = kvm_dev_user_exchange()
            let edges: [UInt32] = [0, 1, 8, 9, .max, UInt32(truncatingIfNeeded: random.next())]
            raw.nr_replies = edges.randomElement(using: &random) ?? 0
            raw.nr_requests = edges.randomElement(using: &random) ?? 0
            let (replies, requests) = (Int.random(in: 0...8, using: &random), Int.random(in: 1...8, using: &random))
            guard let counts = try? EmulationDescriptor.counts(of: raw, replies: replies, requests: requests) else {
                continue
            }
            #expect((min(1, replies)...replies).contains(counts.accepted) && (0...requests).contains(counts.came))
        }
    }

    @Test("A descriptor that takes a part of a reply is an error, and not asked again and again")
    func partOfReply() throws {
        var random = SeededGenerator(seed: 1)
        // A page and 24 bytes: a pipe first fills its last page with what is beyond whole pages, and then has no other.
        let replies = Array(repeating: randomRequest(using: &random).reply(), count: 103)
        let pipe = try HostileDescriptor.pipe(room: 24)
        var emulation = EmulationDescriptor(adopting: try pipe.writing.duplicate())
        #expect(Self.give(replies, &emulation) == .ioError)
    }

    private static func give(_ replies: [ForwardedReply], _ emulation: inout EmulationDescriptor) -> Errno? {
        var none = MutableSpan<ForwardedRequest>()
        do throws(Errno) {
            _ = try emulation.exchange(replies.span, for: &none)
            return nil
        } catch {
            return error
        }
    }
}
