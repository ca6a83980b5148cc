// SPDX-License-Identifier: Apache-2.0
//
// The ring as this process has it mapped: every word of it may be read and written.

import CFuzz
import CKVMUser

/// Where a ring's memory is, and what is where in it.
struct RingMemory {
    let address: UInt64
    let layout: kvm_dev_user_ring

    static let stride = UInt64(KVM_USER_RING_STRIDE)
    /// Bytes of an entry that are a request; what follows is not looked at.
    static let used = UInt64(MemoryLayout<kvm_user_request>.size)

    /// The counts, and the flags.
    enum Word: CaseIterable {
        case requestHead, replyTail, refused, flags, requestTail, replyHead

        var offset: UInt64 {
            let path =
                switch self {
                case .requestHead: \kvm_user_ring.request_head
                case .replyTail: \kvm_user_ring.reply_tail
                case .refused: \kvm_user_ring.refused
                case .flags: \kvm_user_ring.flags
                case .requestTail: \kvm_user_ring.request_tail
                case .replyHead: \kvm_user_ring.reply_head
                }
            return UInt64(MemoryLayout<kvm_user_ring>.offset(of: path) ?? 0)
        }
    }

    var entries: UInt32 { layout.entries }

    func place(_ word: Word) -> UInt64 { address + word.offset }

    subscript(word: Word) -> UInt32 {
        get { cfuzz_load32(place(word)) }
        nonmutating set { cfuzz_store32(place(word), newValue) }
    }

    func request(_ count: UInt32) -> UInt64 {
        address + UInt64(layout.requests_offset) + UInt64(count % entries) * Self.stride
    }

    func reply(_ count: UInt32) -> UInt64 {
        address + UInt64(layout.replies_offset) + UInt64(count % entries) * Self.stride
    }

    /// How many requests the process has not said to have taken; of no meaning where it lied.
    var unread: UInt32 { self[.requestHead] &- self[.requestTail] }

    /// Whether there are some, and there will be whatever the kernel does.
    var isBehind: Bool { unread >= 1 && unread < 1 << 31 }
}
