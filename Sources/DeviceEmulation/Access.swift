// SPDX-License-Identifier: Apache-2.0
//
// One access as a device sees it: where, how wide, and by whom.

/// How many bytes one access of a device moves. The raw value is that number.
public enum AccessWidth: Int, Sendable, Hashable, CaseIterable, Comparable {
    /// 1 byte.
    case one = 1
    /// 2 bytes.
    case two = 2
    /// 4 bytes.
    case four = 4
    /// 8 bytes.
    case eight = 8

    /// The number of bytes: 1, 2, 4 or 8.
    public var bytes: Int { rawValue }

    /// The bits that a value of this width may have set.
    public var mask: UInt64 {
        switch self {
        case .one: 0xff
        case .two: 0xffff
        case .four: 0xffff_ffff
        case .eight: .max
        }
    }

    public static func < (one: Self, other: Self) -> Bool {
        one.rawValue < other.rawValue
    }
}

/// One load or store as an ``MMIODevice`` sees it.
///
/// The server guarantees to every device that
/// - `offset` is a multiple of `width`,
/// - `offset + width` does not overflow,
/// - the whole access was one request of the guest, or a part of one (``DeviceServer`` says how those are split).
///
/// It does not guarantee that `offset` lies within the device's range: a VMM may have set up a longer one.
public struct Access: Sendable, Hashable {
    /// Bytes from the start of the range.
    public let offset: UInt64
    /// How many bytes.
    public let width: AccessWidth
    /// Which range (which BAR, say), by the number that the VMM gave it.
    public let rangeID: UInt32
    /// Index of the vCPU.
    public let vcpu: UInt32
    /// Whether another emulation process read this request before and ended without a reply to it. It may have
    /// carried it out.
    public let isRedelivered: Bool

    /// Describes an access.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range; a multiple of `width`.
    ///   - width: how many bytes.
    ///   - rangeID: the range that was accessed.
    ///   - vcpu: index of the vCPU.
    ///   - isRedelivered: whether it was read before without a reply.
    public init(
        _ offset: UInt64, _ width: AccessWidth, rangeID: UInt32 = 0, vcpu: UInt32 = 0, isRedelivered: Bool = false
    ) {
        self.offset = offset
        self.width = width
        self.rangeID = rangeID
        self.vcpu = vcpu
        self.isRedelivered = isRedelivered
    }

    /// Where the access lies within a part of the range, a block of memory or an array of registers say.
    ///
    /// - Parameter window: offsets in the range.
    /// - Returns: bytes from the start of `window`, or nil if any byte of the access lies outside of it.
    public func position(in window: Range<UInt64>) -> Int? {
        guard offset >= window.lowerBound, offset < window.upperBound,
            window.upperBound - offset >= UInt64(width.bytes)
        else { return nil }
        return Int(exactly: offset - window.lowerBound)
    }
}
