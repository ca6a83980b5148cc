// SPDX-License-Identifier: Apache-2.0
//
// An eventfd's count.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

@Suite("Event descriptor")
struct EventDescriptorTests {
    @Test("wait takes all signals at once and leaves none")
    func counts() throws {
        let event = try EventDescriptor()
        for _ in 0..<3 { try event.signal() }
        #expect(try event.wait() == 3)
        try event.signal()
        #expect(try event.wait() == 1)
    }

    @Test("without a signal, wait on a non-blocking one is EAGAIN")
    func empty() throws {
        let event = try EventDescriptor()
        #expect(fcntl(event.descriptor.rawValue, F_SETFL, O_NONBLOCK) == 0)
        #expect(errno { () throws(Errno) in _ = try event.wait() } == .wouldBlock)
    }

    @Test("a duplicate signals the same count")
    func duplicate() throws {
        let event = try EventDescriptor()
        let other = EventDescriptor(adopting: try event.descriptor.duplicate())
        try other.signal()
        #expect(try event.wait() == 1)
    }

    @Test("another thread's signal ends a wait", .timeLimit(.minutes(10)))
    func wakes() async throws {
        let event = try EventDescriptor()
        let other = EventDescriptor(adopting: try event.descriptor.duplicate())
        let waiter = Task.detached { try other.wait() }
        try event.signal()
        let count = try await waiter.value
        #expect(count == 1)
    }

    @Test("a descriptor that is no eventfd is an error, not a count")
    func notAnEvent() throws {
        let null = EventDescriptor(adopting: try OwnedDescriptor.open("/dev/null", .readOnly))
        #expect(errno { () throws(Errno) in try null.signal() } == .badFileDescriptor)
    }
}
