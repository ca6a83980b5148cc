// SPDX-License-Identifier: Apache-2.0
//
// How KVM hands one instruction's access on.

public import MMIOForwarding

extension ForwardedRequest {
    /// The requests that one guest instruction causes: KVM cuts at the page boundary, and every part into pieces of 8
    /// bytes with what is left last. 8 bytes at 0xffd are 3 and 5.
    ///
    /// - Parameters:
    ///   - kind: load or store.
    ///   - offset: bytes from the start of the range, which begins at a page boundary.
    ///   - count: how many bytes.
    ///   - bytes: a store's data, lowest address first; missing bytes are 0.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    /// - Returns: the requests, with sequence numbers from 1 up.
    public static func guestAccess(
        _ kind: Kind, _ offset: UInt64, _ count: Int, bytes: [UInt8] = [], rangeID: UInt32 = 0, vcpu: UInt32 = 0
    ) -> [ForwardedRequest] {
        var requests: [ForwardedRequest] = []
        var done = 0
        while done < count {
            let start = offset &+ UInt64(done)
            let length = min(count - done, 8, Int(0x1000 - start % 0x1000))
            let data = (0..<length).reversed().reduce(UInt64(0)) { value, index in
                value << 8 | UInt64(done + index < bytes.count ? bytes[done + index] : 0)
            }
            requests.append(
                ForwardedRequest(
                    sequence: UInt64(requests.count + 1), kind, offset: start, length: length, data: data,
                    rangeID: rangeID, vcpu: vcpu))
            done += length
        }
        return requests
    }
}
