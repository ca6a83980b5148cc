// SPDX-License-Identifier: Apache-2.0
//
// A device that is memory, and minds what reaches it.

import DeviceEmulation

/// Memory behind a range whose first address is a multiple of 256. A byte that was never stored is the complement of
/// its address, as in the replays' model.
struct WindowMemory: MMIODevice {
    private(set) var bytes: [UInt8]
    /// Accesses that a device should never see: not of 1, 2, 4 or 8 bytes, or not aligned to that.
    private(set) var improper = 0

    init(count: Int) {
        bytes = (0..<count).map { ~UInt8(truncatingIfNeeded: $0) }
    }

    private mutating func position(_ access: Access) throws(AccessFault) -> Int {
        if access.offset % UInt64(access.width.bytes) != 0 { improper += 1 }
        guard let position = access.position(in: 0..<UInt64(bytes.count)) else { throw .noRegister }
        return position
    }

    mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        let start = try position(access)
        var value: UInt64 = 0
        for index in (0..<access.width.bytes).reversed() { value = value << 8 | UInt64(bytes[start + index]) }
        return value
    }

    mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        let start = try position(access)
        for index in 0..<access.width.bytes { bytes[start + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
    }
}
