// SPDX-License-Identifier: Apache-2.0
//
// A device with one of everything that a device can have: for tests, demonstrations and measurements.

public import DeviceEmulation

/// A device with registers of every width, memory, a doorbell, a load with a side effect, and a checksum by which a
/// guest and its host agree on every store and its order.
///
/// The same registers answer in every range. The window is 4 KiB; beyond it, and in the gaps, is nothing.
///
/// | offset | width | access | name | what it does |
/// |---|---|---|---|---|
/// | 0x000 | 4 | load | ID | reads 0x4d4d494f, "MMIO" |
/// | 0x008 | 1 | both | DATA8 | keeps what is stored |
/// | 0x00a | 2 | both | DATA16 | keeps what is stored |
/// | 0x00c | 4 | both | DATA32 | keeps what is stored |
/// | 0x010 | 8 | both | DATA64 | keeps what is stored |
/// | 0x018 | 4, 8 | load | TICKET | counts its own loads: reads 0, 1, 2 … |
/// | 0x020 | 4 | store | DOORBELL | counts stores, keeps the last value, interrupts |
/// | 0x028 | 8 | load | RINGS | how many stores DOORBELL had |
/// | 0x030 | 4 | load | LASTRING | the value last stored to DOORBELL |
/// | 0x038 | 8 | load | CHECKSUM | ``checksum(_:adding:_:)`` over every store that took effect, in order |
/// | 0x040 | 8 | load | STORES | how many that were |
/// | 0x048 | 8 | load | LOADS | how many loads the device was asked for before this one |
/// | 0x050 | 4 | both | EVENTS | reads and clears; a store sets the bits that are 1 |
/// | 0x400–0xfff | any | both | MEMORY | 3 KiB of memory, little endian |
///
/// A width that the table does not name is refused, a load from DOORBELL too, and a store to what can only be loaded.
/// Neither counts in STORES, LOADS or CHECKSUM. A redelivered access is carried out like any other.
///
/// All but TICKET, DOORBELL, LOADS and EVENTS can be loaded without a side effect, and those are in ``shadow``: no
/// load of them asks the device, and LOADS does not count it. A vCPU that wants to see what *another* one stored loads
/// one of the rest first: that load comes after all stores of all vCPUs before it. All registers and the memory can be
/// saved.
public struct Scratch: MMIODevice, Sendable {
    /// Offsets of the registers.
    public enum Register: UInt64, Sendable, CaseIterable {
        /// Reads ``Scratch/identification``.
        case id = 0x000
        /// Keeps 1 byte.
        case data8 = 0x008
        /// Keeps 2 bytes.
        case data16 = 0x00a
        /// Keeps 4 bytes.
        case data32 = 0x00c
        /// Keeps 8 bytes.
        case data64 = 0x010
        /// Counts its own loads.
        case ticket = 0x018
        /// Counts its stores, and interrupts.
        case doorbell = 0x020
        /// How often the doorbell was rung.
        case rings = 0x028
        /// With which value it was rung last.
        case lastRing = 0x030
        /// The checksum of all stores.
        case checksum = 0x038
        /// How many stores there were.
        case stores = 0x040
        /// How many loads there were.
        case loads = 0x048
        /// Reads and clears.
        case events = 0x050
    }

    /// What ID reads: "MMIO" in ASCII, the first letter in the highest byte.
    public static let identification: UInt64 = 0x4d4d_494f
    /// Size of the window in bytes.
    public static let windowSize: UInt64 = 0x1000
    /// Where the memory is.
    public static let memory: Range<UInt64> = 0x400..<0x1000

    /// The checksum of no stores.
    public static let initialChecksum: UInt64 = 0x6d6d_696f_6664_0001

    /// The checksum after one more store. Order, place, width and value all matter.
    ///
    /// The old sum is rotated left by 5, exclusive-ored with the value, the offset rotated left by 48 and the width
    /// rotated left by 40, and multiplied by 0x9e3779b97f4a7c15 modulo 2^64.
    ///
    /// - Parameters:
    ///   - checksum: the sum so far, from ``initialChecksum`` on.
    ///   - value: what is stored, bits beyond the width zero.
    ///   - access: where to; only offset and width count.
    /// - Returns: the new sum.
    public static func checksum(_ checksum: UInt64, adding value: UInt64, _ access: Access) -> UInt64 {
        let place = rotate(access.offset, by: 48) ^ rotate(UInt64(access.width.bytes), by: 40)
        return (rotate(checksum, by: 5) ^ value ^ place) &* 0x9e37_79b9_7f4a_7c15
    }

    /// How often DOORBELL was stored to.
    public private(set) var rings: UInt64 = 0 {
        didSet { registers[.rings, .eight] = rings }
    }
    /// What was stored to DOORBELL last.
    public private(set) var lastRing: UInt64 = 0 {
        didSet { registers[.lastRing, .four] = lastRing }
    }
    /// The checksum of all stores so far.
    public private(set) var checksum = Self.initialChecksum {
        didSet { registers[.checksum, .eight] = checksum }
    }
    /// Stores that took effect.
    public private(set) var stores: UInt64 = 0 {
        didSet { registers[.stores, .eight] = stores }
    }
    /// Loads that the device was asked for, and answered.
    public private(set) var loads: UInt64 = 0

    private var ticket: UInt64 = 0
    private var events: UInt64 = 0
    private let registers = ShadowRegisters([
        .register(.id, .four), .register(.data8, .one), .register(.data16, .two), .register(.data32, .four),
        .register(.data64, .eight), .register(.rings, .eight), .register(.lastRing, .four),
        .register(.checksum, .eight), .register(.stores, .eight), .memory(memory),
    ])
    private let interrupt: (any InterruptLine)?

    /// Makes the device, everything zero.
    ///
    /// - Parameter interrupt: what DOORBELL raises.
    public init(interrupt: (any InterruptLine)? = nil) {
        self.interrupt = interrupt
        registers[.id, .four] = Self.identification
        registers[.checksum, .eight] = checksum
    }

    public var label: String { "scratch" }
    public var shadow: ShadowRegisters? { registers }

    public mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        let value = try value(at: access)
        loads &+= 1
        return value
    }

    public mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        try keep(value, at: access)
        stores &+= 1
        checksum = Self.checksum(checksum, adding: value, access)
    }

    private mutating func value(at access: Access) throws(AccessFault) -> UInt64 {
        guard let register = Register(rawValue: access.offset) else { throw .noRegister }
        guard register.takes(access.width) else { throw .unsupportedWidth }
        switch register {
        case .ticket:
            defer { ticket &+= 1 }
            return ticket
        case .loads: return loads
        case .events:
            defer { events = 0 }
            return events
        case .doorbell: throw .writeOnly
        case .id, .data8, .data16, .data32, .data64, .rings, .lastRing, .checksum, .stores:
            return registers[register, access.width]
        }
    }

    private mutating func keep(_ value: UInt64, at access: Access) throws(AccessFault) {
        if access.position(in: Self.memory) != nil {
            registers[access.offset, access.width] = value
            return
        }
        guard let register = Register(rawValue: access.offset) else { throw .noRegister }
        guard register.takes(access.width) else { throw .unsupportedWidth }
        switch register {
        case .data8, .data16, .data32, .data64: registers[register, access.width] = value
        case .doorbell:
            rings &+= 1
            lastRing = value
            interrupt?.signal()
        case .events: events |= value
        case .id, .ticket, .rings, .lastRing, .checksum, .stores, .loads: throw .readOnly
        }
    }

    // MARK: What outlives a process

    /// What is not in ``shadow``, or not only there.
    private var counts: InlineArray<7, UInt64> {
        get { [ticket, rings, lastRing, checksum, stores, loads, events] }
        set {
            (ticket, rings, lastRing, checksum) = (newValue[0], newValue[1], newValue[2], newValue[3])
            (stores, loads, events) = (newValue[4], newValue[5], newValue[6])
        }
    }

    /// The counts, and then the registers.
    public var savedSize: Int { 8 * 7 + registers.savedSize }

    public func save(to saved: inout MutableRawSpan) {
        let counts = counts
        for index in counts.indices {
            saved.storeBytes(of: counts[index], toByteOffset: 8 * index, as: UInt64.self)
        }
        registers.save(to: &saved, at: 8 * 7)
    }

    public mutating func restore(from saved: RawSpan) {
        counts = InlineArray { unsafe saved.unsafeLoadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self) }
        registers.restore(from: saved, at: 8 * 7)
    }

    private static func rotate(_ value: UInt64, by count: UInt64) -> UInt64 {
        value << count | value >> (64 - count)
    }
}

extension Scratch.Register {
    /// Whether the register answers to accesses of this width.
    public func takes(_ width: AccessWidth) -> Bool {
        switch self {
        case .data8: width == .one
        case .data16: width == .two
        case .id, .data32, .doorbell, .lastRing, .events: width == .four
        case .data64, .rings, .checksum, .stores, .loads: width == .eight
        case .ticket: width == .four || width == .eight
        }
    }
}

extension ShadowRegisters {
    fileprivate subscript(_ register: Scratch.Register, _ width: AccessWidth) -> UInt64 {
        get { self[register.rawValue, width] }
        set { self[register.rawValue, width] = newValue }
    }
}

extension ShadowRegisters.Part {
    fileprivate static func register(_ register: Scratch.Register, _ width: AccessWidth) -> Self {
        .register(register.rawValue, width)
    }
}
