// SPDX-License-Identifier: Apache-2.0
//
// A device of a run: its descriptors and mappings.

import CFuzz
import CKVMUser
import GuestPrograms
import LinuxSystem
import MMIOForwarding
import SeededRandom

/// What the driver holds of a device.
final class FuzzedDevice {
    let index: Int
    let character: FuzzCase.Character
    /// Until it is closed.
    var control: Box<ControlDescriptor>?
    let features: UInt64
    let maximumShadow: UInt64
    /// Numbers of the emulation descriptor; empty while this process has none.
    var descriptors: [CInt] = []
    /// Whether reads of it may block.
    var isNonBlocking = false
    /// The ring's memory, while there is a ring.
    var ring: RingMemory?
    /// Mappings of the image.
    var mappings: [Mapping] = []

    struct Mapping {
        let address: UInt64
        let offset: UInt64
        let count: UInt64
    }

    init(_ index: Int, _ character: FuzzCase.Character, _ control: consuming ControlDescriptor) throws {
        self.index = index
        self.character = character
        let information = try control.information()
        features = information.features.rawValue
        maximumShadow = information.maximumShadowSize
        self.control = Box(control)
    }

    var controlNumber: CInt? { control?.value.descriptor.rawValue }

    var isSteady: Bool { character == .steady }

    func has(_ feature: UInt64) -> Bool { features & feature != 0 }

    /// Guest physical addresses that are this device's; nobody else has anything there.
    var memory: Range<UInt64> {
        let start = 0xd000_0000 + UInt64(index) << 20
        return start..<(start + 0x8000)
    }

    /// Its ports.
    var ports: Range<UInt64> {
        let start = 0x2000 + UInt64(index) << 8
        return start..<(start + 0x40)
    }

    /// An access to it: mostly to where it answers now.
    func access(_ model: DeviceModel, _ random: inout SeededGenerator) -> GuestAccess {
        if random.oneIn(2), let load = shadowed(model, &random) { return load }
        let place = model.current.isEmpty || random.oneIn(8) ? nil : random.pick(model.current)
        let bus = place?.bus ?? (random.oneIn(6) ? .port : .memory)
        let area = bus == .port ? ports : memory
        let length = random.pick(bus == .port ? [1, 2, 4] : [1, 2, 4, 8, 4, 8, 16])
        let start = place?.address ?? area.lowerBound
        let size = place?.length ?? UInt64(area.count)
        let offset = Self.offset(size, length, &random)
        // Never past the area, where another device may begin.
        let address = min(start + offset, area.upperBound - UInt64(length))
        let low = random.next() & 0x7f7f_7f7f_7f7f_7f7f
        return random.below(5) < 3
            ? .store(UInt128(~low) << 64 | UInt128(low), length, at: address, on: bus)
            : .load(length, at: address, on: bus)
    }

    /// A load of what the shadow image answers, or nearly so.
    private func shadowed(_ model: DeviceModel, _ random: inout SeededGenerator) -> GuestAccess? {
        guard let entry = model.shadow.entries.randomElement(using: &random),
            let place = model.current(entry.range_id), place.bus == .memory
        else { return nil }
        let length = random.pick([1, 2, 4, 8, 8])
        var offset = entry.offset + UInt64(random.below(Int(min(entry.len, 0x100))))
        switch random.below(4) {
        case 0: break
        case 1: offset = entry.offset + entry.len - UInt64(1 + random.below(Int(min(entry.len, 8))))
        default: offset &= ~UInt64(length - 1)
        }
        guard offset < place.length else { return nil }
        // The first piece of one that crosses a page may be of 3 bytes.
        return .load(length, at: min(place.address + offset, memory.upperBound - UInt64(length)))
    }

    /// An offset in a range: near the ends of pages often, aligned often, few of them so that loads meet stores.
    private static func offset(_ size: UInt64, _ length: Int, _ random: inout SeededGenerator) -> UInt64 {
        let room = size > UInt64(length) ? size - UInt64(length) : 0
        switch random.below(4) {
        case 0: return UInt64(random.below(Int(room + 1)))
        case 1: return min(room, UInt64(0x1000 - random.below(length + 1)))
        default: return min(room, UInt64(length * random.below(8)))
        }
    }
}

/// Keeps a value that cannot be copied where only copyable ones go.
final class Box<Value: ~Copyable> {
    let value: Value

    init(_ value: consuming Value) {
        self.value = value
    }
}
