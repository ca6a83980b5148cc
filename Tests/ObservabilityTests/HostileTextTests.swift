// SPDX-License-Identifier: Apache-2.0
//
// Counters and trace lines of any bytes: nothing traps, and nothing gets through that a terminal would act on.

import Fuzzing
import SeededRandom
import Testing

@testable import Observability

@Suite("Hostile text from the kernel", .timeLimit(.minutes(10)))
struct HostileTextTests {
    @Test("Counters of any bytes", arguments: fuzzSeeds)
    func counters(seed: UInt64) {
        announce(seed, of: "counters")
        var random = SeededGenerator(seed: seed)
        let right = Array("requests 12\nposted 3\nlongest_wait_ns 18446744073709551615\n".utf8)
        var earlier: CounterSample?
        for _ in 0..<1000 {
            let bytes =
                Bool.random(using: &random) ? mutated(right, using: &random) : randomBytes(upTo: 300, using: &random)
            let counters = DeviceCounters.parse(bytes)
            #expect(Set(counters.map(\.name)).count == counters.count)
            let device = DeviceIdentity(
                process: .random(in: .min...(.max), using: &random), number: .random(in: 0...3, using: &random))
            let sample = CounterSample(
                nanoseconds: random.next(),
                devices: [DeviceCounters(device, command: nil, counters: counters)])
            let width = Int.random(in: 0...100, using: &random)
            let lines = CounterTable(sample, since: earlier).lines(width: width)
            #expect(lines.allSatisfy { $0.count <= width && Self.isShown($0) })
            // The same device again, or the rates would never be computed.
            earlier = CounterSample(
                nanoseconds: random.next(), devices: [DeviceCounters(device, command: nil, counters: counters)])
            for counter in counters {
                _ = earlier.map { sample.perSecond(counter, of: device, since: $0) }
            }
            _ = DeviceIdentity(parsing: String(decoding: bytes, as: UTF8.self))
        }
    }

    @Test("Trace lines of any bytes, in pieces of any size", arguments: fuzzSeeds)
    func trace(seed: UInt64) {
        announce(seed, of: "trace lines")
        var random = SeededGenerator(seed: seed)
        let right = Array(
            """
                vmm-812     [001] ...1.    12.045678: kvm_user_queued: dev=3 cpu=1 seq=17 store range=0 len=4 flags=0x0
            CPU:1 [LOST 12 EVENTS]
            emulate-9   [000] .....    12.045679: kvm_user_replied: dev=3 seq=17 store data=0x0 ret=0

            """.utf8)
        var unfinished: [UInt8] = []
        for _ in 0..<2000 {
            let bytes =
                Bool.random(using: &random) ? mutated(right, using: &random) : randomBytes(upTo: 300, using: &random)
            for item in TraceSession.lines(unfinished: &unfinished, bytes) {
                switch item {
                case .event(let event):
                    #expect(Self.isShown(event.command) && Self.isShown(event.name))
                    #expect(event.fields.allSatisfy { Self.isShown($0.value) && Self.isShown($0.name ?? "") })
                case .lost: break
                case .other(let text): #expect(Self.isShown(text))
                }
            }
        }
    }

    private static func isShown(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }
    }
}
