// SPDX-License-Identifier: Apache-2.0
//
// Memory for arguments of system calls, at addresses that are numbers: good ones, and ones that fault.

import CFuzz
import CKVMUser

/// Some pages, and one after them that nobody may touch.
struct Arena {
    let start: UInt64
    let count: Int

    init(pages: Int) throws(Discrepancy) {
        count = pages * 4096
        let address = cfuzz_make_arena(count)
        try demand(address > 0, "mmap: \(address)")
        start = UInt64(address)
    }

    /// The first byte that faults.
    var end: UInt64 { start + UInt64(count) }

    /// Where `count` bytes are the last that can be touched.
    func last(_ count: Int) -> UInt64 { end - UInt64(count) }

    func put<Value: BitwiseCopyable>(_ value: Value, at address: UInt64) {
        var value = value
        unsafe withUnsafeBytes(of: &value) { unsafe cfuzz_put(address, $0.baseAddress!, $0.count) }
    }

    func put<Value: BitwiseCopyable>(_ values: [Value], at address: UInt64) {
        for (position, value) in values.enumerated() {
            put(value, at: address + UInt64(position * MemoryLayout<Value>.stride))
        }
    }

    func get<Value: BitwiseCopyable>(_ value: Value, at address: UInt64) -> Value {
        var value = value
        unsafe withUnsafeMutableBytes(of: &value) { unsafe cfuzz_get(address, $0.baseAddress!, $0.count) }
        return value
    }

    func requests(_ count: Int, at address: UInt64) -> [kvm_user_request] {
        (0..<count).map {
            get(kvm_user_request(), at: address + UInt64($0 * MemoryLayout<kvm_user_request>.stride))
        }
    }
}
