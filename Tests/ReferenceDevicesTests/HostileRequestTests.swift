// SPDX-License-Identifier: Apache-2.0
//
// Every device against requests of any bytes, through the server.

import DeviceEmulation
import DeviceEmulationTesting
import Fuzzing
import MMIOForwarding
import ReferenceDevices
import SeededRandom
import Testing

@Suite("Hostile requests to devices", .timeLimit(.minutes(10)))
struct HostileRequestTests {
    @Test(
        "No request makes a device trap, and each is replied to once",
        arguments: ReferenceDevice.all.map(\.name), fuzzSeeds)
    func anything(name: String, seed: UInt64) throws {
        announce(seed, of: "requests to \(name)")
        let device = try #require(ReferenceDevice.named(name))
        Self.drive(device.make(.init(interrupt: CountingInterruptLine())), device.windowSize, seed)
    }

    private static func drive(_ device: some MMIODevice & Sendable, _ window: UInt64, _ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let guest = ScriptedGuest(device)
        for _ in 0..<20 {
            let requests = (0..<500).map { _ in
                Bool.random(using: &random)
                    ? randomRequest(using: &random) : mutatedRequest(window: window, using: &random)
            }
            #expect(guest.send(requests).count == requests.count)
        }
        #expect(guest.counters.requests == 10_000)
        #expect(guest.counters.malformed > 0 && guest.counters.loads > 0 && guest.counters.stores > 0)
    }
}
