// SPDX-License-Identifier: Apache-2.0
//
// What a device has to be able to do.

/// A device that a guest reaches by loads and stores, in memory or on the port bus.
///
/// Values, not bytes, go in and out: a device never sees a length to check or an endianness. It needs no locks: one
/// access is carried out at a time, whatever the number of vCPUs and of emulation threads, in the order in which the
/// guest made them (``DeviceServer`` states the order exactly).
///
/// ```swift
/// struct Doorbell: MMIODevice {
///     private var rings: UInt64 = 0
///
///     mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
///         guard access.offset == 0 else { throw .noRegister }
///         return rings
///     }
///
///     mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
///         guard access.offset == 0 else { throw .noRegister }
///         rings &+= 1
///     }
/// }
///
/// try DeviceServer(Doorbell(), on: emulationDescriptor).run()
/// ```
///
/// A guest chooses offsets and values freely. Where it could make arithmetic trap, use `&+`, `&-` and friends.
public protocol MMIODevice: ~Copyable {
    /// Carries out a load that ``shadow`` does not answer.
    ///
    /// - Parameter access: what is loaded, and by whom.
    /// - Returns: the value; bits beyond the access's width are ignored.
    /// - Throws: why there is no such load; the guest then reads all-ones.
    mutating func load(_ access: Access) throws(AccessFault) -> UInt64

    /// Carries out a store.
    ///
    /// The guest has gone on already: nothing that happens here can be told to it.
    ///
    /// - Parameters:
    ///   - value: what is stored; bits beyond the access's width are zero.
    ///   - access: where to, and by whom.
    /// - Throws: why there is no such store; it is then dropped.
    mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault)

    /// The widest access that the device's bus interface takes; the server splits wider ones. 8 bytes unless said
    /// otherwise; ``AccessWidth/one`` for a device on an 8-bit bus, whose wide accesses reach consecutive registers.
    var widestAccess: AccessWidth { get }

    /// Registers that can be loaded without asking the device; none unless said otherwise. Always the same object.
    var shadow: ShadowRegisters? { get }

    /// What to call the device in logs. The type's name unless said otherwise; a ~Copyable device has to say.
    var label: String { get }

    /// How many bytes ``save(to:)`` fills, the same for all devices of the type; 0 unless said otherwise, for a device
    /// that begins anew in every process.
    var savedSize: Int { get }

    /// Writes down all that a guest can notice of the device, for ``restore(from:)`` in another process.
    ///
    /// Called after each batch of a device with a ``DeviceRecord``, before its replies leave.
    ///
    /// - Parameter bytes: room for ``savedSize`` bytes.
    func save(to bytes: inout MutableRawSpan)

    /// Becomes the device that was written down; called once, before the first access.
    ///
    /// - Parameter bytes: what ``save(to:)`` of the same type left.
    mutating func restore(from bytes: RawSpan)
}

extension MMIODevice where Self: ~Copyable {
    /// 8 bytes: nothing is split that a guest aligned.
    public var widestAccess: AccessWidth { .eight }

    /// None: the device is asked for every load.
    public var shadow: ShadowRegisters? { nil }
    /// 0: the device begins anew in every process.
    public var savedSize: Int { 0 }
    /// Writes nothing.
    public func save(to bytes: inout MutableRawSpan) {}
    /// Does nothing.
    public mutating func restore(from bytes: RawSpan) {}
}

extension MMIODevice {
    /// The name of the type.
    public var label: String { _typeName(Self.self, qualified: false) }
}
