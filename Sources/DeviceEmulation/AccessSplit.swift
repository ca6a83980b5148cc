// SPDX-License-Identifier: Apache-2.0
//
// How a request of any size becomes accesses of 1, 2, 4 or 8 bytes.

/// The naturally aligned parts of a request, in ascending order.
///
/// From the start on, each part is the widest of 8, 4, 2 and 1 bytes that its offset is a multiple of, that what is
/// left fills, and that the device takes.
struct AccessSplit {
    /// One part: where it is, and which byte of the request's value it begins at.
    struct Part {
        let offset: UInt64
        let width: AccessWidth
        /// Position of its lowest bit in the request's value: 0 to 56.
        let shift: UInt64
    }

    private let start: UInt64
    private let length: Int
    private let widest: AccessWidth
    private var done = 0

    /// - Parameters:
    ///   - offset: where the request begins; `offset + length` must not overflow.
    ///   - length: bytes, 1 to 8.
    ///   - widest: the widest part allowed.
    init(offset: UInt64, length: Int, widest: AccessWidth) {
        start = offset
        self.length = length
        self.widest = widest
    }

    /// The next part, or nil after the last.
    mutating func next() -> Part? {
        guard done < length else { return nil }
        let offset = start &+ UInt64(done)
        let part = Part(offset: offset, width: width(at: offset), shift: UInt64(8 * done))
        done += part.width.bytes
        return part
    }

    private func width(at offset: UInt64) -> AccessWidth {
        let left = length - done
        if offset & 7 == 0, left >= 8, widest >= .eight { return .eight }
        if offset & 3 == 0, left >= 4, widest >= .four { return .four }
        if offset & 1 == 0, left >= 2, widest >= .two { return .two }
        return .one
    }
}
