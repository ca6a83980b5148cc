// SPDX-License-Identifier: Apache-2.0
//
// A guest for a device's tests: every call runs the real server.

public import DeviceEmulation
public import MMIOForwarding

/// A guest that does what a test says, to one device, through the real ``DeviceServer``.
///
/// ```swift
/// let guest = ScriptedGuest(Doorbell())
/// guest.store(0, .four, 1)
/// #expect(guest.load(0, .four) == 1)
/// ```
///
/// Everything happens on the calling thread: when a call returns, the device has carried the access out.
public struct ScriptedGuest<Device: MMIODevice & ~Copyable>: Sendable {
    /// The device, and the server's counters.
    public let shared: SharedDevice<Device>
    private let observer: RequestObserver?

    /// Attaches a device to the guest.
    ///
    /// - Parameters:
    ///   - device: the device.
    ///   - observer: sees every request with its reply.
    public init(_ device: consuming sending Device, observer: RequestObserver? = nil) {
        self.init(SharedDevice(device), observer: observer)
    }

    /// Attaches a device that other things reach too.
    ///
    /// - Parameters:
    ///   - shared: the device.
    ///   - observer: sees every request with its reply.
    public init(_ shared: SharedDevice<Device>, observer: RequestObserver? = nil) {
        self.shared = shared
        self.observer = observer
    }

    /// What the server has counted.
    public var counters: ServerCounters { shared.counters }

    /// Loads a value.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - width: how many bytes.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    /// - Returns: what the guest reads: all-ones, in that width, if the device refuses.
    public func load(_ offset: UInt64, _ width: AccessWidth, rangeID: UInt32 = 0, vcpu: UInt32 = 0) -> UInt64 {
        send([
            ForwardedRequest(
                sequence: 1, .load, offset: offset, length: width.bytes, rangeID: rangeID, vcpu: vcpu)
        ]).first?.data ?? .max
    }

    /// Stores a value.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - width: how many bytes.
    ///   - value: what is stored; bits beyond `width` are not.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    public func store(
        _ offset: UInt64, _ width: AccessWidth, _ value: UInt64, rangeID: UInt32 = 0, vcpu: UInt32 = 0
    ) {
        send([
            ForwardedRequest(
                sequence: 1, .store, offset: offset, length: width.bytes, data: value, rangeID: rangeID, vcpu: vcpu)
        ])
    }

    /// Loads any number of bytes in one instruction, at any alignment: they come as
    /// ``MMIOForwarding/ForwardedRequest/guestAccess(_:_:_:bytes:rangeID:vcpu:)`` says.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - count: how many bytes.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    /// - Returns: what the guest reads, lowest address first.
    public func loadBytes(_ offset: UInt64, _ count: Int, rangeID: UInt32 = 0, vcpu: UInt32 = 0) -> [UInt8] {
        let requests = ForwardedRequest.guestAccess(.load, offset, count, rangeID: rangeID, vcpu: vcpu)
        return zip(requests, send(requests)).flatMap { request, reply in
            (0..<request.length).map { UInt8(truncatingIfNeeded: reply.data >> UInt64(8 * $0)) }
        }
    }

    /// Stores any number of bytes in one instruction, at any alignment: they come as
    /// ``MMIOForwarding/ForwardedRequest/guestAccess(_:_:_:bytes:rangeID:vcpu:)`` says.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - bytes: what is stored, lowest address first.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    public func storeBytes(_ offset: UInt64, _ bytes: [UInt8], rangeID: UInt32 = 0, vcpu: UInt32 = 0) {
        send(ForwardedRequest.guestAccess(.store, offset, bytes.count, bytes: bytes, rangeID: rangeID, vcpu: vcpu))
    }

    /// Sends requests as they are, however malformed, in one go.
    ///
    /// - Parameter requests: their sequence numbers are replaced.
    /// - Returns: the replies, in the order of the requests.
    @discardableResult
    public func send(_ requests: [ForwardedRequest]) -> [ForwardedReply] {
        let bus = InMemoryBus()
        for request in requests {
            bus.submit(request.withSequence(bus.makeSequence()))
        }
        bus.end()
        do {
            try DeviceServer(shared, on: bus.transport(), observer: observer).run()
        } catch {
            fatalError("the server gave a reply that was not owed: \(error)")
        }
        return bus.replies
    }
}
