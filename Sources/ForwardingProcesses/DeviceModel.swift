// SPDX-License-Identifier: Apache-2.0
//
// What a device must have seen and answered, computed on the host.

import DeviceEmulation
import GuestPrograms
import ReferenceDevices

/// A device's plain memory as one vCPU's accesses change it, and what the device counts meanwhile.
struct DeviceModel {
    private var bytes: [UInt8]
    /// Requests that the accesses make.
    private(set) var requests = RequestCounts()
    /// Stores as a device sees them that is given naturally aligned ones only.
    private(set) var storedParts: UInt64 = 0
    /// The scratch device's checksum over those.
    private(set) var checksum = Scratch.initialChecksum
    private let memory: Range<UInt64>

    /// Begins with all bytes zero.
    init(memory: Range<UInt64>) {
        self.memory = memory
        bytes = [UInt8](repeating: 0, count: memory.count)
    }

    /// Carries out an access.
    ///
    /// - Parameters:
    ///   - access: within the memory.
    ///   - base: address or port at which the device's offset 0 is.
    /// - Returns: what a load gives; nothing for a store.
    mutating func perform(_ access: GuestAccess, base: UInt64) -> UInt128? {
        var value: UInt128 = 0
        for fragment in access.fragments {
            let offset = fragment.address &- base
            switch access.kind {
            case .load:
                requests.loads += 1
                let shift = UInt128(8 * (fragment.address &- access.address))
                value |= UInt128(load(offset, fragment.length)) << shift
            case .store:
                requests.stores += 1
                store(UInt64(truncatingIfNeeded: fragment.value), offset, fragment.length)
            }
        }
        return access.kind == .load ? value : nil
    }

    private func load(_ offset: UInt64, _ length: Int) -> UInt64 {
        (0..<length).reversed().reduce(0) { $0 << 8 | UInt64(self[offset &+ UInt64($1)]) }
    }

    private mutating func store(_ value: UInt64, _ offset: UInt64, _ length: Int) {
        for index in 0..<length {
            self[offset &+ UInt64(index)] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
        }
        for part in alignedParts(offset, length) {
            let position = UInt64(8 * (part.offset &- offset))
            storedParts += 1
            checksum = Scratch.checksum(checksum, adding: value >> position & part.width.mask, part)
        }
    }

    /// Bytes outside of the memory read all-ones and keep nothing.
    private(set) subscript(offset: UInt64) -> UInt8 {
        get { memory.contains(offset) ? bytes[Int(offset - memory.lowerBound)] : 0xff }
        set { if memory.contains(offset) { bytes[Int(offset - memory.lowerBound)] = newValue } }
    }

    /// The naturally aligned parts of a store, as the server's documentation describes them.
    private func alignedParts(_ offset: UInt64, _ length: Int) -> [Access] {
        var parts: [Access] = []
        var at = offset
        let end = offset &+ UInt64(length)
        while at < end {
            let width =
                AccessWidth.allCases.reversed().first { at % UInt64($0.bytes) == 0 && end - at >= UInt64($0.bytes) }
                ?? .one
            parts.append(Access(at, width))
            at += UInt64(width.bytes)
        }
        return parts
    }
}

/// How many requests there were.
public struct RequestCounts: Hashable, Sendable {
    /// Loads; each waits for its reply.
    public internal(set) var loads = 0
    /// Stores; posted.
    public internal(set) var stores = 0

    static func += (counts: inout RequestCounts, more: RequestCounts) {
        counts.loads += more.loads
        counts.stores += more.stores
    }
}
