// SPDX-License-Identifier: Apache-2.0
//
// Requests whose bytes nobody has checked.

package import MMIOForwarding
package import SeededRandom

/// A request made of random bytes.
package func randomRequest(using random: inout SeededGenerator) -> ForwardedRequest {
    reinterpreted((0..<MemoryLayout<ForwardedRequest>.size).map { _ in .random(in: 0...255, using: &random) })
}

/// A request that a guest could make of a device of this size, but for a few bytes that are at random.
package func mutatedRequest(window: UInt64, using random: inout SeededGenerator) -> ForwardedRequest {
    let request = ForwardedRequest(
        sequence: .random(in: 1...(.max), using: &random), Bool.random(using: &random) ? .load : .store,
        offset: .random(in: 0...window, using: &random), length: .random(in: 1...8, using: &random),
        data: .random(in: 0...(.max), using: &random))
    var bytes = unsafe withUnsafeBytes(of: request) { unsafe [UInt8]($0) }
    for _ in 0..<Int.random(in: 0...2, using: &random) {
        bytes[.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
    }
    return reinterpreted(bytes)
}

/// SAFETY: any 40 bytes are a value of a BitwiseCopyable C structure, which is what a request is.
private func reinterpreted(_ bytes: [UInt8]) -> ForwardedRequest {
    unsafe bytes.withUnsafeBytes { unsafe $0.loadUnaligned(as: ForwardedRequest.self) }
}
