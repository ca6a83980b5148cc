// SPDX-License-Identifier: Apache-2.0
//
// One load or store of a guest program, as the guest makes it and as KVM hands it over.

import KVM

/// A guest instruction's access to a device.
public struct GuestAccess: Hashable, Sendable {
    /// Which way the data goes.
    public enum Kind: Sendable {
        /// From the device: a load, IN.
        case load
        /// To the device: a store, OUT.
        case store
    }

    /// Which address space.
    public enum Bus: Sendable {
        /// Guest physical memory.
        case memory
        /// I/O ports.
        case port
    }

    /// Which way the data goes.
    public let kind: Kind
    /// Memory or ports.
    public let bus: Bus
    /// Guest physical address or port.
    public let address: UInt64
    /// Bytes: 1, 2, 4, 8 or 16; in ``fragments`` 1 to 8.
    public let length: Int
    /// What a store carries, the bytes beyond its length zero; 0 for a load.
    public let value: UInt128

    /// A load of `length` bytes.
    public static func load(_ length: Int, at address: UInt64, on bus: Bus = .memory) -> GuestAccess {
        GuestAccess(.load, bus, address, length, 0)
    }

    /// A store of the low `length` bytes of `value`.
    public static func store(
        _ value: UInt128, _ length: Int, at address: UInt64, on bus: Bus = .memory
    ) -> GuestAccess {
        GuestAccess(.store, bus, address, length, value & Self.mask(length))
    }

    private init(_ kind: Kind, _ bus: Bus, _ address: UInt64, _ length: Int, _ value: UInt128) {
        self.kind = kind
        self.bus = bus
        self.address = address
        self.length = length
        self.value = value
    }

    /// The mask of the bits that `length` bytes hold.
    static func mask(_ length: Int) -> UInt128 {
        // A smart shift: 128 gives 0.
        ~(UInt128.max << UInt128(8 * length))
    }

    /// What reaches a device: KVM divides an access to memory at the end of a page, and each part of more than
    /// 8 bytes after 8. In the order in which they come.
    public var fragments: [GuestAccess] {
        let page = UInt64(GuestMemory.pageSize)
        let untilPageEnd = Int(page - address % page)
        guard bus == .memory, length > min(8, untilPageEnd) else { return [self] }
        var parts: [GuestAccess] = []
        var done = 0
        while done < length {
            let untilBoundary = done < untilPageEnd ? untilPageEnd - done : length
            let count = min(8, untilBoundary, length - done)
            parts.append(
                GuestAccess(
                    kind, bus, address &+ UInt64(done), count, value >> UInt128(8 * done) & Self.mask(count)))
            done += count
        }
        return parts
    }
}

extension GuestAccess: CustomStringConvertible {
    /// "store 4 at 0xd0000010: 0x1234", "load 1 at port 0x3f8".
    public var description: String {
        let place = (bus == .port ? "port " : "") + "0x" + String(address, radix: 16)
        switch kind {
        case .load: return "load \(length) at \(place)"
        case .store: return "store \(length) at \(place): 0x\(String(value, radix: 16))"
        }
    }
}
