// SPDX-License-Identifier: Apache-2.0
//
// Requests that this library cannot have made: told apart here, made here for tests.

import CKVMUser

extension ForwardedRequest {
    /// Whether ``kind`` is what the other side sent; false for a kind of a later ABI, or rubbish.
    package var hasKnownKind: Bool {
        raw.type == UInt16(KVM_USER_LOAD) || raw.type == UInt16(KVM_USER_STORE)
    }

    /// The same request with any number as its kind.
    package func withRawKind(_ type: UInt16) -> ForwardedRequest {
        var raw = raw
        raw.type = type
        return ForwardedRequest(raw: raw)
    }

    /// The same request under another sequence number.
    package func withSequence(_ sequence: UInt64) -> ForwardedRequest {
        var raw = raw
        raw.seq = sequence
        return ForwardedRequest(raw: raw)
    }
}
