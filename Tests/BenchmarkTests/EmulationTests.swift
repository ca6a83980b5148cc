// SPDX-License-Identifier: Apache-2.0
//
// The emulation process of the paths that need no kernel module, against the device it is to be.

import CBenchmark
import Glibc
import SystemPackage
import Testing

@testable import Benchmark

// One at a time: a process that is forked meanwhile would keep another one's ends open.
@Suite("Emulation processes", .serialized)
struct EmulationTests {
    /// An emulation process and the VMM's ends.
    private final class Peer {
        let shared: SharedState
        let process: EmulationProcess
        let channel: cbench_channel

        init(_ path: Path) throws {
            let shared = try SharedState()
            var channel = cbench_channel()
            try #require(unsafe cbench_make_channel(path.raw, &channel) == 0)
            process = try EmulationProcess(path, shared, channel, descriptors: 0, yields: true, cpu: nil)
            self.shared = shared
            self.channel = channel
        }

        deinit { cbench_close_ends(channel.vmm_in, channel.vmm_out) }

        func send(_ message: cbench_message) throws {
            var message = message
            let size = MemoryLayout<cbench_message>.size
            try #require(unsafe write(channel.vmm_out, &message, size) == size)
        }

        func reply() throws -> UInt64 {
            var data: UInt64 = 0
            try #require(unsafe read(channel.vmm_in, &data, 8) == 8)
            return data
        }

        func load(_ offset: UInt64, _ length: UInt32) throws -> UInt64 {
            try send(cbench_message(offset: offset, data: 0, length: length, is_store: 0))
            return try reply()
        }
    }

    @Test("A message is an access, and its reply the value", arguments: [Path.socket, .socketStream, .pipes])
    func messages(_ path: Path) throws {
        let peer = try Peer(path)
        #expect(try peer.load(0, 8) == SharedState.firstValue)
        try peer.send(cbench_message(offset: 8, data: 0x1122_3344_5566_7788, length: 8, is_store: 1))
        _ = try peer.reply()
        #expect(try peer.load(8, 4) == 0x5566_7788)
        #expect(try peer.load(9, 1) == 0x77)
        // The registers repeat, and beyond them is a fence.
        #expect(try peer.load(0x1008, 2) == 0x7788)
        let counted = peer.shared.counted
        #expect(counted.loads == 4 && counted.stores == 1)
        #expect(counted.requests == 5 && counted.batches == 5)
    }

    @Test("A posted store has no reply, and comes before the load that follows it")
    func posted() throws {
        let peer = try Peer(.socketPosted)
        for value in 1...100 as ClosedRange<UInt64> {
            try peer.send(cbench_message(offset: 16, data: value, length: 4, is_store: 1))
        }
        #expect(try peer.load(16, 4) == 100)
        #expect(peer.shared.counted.stores == 100)
    }

    @Test("Signals are counted, none is lost")
    func signals() throws {
        let peer = try Peer(.ioeventfdWaiter)
        var one: UInt64 = 1
        for _ in 0..<50 { try #require(unsafe write(peer.channel.vmm_in, &one, 8) == 8) }
        while unsafe peer.shared.pointer.pointee.reply < 50 { usleep(1000) }
        #expect(unsafe peer.shared.pointer.pointee.reply == 50)
    }

    @Test("An end of the VMM's side ends it with an error that it leaves behind", arguments: [Path.socket, .pipes])
    func end(_ path: Path) throws {
        let shared = try SharedState()
        var channel = cbench_channel()
        try #require(unsafe cbench_make_channel(path.raw, &channel) == 0)
        let process = try EmulationProcess(path, shared, channel, descriptors: 0, yields: true, cpu: nil)
        cbench_close_ends(channel.vmm_in, channel.vmm_out)
        while unsafe shared.pointer.pointee.error == 0 { usleep(1000) }
        #expect(unsafe shared.pointer.pointee.error == EPROTO)
        #expect(process.process != nil)
    }
}
