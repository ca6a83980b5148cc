// SPDX-License-Identifier: Apache-2.0
//
// What a device's shadow image may give.

import CKVMUser

/// The image's words through time, and the access maps.
struct ShadowModel {
    /// Bytes; 0 while there is no image.
    private(set) var size: UInt64 = 0
    private var maps: [(span: Span, entries: [kvm_user_shadow_entry])] = []
    private var words: [UInt64: [(moment: Moment, value: UInt64)]] = [:]

    var entries: [kvm_user_shadow_entry] {
        maps.last.flatMap { $0.span.to == nil ? $0.entries : nil } ?? []
    }

    mutating func setSize(_ bytes: UInt64, at moment: Moment) {
        size = bytes
        for offset in words.keys { words[offset]?.append((moment, 0)) }
    }

    mutating func setMap(_ entries: [kvm_user_shadow_entry], at moment: Moment) {
        if let last = maps.indices.last, maps[last].span.to == nil { maps[last].span.to = moment }
        if !entries.isEmpty { maps.append((Span(from: moment), entries)) }
    }

    mutating func store(_ value: UInt64, at offset: UInt64, _ moment: Moment) {
        words[offset, default: [(-1, 0)]].append((moment, value))
    }

    /// What the image holds now.
    func word(at offset: UInt64) -> UInt64 {
        words[offset]?.last?.value ?? 0
    }

    /// Where in the image `length` bytes at `offset` of a range are, if the entry serves such a load.
    private static func imageOffset(
        _ entry: kvm_user_shadow_entry, _ range: UInt32, _ offset: UInt64, _ length: Int
    ) -> UInt64? {
        let length = UInt64(length)
        guard entry.range_id == range, entry.sizes & UInt32(length) != 0, offset >= entry.offset,
            offset + length <= entry.offset + entry.len, offset % length == 0,
            (entry.image_offset + offset - entry.offset) % length == 0
        else { return nil }
        return entry.image_offset + offset - entry.offset
    }

    /// What a load may have got from the image at some moment of `first...last`.
    func values(_ range: UInt32, _ offset: UInt64, _ length: Int, _ first: Moment, _ last: Moment) -> Set<UInt64> {
        var values: Set<UInt64> = []
        for map in maps where map.span.overlaps(first, last) {
            for entry in map.entries {
                guard let place = Self.imageOffset(entry, range, offset, length) else { continue }
                for word in history(place & ~7, first, last) {
                    values.insert(word >> (8 * (place & 7)) & (UInt64.max >> UInt64(64 - 8 * length)))
                }
            }
        }
        return values
    }

    private func history(_ offset: UInt64, _ first: Moment, _ last: Moment) -> [UInt64] {
        guard let all = words[offset] else { return [0] }
        let start = all.lastIndex { $0.moment < first } ?? 0
        return all[start...].prefix { $0.moment <= last }.map(\.value)
    }

    /// Whether the map of all of `first...last` served such a load.
    func serves(_ range: UInt32, _ offset: UInt64, _ length: Int, _ first: Moment, _ last: Moment) -> Bool {
        maps.contains { map in
            map.span.from < first && (map.span.to ?? .max) > last
                && map.entries.contains { Self.imageOffset($0, range, offset, length) != nil }
        }
    }
}
