// SPDX-License-Identifier: Apache-2.0
//
// What reaches KVM's bus at a time: an access of the guest, or a part of one.

import GuestPrograms

/// A fragment of a guest's access, and what has become of it.
final class Piece {
    let vcpu: Int
    /// Which access of the vCPU, from 0.
    let access: Int
    let fragment: GuestAccess
    /// The device in whose area it lies.
    let device: Int
    /// When the guest was told to make it.
    let issued: Moment
    /// When it was seen to be over: executed, which for a store says nothing of the device.
    var done: Moment?
    /// The request that it became.
    var sequence: UInt64?
    /// The reply that the kernel accepted; of a store 0.
    var reply: UInt64?
    /// Another one, where the process changed it while the kernel looked.
    var otherReply: UInt64?
    /// What the VMM gave, where the access went there.
    var given: UInt64?
    /// The device was closed, or changed its policy, with the request taken or held.
    var aborted = false

    init(_ fragment: GuestAccess, of access: Int, on vcpu: Int, device: Int, issued: Moment) {
        self.fragment = fragment
        self.access = access
        self.vcpu = vcpu
        self.device = device
        self.issued = issued
    }

    var isStore: Bool { fragment.kind == .store }
    var value: UInt64 { UInt64(truncatingIfNeeded: fragment.value) }
    /// The bits that its bytes hold.
    var mask: UInt64 { UInt64.max >> UInt64(64 - 8 * fragment.length) }
}

extension Piece: CustomStringConvertible {
    var description: String {
        "vCPU \(vcpu) access \(access), \(fragment)" + (sequence.map { " (request \($0))" } ?? "")
    }
}
