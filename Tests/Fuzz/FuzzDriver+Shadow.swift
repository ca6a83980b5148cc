// SPDX-License-Identifier: Apache-2.0
//
// Operations on the shadow image.

import CFuzz
import CKVMUser
import Glibc
import SeededRandom

extension FuzzDriver {
    private static let page: UInt64 = 4096

    func shadowSize(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first else { return }
        let shadow = model(device).shadow
        var expected: [Int32] = []
        var bytes = Self.page * UInt64(1 + random.below(4))
        if random.oneIn(4) {
            bytes = random.pick([Self.page + 1, 8, .max, UInt64.max - Self.page + 1, device.maximumShadow + Self.page])
            expected = [-EINVAL, -E2BIG]
        }
        let busy = shadow.size != 0 && (!shadow.entries.isEmpty || !device.mappings.isEmpty)
        // A child that was forked with a mapping has one as well.
        if busy {
            expected.append(-EBUSY)
        } else if expected.isEmpty {
            expected = children.isEmpty ? [0] : [0, -EBUSY]
        }
        if !device.has(CKVMUSER_FEATURE_SHADOW) { expected = [-ENOTTY] }
        arena.put(bytes, at: arena.start)
        let result = cfuzz_ioctl(number, UInt64(CKVMUSER_SHADOW_SIZE), arena.start)
        try expect(result, expected, "SHADOW_SIZE \(hex(bytes))")
        if result == 0 { model(device).shadow.setSize(bytes, at: model.now) }
    }

    func shadowMap(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first else { return }
        let size = model(device).shadow.size
        let entries = (0..<random.below(6)).map { _ in entry(size, &random) }
        var raw = kvm_dev_user_shadow_ctrl(entries: arena.start + 64, nr_entries: UInt32(entries.count), pad: 0)
        var expected: Int32 = Self.areGood(entries, size) ? 0 : -EINVAL
        if !entries.isEmpty {
            switch random.below(16) {
            case 0: (raw.pad, expected) = (1 << UInt32(random.below(32)), -EINVAL)
            case 1: (raw.nr_entries, expected) = (4097 + UInt32(random.below(1 << 30)), -E2BIG)
            case 2: (raw.entries, expected) = (arena.end - 8, -EFAULT)
            default: break
            }
        }
        if !device.has(CKVMUSER_FEATURE_SHADOW) { expected = -ENOTTY }
        arena.put(entries, at: arena.start + 64)
        arena.put(raw, at: arena.start)
        // A load may be served from the moment at which the kernel takes the map.
        let result = cfuzz_ioctl(number, UInt64(CKVMUSER_SHADOW_CTRL), arena.start)
        try expect(result, [expected], "SHADOW_CTRL \(entries)")
        if result == 0 { model(device).shadow.setMap(entries, at: model.now) }
    }

    private func entry(_ size: UInt64, _ random: inout SeededGenerator) -> kvm_user_shadow_entry {
        var entry = kvm_user_shadow_entry(
            offset: 8 * UInt64(random.below(64)), len: 8 * UInt64(1 + random.below(8)),
            image_offset: 8 * UInt64(random.below(64)), range_id: random.pick([0, 0, 0, 1, 1, 2, 3]),
            sizes: UInt32(1 + random.below(15)))
        // The last bytes of a page: pieces of odd lengths come from there, and of the image.
        if random.oneIn(3) { entry.offset = random.pick([0x800, 0x1000]) - entry.len }
        if random.oneIn(4), size >= entry.len { entry.image_offset = size - entry.len }
        switch random.below(32) {
        case 0: entry.sizes = random.pick([0, 16, 31, 1 << 31])
        case 1: entry.len = random.pick([0, .max, UInt64.max - 4])
        case 2: entry.image_offset = random.pick([size, .max, size &- 4])
        case 3: entry.range_id = 64 + UInt32(random.below(1 << 30))
        case 4: entry.offset = UInt64.max - 3
        default: break
        }
        return entry
    }

    private static func areGood(_ entries: [kvm_user_shadow_entry], _ size: UInt64) -> Bool {
        for (position, entry) in entries.enumerated() {
            let (end, wraps) = entry.offset.addingReportingOverflow(entry.len)
            let (imageEnd, imageWraps) = entry.image_offset.addingReportingOverflow(entry.len)
            guard !wraps, !imageWraps, imageEnd <= size, entry.len > 0, entry.sizes != 0, entry.sizes & ~15 == 0,
                entry.range_id < 64
            else { return false }
            for other in entries[..<position] where other.range_id == entry.range_id {
                if other.offset < end && entry.offset < other.offset + other.len { return false }
            }
        }
        return true
    }

    // MARK: Mappings

    func map(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard let number = device.descriptors.first else { return }
        let size = device.has(CKVMUSER_FEATURE_SHADOW) ? model(device).shadow.size : 0
        let offset = Self.page * UInt64(random.below(4))
        let count = Self.page * UInt64(1 + random.below(4))
        let flags = random.oneIn(5) ? MAP_PRIVATE : MAP_SHARED
        let protection = PROT_READ | (random.oneIn(3) ? 0 : PROT_WRITE) | (random.oneIn(6) ? PROT_EXEC : 0)
        let isGood = flags == MAP_SHARED && protection & PROT_EXEC == 0 && offset + count <= size
        let result = cfuzz_mmap(number, count, protection, flags, offset)
        guard isGood else {
            let expected = device.has(CKVMUSER_FEATURE_SHADOW) ? [-EINVAL, -EPERM] : [-ENODEV]
            return try expect(result, expected, "mmap of \(hex(count)) at \(hex(offset))")
        }
        try demand(result > 0, "mmap of \(hex(count)) at \(hex(offset)) gave \(result)")
        guard protection & PROT_WRITE != 0, device.mappings.count < 3 else {
            return try expect(cfuzz_munmap(UInt64(result), Int(count)), [0], "munmap")
        }
        device.mappings.append(.init(address: UInt64(result), offset: offset, count: count))
    }

    func unmap(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.mappings.isEmpty else { return }
        try checkMapping(device.mappings.remove(at: random.below(device.mappings.count)), device)
    }

    /// A mapping shows what was stored, whatever else is gone; then it goes too.
    func checkMapping(_ mapping: FuzzedDevice.Mapping, _ device: FuzzedDevice) throws {
        // Where image() stores.
        for place in Array(stride(from: 0, to: 0x240, by: 8))
            + stride(from: mapping.count - 64, to: mapping.count, by: 8)
        {
            let expected = model(device).shadow.word(at: mapping.offset + place)
            let found = cfuzz_load(mapping.address + place)
            try demand(
                found == expected,
                "the image holds \(hex(found)) at \(hex(mapping.offset + place)), not \(hex(expected))")
        }
        try expect(cfuzz_munmap(mapping.address, Int(mapping.count)), [0], "munmap")
    }

    /// Stores a word in the image.
    func image(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.mappings.isEmpty else { return }
        let mapping = random.pick(device.mappings)
        for _ in 0...random.below(8) {
            // The first bytes of the image and its last.
            let place =
                random.oneIn(4) ? mapping.count - 8 * UInt64(1 + random.below(8)) : 8 * UInt64(random.below(72))
            let value = random.next() & 0x7f7f_7f7f_7f7f_7f7f
            model(device).shadow.store(value, at: mapping.offset + place, model.now)
            cfuzz_store(mapping.address + place, value)
            model.tick()
        }
    }
}
