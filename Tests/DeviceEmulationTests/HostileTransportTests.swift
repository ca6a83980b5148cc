// SPDX-License-Identifier: Apache-2.0
//
// A transport that breaks every promise of its own: the server answers what there is and ends.

import DeviceEmulation
import Fuzzing
import MMIOForwarding
import SeededRandom
import SystemPackage
import Testing

/// Gives random requests, counts and errors; after a while the machine is gone.
private struct HostileTransport: RequestTransport, ~Copyable {
    var random: SeededGenerator
    var left = 50
    var staleReplies: UInt64 = 0

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
    }

    mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        left -= 1
        staleReplies = .random(in: 0...(.max), using: &random)
        guard left > 0 else { return 0 }
        for index in requests.indices { requests[index] = randomRequest(using: &random) }
        switch Int.random(in: 0..<20, using: &random) {
        case 0: throw .interrupted
        case 1: throw Errno(rawValue: .random(in: 1...200, using: &random))
        case 2: return .random(in: .min...(.max), using: &random)
        default: return .random(in: 0...requests.count, using: &random)
        }
    }
}

@Suite("Hostile transport", .timeLimit(.minutes(10)))
struct HostileTransportTests {
    @Test("Whatever comes, and however much it says it is, the server ends", arguments: fuzzSeeds)
    func anything(seed: UInt64) {
        announce(seed, of: "the transport")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let shared = SharedDevice(RecordingDevice())
            Self.serve(
                shared, HostileTransport(seed: random.next()), batch: .random(in: -1...20, using: &random))
            let broken = shared.withDevice { device in
                device.entries.contains { $0.access.offset % UInt64($0.access.width.bytes) != 0 }
            }
            #expect(!broken)
        }
    }

    @Test("A count that is none ends the server", arguments: [Int.min, -1, 0])
    func negativeCount(count: Int) throws {
        struct Negative: RequestTransport, ~Copyable {
            let count: Int
            let staleReplies: UInt64 = 0

            mutating func exchange(
                _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
            ) throws(Errno) -> Int {
                count
            }
        }
        let shared = SharedDevice(RecordingDevice())
        #expect(try DeviceServer(shared, on: Negative(count: count)).run() == .machineGone)
        #expect(shared.counters.requests == 0)
    }

    private static func serve(
        _ device: SharedDevice<RecordingDevice>, _ transport: consuming HostileTransport, batch: Int
    ) {
        // An errno is an answer too.
        _ = try? DeviceServer(device, on: transport, batch: batch).run()
    }
}
