// SPDX-License-Identifier: Apache-2.0
//
// The emulation process of a row, and what it shares with the VMM.

import CBenchmark
import LinuxSystem
import SystemPackage

/// Memory that both processes of a row map.
@safe struct SharedState: ~Copyable {
    private let mapping: MemoryMapping

    init() throws(Errno) {
        mapping = try MemoryMapping(anonymous: MemoryLayout<cbench_shared>.size, shared: true)
        unsafe withUnsafeMutableBytes(of: &pointer.pointee.device.registers) { registers in
            for index in 0..<8 { unsafe registers[index] = UInt8(truncatingIfNeeded: Self.firstValue >> (8 * index)) }
        }
    }

    /// What the device's first register holds before anything is stored.
    static let firstValue: UInt64 = 0xf1e2_d3c4_b5a6_9788

    // SAFETY: the mapping is as large as that, page-aligned, and lives as long as this value.
    var pointer: UnsafeMutablePointer<cbench_shared> {
        unsafe mapping.baseAddress.assumingMemoryBound(to: cbench_shared.self)
    }

    /// What the device's first register holds.
    var register: UInt64 {
        unsafe withUnsafeBytes(of: &pointer.pointee.device.registers) { registers in
            unsafe registers.loadUnaligned(as: UInt64.self)
        }
    }

    /// What has been counted.
    var counted: (loads: UInt64, stores: UInt64, batches: UInt64, requests: UInt64) {
        let shared = unsafe pointer.pointee
        return (shared.device.loads, shared.device.stores, shared.batches, shared.requests)
    }
}

/// The emulation process, ended with this value.
struct EmulationProcess: ~Copyable {
    /// Its id; nil where the path has no such process.
    let process: pid_t?

    /// Forks it, if the path has one.
    ///
    /// - Parameters:
    ///   - channel: whose ends on its side are closed on this one.
    ///   - descriptors: how many emulation descriptors it will be sent.
    /// - Throws: errno of fork.
    init(
        _ path: Path, _ shared: borrowing SharedState, _ channel: cbench_channel, descriptors: Int, yields: Bool,
        cpu: Int?
    ) throws(Errno) {
        defer { cbench_close_ends(channel.emulation_in, channel.emulation_out) }
        guard path.isIsolated else {
            process = nil
            return
        }
        var emulation = unsafe cbench_emulation(
            path: path.raw, shared: shared.pointer, in: channel.emulation_in, out: channel.emulation_out,
            descriptors: CInt(descriptors), vmm_in: channel.vmm_in, vmm_out: channel.vmm_out, yields: yields ? 1 : 0,
            cpu: CInt(cpu ?? -1))
        let result = unsafe cbench_start_emulation(&emulation)
        guard result > 0 else { throw Errno(rawValue: -result) }
        process = result
    }

    deinit {
        if let process { cbench_end_emulation(process) }
    }
}
