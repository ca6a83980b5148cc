// SPDX-License-Identifier: Apache-2.0
//
// Which loads the shadow image answers: the access map, checked before the kernel sees it.

import CKVMUser

/// Which loads of a device are answered from its ``ShadowImage``. C: `struct kvm_dev_user_shadow_ctrl`.
///
/// Entries are checked as they are added, as the kernel would check them; what goes wrong is said with the entries in
/// question. Several entries may show the same part of the image.
public struct ShadowMap: Sendable {
    /// Size of the image in bytes.
    public let imageSize: Int
    /// A range's id is below this.
    public let maximumRanges: UInt32
    /// Entries for every range, in the order of their offsets.
    private var common: [Entry] = []
    /// Entries for one range each, in the order of their offsets.
    private var own: [UInt32: [Entry]] = [:]
    /// How many entries there are.
    public private(set) var count = 0

    /// Most entries of a map, 4096; one for every range counts once for each. C: `KVM_USER_MAX_SHADOW_ENTRIES`.
    public static var maximumCount: Int { Int(KVM_USER_MAX_SHADOW_ENTRIES) }

    /// Which widths of loads an entry serves: any of 1, 2, 4 and 8 bytes.
    public struct Widths: OptionSet, Hashable, Sendable {
        public let rawValue: UInt32

        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// 1 byte.
        public static let one = Widths(rawValue: 1)
        /// 2 bytes.
        public static let two = Widths(rawValue: 2)
        /// 4 bytes.
        public static let four = Widths(rawValue: 4)
        /// 8 bytes.
        public static let eight = Widths(rawValue: 8)
        /// All of them.
        public static let all: Widths = [.one, .two, .four, .eight]
    }

    /// Part of a range, and where its values lie in the image. C: `struct kvm_user_shadow_entry`.
    public struct Entry: Hashable, Sendable, CustomStringConvertible {
        /// The range, which may be placed later; nil for every range of the device.
        public var rangeID: UInt32?
        /// First byte, from the start of the range.
        public var offset: UInt64
        /// Bytes, at least 1.
        public var length: UInt64
        /// Where they lie in the image.
        public var imageOffset: UInt64
        /// Loads that are served: of these widths, and aligned to them in the range and in the image.
        public var widths: Widths

        /// Describes a part of a range; ``ShadowMap/add(_:)`` says whether it can be.
        public init(rangeID: UInt32?, offset: UInt64, length: UInt64, imageOffset: UInt64, widths: Widths) {
            self.rangeID = rangeID
            self.offset = offset
            self.length = length
            self.imageOffset = imageOffset
            self.widths = widths
        }

        /// "range 0 +0x400 len 0x10 -> image 0x0".
        public var description: String {
            let range = rangeID.map { "range \($0)" } ?? "every range"
            return "\(range) +0x\(String(offset, radix: 16)) len 0x\(String(length, radix: 16))"
                + " -> image 0x\(String(imageOffset, radix: 16))"
        }
    }

    /// Why a map cannot be.
    public enum Fault: Error, Hashable, Sendable, CustomStringConvertible {
        /// A length of 0.
        case empty(Entry)
        /// No widths, or one that is none of 1, 2, 4 and 8.
        case unsupportedWidths(Entry)
        /// A range id that no range of the device can have.
        case noSuchRange(Entry, maximumRanges: UInt32)
        /// An end beyond 2^64.
        case wraps(Entry)
        /// An entry that leaves the image.
        case outsideImage(Entry, imageSize: Int)
        /// Two entries for the same bytes of a range: the new one, and the one that was there.
        case overlap(Entry, Entry)
        /// More entries than a map may have.
        case tooMany(Int)

        /// What is wrong, with the entries.
        public var description: String {
            switch self {
            case .empty(let entry): "shadow map: \(entry) is empty"
            case .unsupportedWidths(let entry):
                "shadow map: \(entry) serves widths 0x\(String(entry.widths.rawValue, radix: 16)); "
                    + "they have to be one or more of 1, 2, 4 and 8"
            case .noSuchRange(let entry, let maximum):
                "shadow map: \(entry): the id of a range is below \(maximum)"
            case .wraps(let entry): "shadow map: \(entry) ends beyond 2^64"
            case .outsideImage(let entry, let size):
                "shadow map: \(entry) leaves the image of 0x\(String(size, radix: 16)) bytes"
            case .overlap(let one, let other): "shadow map: \(one) overlaps \(other)"
            case .tooMany(let count):
                "shadow map: \(count) entries; there may be \(ShadowMap.maximumCount)"
            }
        }
    }

    /// Makes an empty map.
    ///
    /// - Parameters:
    ///   - imageSize: bytes of the image that it refers to.
    ///   - maximumRanges: ``DeviceInformation/maximumRanges``, where that is known.
    public init(imageSize: Int, maximumRanges: UInt32 = .max) {
        self.imageSize = imageSize
        self.maximumRanges = maximumRanges
    }

    /// All entries, by range and offset; those for every range come first.
    public var entries: [Entry] {
        common + own.keys.sorted().flatMap { own[$0] ?? [] }
    }

    /// Adds an entry. Complexity: O(log n), or O(r log n) with r ranges for an entry that is for every range.
    ///
    /// - Throws: ``Fault``; the map stays as it was.
    public mutating func add(_ entry: Entry) throws(Fault) {
        try check(entry)
        guard count < Self.maximumCount else { throw .tooMany(count + 1) }
        if let other = common.overlap(of: entry) ?? overlap(of: entry) { throw .overlap(entry, other) }
        if let range = entry.rangeID {
            own[range, default: []].place(entry)
        } else {
            common.place(entry)
        }
        count += 1
    }

    private func check(_ entry: Entry) throws(Fault) {
        if entry.length == 0 { throw .empty(entry) }
        if entry.widths.isEmpty || !Widths.all.isSuperset(of: entry.widths) { throw .unsupportedWidths(entry) }
        if let range = entry.rangeID, range >= maximumRanges {
            throw .noSuchRange(entry, maximumRanges: maximumRanges)
        }
        // As the kernel: the end itself is to fit, although only the last byte would have to.
        if entry.offset.addingReportingOverflow(entry.length).overflow { throw .wraps(entry) }
        let (end, overflow) = entry.imageOffset.addingReportingOverflow(entry.length)
        if overflow || end > UInt64(imageSize) { throw .outsideImage(entry, imageSize: imageSize) }
    }

    /// An entry for one range that has bytes in common with `entry`.
    private func overlap(of entry: Entry) -> Entry? {
        if let range = entry.rangeID { return own[range]?.overlap(of: entry) }
        for entries in own.values {
            if let other = entries.overlap(of: entry) { return other }
        }
        return nil
    }

    /// Where the image has the value of a load, as the kernel finds it. Complexity: O(log n).
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - length: bytes.
    ///   - range: the range's id.
    /// - Returns: bytes from the start of the image; nil if no entry holds all of the load, or that entry does not
    ///   serve the width, or the load is not aligned in the range and in the image.
    public func imageOffset(of offset: UInt64, length: Int, in range: UInt32) -> UInt64? {
        if let found = common.imageOffset(of: offset, length) { return found }
        return own.isEmpty ? nil : own[range]?.imageOffset(of: offset, length)
    }

    /// The entries as the kernel takes them, those for every range once for each of `ranges`.
    ///
    /// - Throws: ``Fault/tooMany(_:)``.
    func rawEntries(ranges: UInt32) throws(Fault) -> [kvm_user_shadow_entry] {
        let (expanded, overflow) = common.count.multipliedReportingOverflow(by: Int(ranges))
        let total = overflow ? Int.max : count - common.count + expanded
        guard total <= Self.maximumCount else { throw .tooMany(total) }
        return entries.flatMap { entry in
            (entry.rangeID.map { $0..<$0 + 1 } ?? 0..<ranges).map { range in
                kvm_user_shadow_entry(
                    offset: entry.offset, len: entry.length, image_offset: entry.imageOffset, range_id: range,
                    sizes: entry.widths.rawValue)
            }
        }
    }
}

/// Entries of one range that do not overlap, in the order of their offsets.
extension [ShadowMap.Entry] {
    /// Index of the first entry that does not begin before `offset`.
    private func position(of offset: UInt64) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if self[middle].offset < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    fileprivate mutating func place(_ entry: ShadowMap.Entry) {
        insert(entry, at: position(of: entry.offset))
    }

    fileprivate func overlap(of entry: ShadowMap.Entry) -> ShadowMap.Entry? {
        let next = position(of: entry.offset)
        if next < count, self[next].offset - entry.offset < entry.length { return self[next] }
        if next > 0, entry.offset - self[next - 1].offset < self[next - 1].length { return self[next - 1] }
        return nil
    }

    fileprivate func imageOffset(of offset: UInt64, _ length: Int) -> UInt64? {
        guard let length = UInt32(exactly: length), length.nonzeroBitCount == 1 else { return nil }
        let next = position(of: offset)
        let index = next < count && self[next].offset == offset ? next : next - 1
        guard index >= 0, self[index].widths.rawValue & length != 0 else { return nil }
        let inside = offset - self[index].offset
        guard inside < self[index].length, self[index].length - inside >= UInt64(length) else { return nil }
        let imageOffset = self[index].imageOffset + inside
        return (offset | imageOffset) & UInt64(length - 1) == 0 ? imageOffset : nil
    }
}
