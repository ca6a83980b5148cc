// SPDX-License-Identifier: Apache-2.0
//
// The messages between a VMM and an emulation process, and every one that is none.

import LinuxSystem
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Handover") final class HandoverTests {
    private let here: UnixSocket
    private let there: UnixSocket

    init() throws {
        let pair = try UnixSocket.pair()
        here = pair.first
        there = pair.second
    }

    /// Something to hand over; an emulation descriptor is not to be had here.
    private func descriptor() throws -> EmulationDescriptor {
        EmulationDescriptor(adopting: try OwnedDescriptor.memoryFile(count: 0))
    }

    private func receive() throws(Errno) {
        _ = try Handover(receivingFrom: there)
    }

    @Test("A descriptor arrives, with or without an interrupt, again and again, and can be passed on")
    func arrives() throws {
        let interrupt = try EventDescriptor()
        for _ in 0..<3 {
            try Handover.send(try descriptor(), interrupt: interrupt.descriptor.rawValue, over: here)
            let first = try Handover(receivingFrom: there)
            try first.pass(over: there)
            let passed = try Handover(receivingFrom: here)
            let hasInterrupt = passed.interrupt != nil
            #expect(hasInterrupt)
            try Handover.send(try descriptor(), over: here)
            let second = try Handover(receivingFrom: there)
            let hasNone = second.interrupt == nil
            #expect(hasNone)
        }
    }

    @Test("Another descriptor is asked for, and refused or not")
    func another() throws {
        try Handover.requestAnother(over: there)
        #expect(try Handover.takeRequest(from: here))
        try Handover.refuse(over: here)
        #expect(throws: Errno.resourceBusy) { try receive() }
        try Handover.requestAnother(over: there)
        #expect(try Handover.takeRequest(from: here))
        try Handover.send(try descriptor(), over: here)
        try receive()
    }

    @Test(
        "Any other message is refused by both sides",
        arguments: [
            [0], Array("mmiofd handover 1".utf8), Array("mmiofd handover 2".utf8), Array("mmiofd another".utf8),
            Array("mmiofd another 1 ".utf8), Array("mmiofd busy 1\n".utf8), [UInt8](repeating: 0x6d, count: 5000),
        ])
    func rubbish(message: [UInt8]) throws {
        // Without a descriptor a greeting is none either.
        try here.send(message)
        #expect(throws: Errno.protocolError) { try receive() }
        try there.send(message)
        #expect(throws: Errno.protocolError) { _ = try Handover.takeRequest(from: here) }
    }

    @Test("A request that brings descriptors is refused, and they are closed")
    func unwantedDescriptors() throws {
        let file = try OwnedDescriptor.memoryFile(count: 0)
        try there.send(Array("mmiofd another 1".utf8), descriptors: [file.rawValue])
        #expect(throws: Errno(rawValue: 90)) { _ = try Handover.takeRequest(from: here) }
    }

    @Test("A VMM that asks for nothing more than a non-blocking socket is never held up by one who does not listen")
    func nobodyListens() throws {
        try here.setNonBlocking()
        #expect(throws: Errno.resourceTemporarilyUnavailable) {
            for _ in 0..<100_000 { try Handover.refuse(over: here) }
        }
        #expect(throws: Errno.resourceTemporarilyUnavailable) { _ = try Handover.takeRequest(from: here) }
    }
}
