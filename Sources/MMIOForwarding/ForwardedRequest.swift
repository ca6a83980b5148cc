// SPDX-License-Identifier: Apache-2.0
//
// A guest access as it leaves the kernel, and the reply as it goes back.

import CKVMUser

/// A guest's load or store, as KVM handed it over. C: `struct kvm_user_request`.
///
/// KVM splits accesses: 16 bytes come as two requests, and an access that crosses a page comes in two parts of
/// whatever size, 3 and 5 bytes say. So ``length`` is 1 to 8, and not always a power of two.
public struct ForwardedRequest: Sendable, BitwiseCopyable {
    var raw: kvm_user_request

    /// What the guest did.
    public enum Kind: Sendable, Hashable {
        /// It waits for data.
        case load
        /// It has gone on; the data is ``ForwardedRequest/data``.
        case store
    }

    /// Makes a request, as a kernel or another transport would: for transports and tests.
    ///
    /// - Parameters:
    ///   - sequence: unique in the device's life, not 0.
    ///   - kind: load or store.
    ///   - offset: bytes from the start of the range.
    ///   - length: bytes, 1 to 8.
    ///   - data: a store's value; bytes beyond `length` are cleared.
    ///   - rangeID: the range that was accessed.
    ///   - vcpu: index of the vCPU.
    ///   - redelivered: whether it was read before without a reply.
    public init(
        sequence: UInt64, _ kind: Kind, offset: UInt64, length: Int, data: UInt64 = 0, rangeID: UInt32 = 0,
        vcpu: UInt32 = 0, redelivered: Bool = false
    ) {
        raw = kvm_user_request(
            seq: sequence, offset: offset, data: kind == .store ? data & Self.mask(length) : 0, range_id: rangeID,
            cpu: vcpu, type: UInt16(kind == .load ? KVM_USER_LOAD : KVM_USER_STORE),
            len: UInt16(truncatingIfNeeded: length), flags: redelivered ? KVM_USER_REQUEST_REDELIVERED : 0)
    }

    init(raw: kvm_user_request) {
        self.raw = raw
    }

    /// Names the request in the device's life; never 0. Nothing else may be concluded from it.
    public var sequence: UInt64 { raw.seq }
    /// Load or store.
    public var kind: Kind { raw.type == UInt16(KVM_USER_LOAD) ? .load : .store }
    /// Bytes from the start of the range.
    public var offset: UInt64 { raw.offset }
    /// How many bytes, 1 to 8.
    public var length: Int { Int(raw.len) }
    /// A store's value, little endian, with the unused bytes zero; 0 for a load.
    public var data: UInt64 { raw.data }
    /// The range, by the number that the VMM gave it.
    public var rangeID: UInt32 { raw.range_id }
    /// Index of the vCPU.
    public var vcpu: UInt32 { raw.cpu }
    /// Whether it was read before, by a process that closed the descriptor without a reply to it.
    public var isRedelivered: Bool { raw.flags & KVM_USER_REQUEST_REDELIVERED != 0 }

    /// The mask of the bits that `length` bytes hold; no bits for 0 or less, all for 8 or more.
    package static func mask(_ length: Int) -> UInt64 {
        ~(UInt64.max << UInt64(8 * max(0, min(length, 8))))
    }

    /// The reply that completes a load with `value`, of which the lowest ``length`` bytes count.
    ///
    /// For a store this is its acknowledgement, and the value is ignored.
    public func reply(_ value: UInt64 = 0) -> ForwardedReply {
        var raw = raw
        raw.data = kind == .load ? value & Self.mask(length) : 0
        return ForwardedReply(raw: raw)
    }
}

/// What completes a ``ForwardedRequest``: made by ``ForwardedRequest/reply(_:)``.
public struct ForwardedReply: Sendable, BitwiseCopyable {
    var raw: kvm_user_request

    /// The sequence number of the request that it completes.
    public var sequence: UInt64 { raw.seq }
    /// Load or store.
    public var kind: ForwardedRequest.Kind { raw.type == UInt16(KVM_USER_LOAD) ? .load : .store }
    /// A load's value, with the unused bytes zero; 0 for a store.
    public var data: UInt64 { raw.data }
    /// Whether it acknowledges as well every store that was read before its request, by whichever thread; none of
    /// them is owed a reply then. C: `KVM_USER_REPLY_CUMULATIVE`.
    ///
    /// Only for a module with ``DeviceInformation/Features/cumulativeReplies``.
    public var isCumulative: Bool {
        get { raw.flags & KVM_USER_REPLY_CUMULATIVE != 0 }
        set {
            raw.flags &= ~KVM_USER_REPLY_CUMULATIVE
            if newValue { raw.flags |= KVM_USER_REPLY_CUMULATIVE }
        }
    }
}

extension ForwardedRequest: Hashable, CustomStringConvertible {
    public static func == (one: Self, other: Self) -> Bool {
        one.fields == other.fields
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(fields)
    }

    private var fields: [UInt64] {
        [
            raw.seq, raw.offset, raw.data, UInt64(raw.range_id), UInt64(raw.cpu), UInt64(raw.type), UInt64(raw.len),
            UInt64(raw.flags),
        ]
    }

    public var description: String {
        let what = kind == .load ? "load" : "store 0x\(String(data, radix: 16))"
        return "#\(sequence) vCPU \(vcpu) \(what) [\(rangeID)]+0x\(String(offset, radix: 16)) len \(length)"
            + (isRedelivered ? " redelivered" : "")
    }
}
