// SPDX-License-Identifier: Apache-2.0
//
// Registers that a guest loads without asking the device.

import LinuxSystem
public import MMIOForwarding
import Synchronization
import SystemPackage

/// Registers of a device whose values lie open, in shadow memory: a load finds the value there and the device is not
/// asked.
///
/// A device names them once, keeps their values here and nowhere else, and gives them to the server as
/// ``MMIODevice/shadow``. Its `load` is never called for them, its `store` as ever:
///
/// ```swift
/// struct Doorbell: MMIODevice {
///     let shadow: ShadowRegisters? = ShadowRegisters([.register(0x0, .four), .register(0x8, .eight)])
///
///     func load(_ access: Access) throws(AccessFault) -> UInt64 { throw .noRegister }
///
///     func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
///         guard access.offset == 0x0, access.width == .four else { throw .noRegister }
///         shadow?[0x0, .four] = value
///         shadow?[0x8, .eight] &+= 1
///     }
/// }
/// ```
///
/// Over a transport with shadow memory, the emulation descriptor above all, the kernel answers these loads and the
/// guest does not leave it. Over every other transport they are requests, and the server answers them from the same
/// values. Loads of other widths than the register's, or unaligned ones, are always requests.
///
/// **What may be in it.** Registers without a side effect on load, since a load leaves no trace. A vCPU finds what its
/// own stores made of a register, for its load waits until those are replied to. It does *not* wait for other vCPUs'
/// stores: for a moment it may load what was there before them, even where the other vCPU has meanwhile told it by
/// other means that it stored. Leave out registers with which vCPUs talk to each other, or which a driver reads,
/// changes and writes back from whichever vCPU holds its lock.
///
/// Any thread may load and store values at any time, also while the guest runs: each is written and seen whole.
/// Adding to a register is a load and a store, so let one thread at a time do that, the one that has the device for
/// example.
public final class ShadowRegisters: Sendable {
    /// Part of a device: one register, or a block of memory.
    public struct Part: Sendable, Hashable {
        /// Offsets in the range.
        public let offsets: Range<UInt64>
        /// Loads that find a value here; all others are forwarded to the device.
        public let widths: ShadowMap.Widths
        /// The one range that it is in; nil for every range.
        public let rangeID: UInt32?

        /// A register.
        ///
        /// - Parameters:
        ///   - offset: bytes from the start of the range.
        ///   - width: its width, which loads must have.
        ///   - rangeID: the range that it is in; nil for every range.
        public static func register(_ offset: UInt64, _ width: AccessWidth, rangeID: UInt32? = nil) -> Part {
            Part(
                offsets: offset..<offset &+ UInt64(width.bytes), widths: ShadowMap.Widths(width), rangeID: rangeID)
        }

        /// Memory, which can be loaded in every width.
        ///
        /// - Parameters:
        ///   - offsets: bytes from the start of the range.
        ///   - rangeID: the range that it is in; nil for every range.
        public static func memory(_ offsets: Range<UInt64>, rangeID: UInt32? = nil) -> Part {
            Part(offsets: offsets, widths: .all, rangeID: rangeID)
        }
    }

    /// Which loads find a value, and where in the image.
    public let map: ShadowMap
    private let image: Mutex<ShadowImage>

    /// Makes registers that are all 0.
    ///
    /// - Parameter parts: not empty, and not overlapping; this is the device author's own table, and the program ends
    ///   where it is wrong.
    public init(_ parts: [Part]) {
        var layout = Layout()
        let offsets = parts.map { layout.place($0) }
        var map = ShadowMap(imageSize: max(1, layout.size))
        do {
            for (part, imageOffset) in zip(parts, offsets) {
                try map.add(
                    ShadowMap.Entry(
                        rangeID: part.rangeID, offset: part.offsets.lowerBound, length: UInt64(part.offsets.count),
                        imageOffset: imageOffset, widths: part.widths))
            }
            image = Mutex(try ShadowImage(size: map.imageSize))
        } catch {
            fatalError("\(error)")
        }
        self.map = map
    }

    /// Puts parts into an image, one after the other.
    private struct Layout {
        var size = 0

        /// Chooses a place that is aligned as the part is in its range.
        mutating func place(_ part: Part) -> UInt64 {
            let misalignment = Int(part.offsets.lowerBound % 8)
            let start = (size &+ 7 &- misalignment) & ~7 &+ misalignment
            size = start + part.offsets.count
            return UInt64(start)
        }
    }

    /// A value. What is not in the table reads all-ones and keeps nothing, as an empty place on a bus does.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - width: how many bytes; of a value that is stored, higher bits are ignored.
    ///   - rangeID: the range, where the table distinguishes them.
    public subscript(_ offset: UInt64, _ width: AccessWidth, rangeID rangeID: UInt32 = 0) -> UInt64 {
        get { value(offset, width, rangeID) ?? width.mask }
        set {
            guard let place = map.imageOffset(of: offset, length: width.bytes, in: rangeID) else { return }
            // The map keeps inside of the image.
            image.withLock { try? $0.store(newValue, at: place, length: width.bytes) }
        }
    }

    /// The value that a load finds; nil if it is the device that has to be asked.
    public func value(of access: Access) -> UInt64? {
        value(access.offset, access.width, access.rangeID)
    }

    private func value(_ offset: UInt64, _ width: AccessWidth, _ rangeID: UInt32) -> UInt64? {
        guard let place = map.imageOffset(of: offset, length: width.bytes, in: rangeID) else { return nil }
        return image.withLock { try? $0.load(at: place, length: width.bytes) }
    }

    /// How many bytes ``save(to:at:)`` fills.
    public var savedSize: Int { map.imageSize }

    /// Writes all values down, as part of ``MMIODevice/save(to:)``.
    ///
    /// - Parameters:
    ///   - bytes: room for them.
    ///   - start: where they begin in it, with ``savedSize`` bytes after that.
    public func save(to bytes: inout MutableRawSpan, at start: Int) {
        image.withLock { image in
            for offset in 0..<max(0, min(savedSize, bytes.byteCount - start)) {
                // The image has these bytes.
                guard let value = try? image.load(at: UInt64(offset), length: 1) else { return }
                bytes.storeBytes(of: UInt8(truncatingIfNeeded: value), toByteOffset: start + offset, as: UInt8.self)
            }
        }
    }

    /// Takes all values from what was written down.
    ///
    /// - Parameters:
    ///   - bytes: what ``save(to:at:)`` left.
    ///   - start: where it begins.
    public func restore(from bytes: RawSpan, at start: Int) {
        image.withLock { image in
            for offset in 0..<max(0, min(savedSize, bytes.byteCount - start)) {
                let value = unsafe bytes.unsafeLoad(fromByteOffset: start + offset, as: UInt8.self)
                try? image.store(UInt64(value), at: UInt64(offset), length: 1)
            }
        }
    }

    /// Moves the values to where the transport answers loads from, if it does that.
    ///
    /// - Returns: whether it does.
    /// - Throws: `ForwardingError`; the values stay where they are then.
    func move(to transport: inout some RequestTransport & ~Copyable) throws(ForwardingError) -> Bool {
        // Under the lock: no value is stored into the old image once it has been copied.
        try image.withLock { current throws(ForwardingError) in
            let place = try transport.placeShadow(map) { current.copy(to: $0) }
            guard let place else { return false }
            current = place
            return true
        }
    }
}

extension ShadowMap.Widths {
    /// Just this width.
    init(_ width: AccessWidth) {
        self.init(rawValue: UInt32(width.bytes))
    }
}
