// SPDX-License-Identifier: Apache-2.0
//
// Threads and hostile requests for the tests.

import DeviceEmulation
import Fuzzing
import LinuxSystem
import MMIOForwarding
import SeededRandom
import SystemPackage

/// A ServerThread that an array can hold.
final class ServerHandle {
    private var thread: ServerThread?

    init(_ thread: consuming ServerThread) {
        self.thread = consume thread
    }

    func wait() throws(Errno) -> ServerEnd? {
        guard let thread = thread.take() else { return nil }
        return try thread.wait()
    }
}

/// A NativeThread that an array can hold.
final class ThreadHandle {
    private var thread: NativeThread?

    init(_ body: @escaping @Sendable () -> Void) throws(Errno) {
        thread = try NativeThread(body)
    }

    func join() {
        thread.take()?.join()
    }
}

extension ForwardedRequest {
    /// A request whose every field is likely to be at an edge.
    static func hostile(using random: inout SeededGenerator) -> ForwardedRequest {
        let offset: UInt64 =
            switch UInt8.random(in: 0..<4, using: &random) {
            case 0: .random(in: 0..<80, using: &random)
            case 1: 0 &- .random(in: 0..<20, using: &random)
            case 2: 1 << UInt64.random(in: 0..<64, using: &random)
            default: .random(in: 0...(.max), using: &random)
            }
        let length =
            Bool.random(using: &random)
            ? Int.random(in: 1...8, using: &random) : .random(in: 0...70_000, using: &random)
        let request = ForwardedRequest(
            sequence: 1, Bool.random(using: &random) ? .load : .store, offset: offset, length: length,
            data: .random(in: 0...(.max), using: &random), rangeID: .random(in: 0...(.max), using: &random),
            vcpu: .random(in: 0...(.max), using: &random), redelivered: .random(using: &random))
        guard UInt8.random(in: 0..<8, using: &random) == 0 else { return request }
        return request.withRawKind(.random(in: 0...(.max), using: &random))
    }
}
