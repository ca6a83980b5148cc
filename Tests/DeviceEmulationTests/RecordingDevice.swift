// SPDX-License-Identifier: Apache-2.0
//
// A device for the server's tests: memory that writes down every access.

import DeviceEmulation

/// 64 bytes of memory at offset 0, and the accesses that it saw.
struct RecordingDevice: MMIODevice, Sendable {
    struct Entry: Sendable, Hashable {
        let access: Access
        /// What was stored; nil for a load.
        let stored: UInt64?
    }

    var bytes: [UInt8]
    var entries: [Entry] = []
    /// Refuses every access at these offsets.
    var refused: [UInt64: AccessFault] = [:]
    var widestAccess: AccessWidth

    init(bytes: [UInt8] = Array(repeating: 0, count: 64), widest: AccessWidth = .eight) {
        self.bytes = bytes
        widestAccess = widest
    }

    mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        entries.append(Entry(access: access, stored: nil))
        if let fault = refused[access.offset] { throw fault }
        guard let position = access.position(in: 0..<UInt64(bytes.count)) else { throw .noRegister }
        var value: UInt64 = 0
        for index in 0..<access.width.bytes {
            value |= UInt64(bytes[position + index]) << UInt64(8 * index)
        }
        return value
    }

    mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        entries.append(Entry(access: access, stored: value))
        if let fault = refused[access.offset] { throw fault }
        guard let position = access.position(in: 0..<UInt64(bytes.count)) else { throw .noRegister }
        for index in 0..<access.width.bytes {
            bytes[position + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
        }
    }
}
