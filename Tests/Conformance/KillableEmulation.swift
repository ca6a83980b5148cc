// SPDX-License-Identifier: Apache-2.0
//
// Emulation processes that a test starts and kills by the hundreds, and what they leave.

import CConformance
import CKVMUser
import Glibc
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

/// Starts emulation processes of a device that is plain memory: `Tests/KillableEmulation`, which forks them.
struct KillableEmulation: ~Copyable {
    private static let program: FilePath = ".build/debug/KillableEmulation"

    private let parent: ChildProcess
    private let socket: UnixSocket
    private let record: MemoryMapping

    init() throws {
        let size =
            MemoryLayout<killable_record>.stride
            + KILLABLE_REQUESTS * MemoryLayout<kvm_user_request>.stride
        let file = try OwnedDescriptor.memoryFile(count: size)
        let record = try MemoryMapping(mapping: file, count: size)
        let pair = try UnixSocket.pair()
        let here = pair.first
        let there = pair.second
        try here.send([0], descriptors: [file.rawValue])
        parent = try ChildProcess(
            Self.program, [],
            descriptors: .init(
                input: there.descriptor.rawValue, output: STDOUT_FILENO, error: STDERR_FILENO))
        socket = here
        self.record = record
    }

    deinit {
        // It may be waiting for a child of its own, which ends with it.
        _ = kill(parent.process, SIGKILL)
        parent.wait()
    }

    /// Starts one that serves `emulation`, and keeps no copy of that.
    ///
    /// - Parameters:
    ///   - emulation: the device.
    ///   - batch: how many requests it reads at once.
    ///   - replies: how many replies it writes at once.
    ///   - pause: microseconds that it waits between carrying out and replying.
    /// - Returns: its process id.
    func start(_ emulation: consuming EmulationDescriptor, batch: Int, replies: Int, pause: Int = 0) throws -> pid_t {
        let order = killable_order(batch: UInt32(batch), replies: UInt32(replies), pause: UInt32(pause))
        let bytes = unsafe withUnsafeBytes(of: order) { unsafe Array($0) }
        try socket.send(bytes, descriptors: [emulation.descriptor.rawValue])
        close(emulation)
        return try answer()
    }

    /// Waits until the present one is gone, and all that it had open with it.
    ///
    /// - Returns: the number of the signal that killed it; nil if it ended for a reason of its own.
    func waitForEnd() throws -> CInt? {
        let status = try answer()
        return status & 0x7f == 0 ? nil : status & 0x7f
    }

    private func answer() throws -> Int32 {
        let bytes = try socket.receive(capacity: 4).bytes
        try #require(bytes.count == 4, "the emulation processes' parent is gone")
        return bytes.reversed().reduce(0) { $0 << 8 | Int32($1) }
    }

    /// How many requests the present one has recorded; it may run.
    var recordedCount: Int {
        // SAFETY: the mapping begins with the structure.
        unsafe Int(killable_recorded(record.baseAddress.assumingMemoryBound(to: killable_record.self)))
    }

    /// What the last one was given, in order, and how many replies it knew to have been accepted; it must be gone.
    func lastRecord() -> (requests: [ForwardedRequest], replied: Int) {
        // SAFETY: the mapping is a killable_record and then requests, and its only writer is gone.
        let header = unsafe record.baseAddress.assumingMemoryBound(to: killable_record.self)
        let first = unsafe UnsafeRawPointer(header + 1).assumingMemoryBound(to: kvm_user_request.self)
        let count = unsafe min(Int(header.pointee.recorded), KILLABLE_REQUESTS)
        let requests = unsafe UnsafeBufferPointer(start: first, count: count).map { ForwardedRequest(raw: $0) }
        return unsafe (requests, Int(header.pointee.replied))
    }
}
