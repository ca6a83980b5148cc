// SPDX-License-Identifier: Apache-2.0
//
// The fuzzer for a short while, and whether its model would notice what it is there for.

import SystemPackage
import Testing

@Suite("Fuzzing", .serialized)
struct FuzzTests {
    private static let fuzzer: FilePath = ".build/debug/mmiofd-fuzz"

    // In a process of its own: a case that fails leaves vCPUs that nobody will ever answer.
    private func run(_ arguments: [String], within limit: Duration) throws -> (status: Int32, text: String) {
        try ModuleUnderTest.load()
        let command = try RunningCommand(Self.fuzzer, arguments: arguments)
        return (try command.end(within: limit), command.text)
    }

    @Test("F4: random operations on both descriptors for a minute: the module does what the model allows, no more")
    func fuzz() throws {
        let result = try run(
            ["run", "--seed", "1", "--duration", "60", "--shrinking", "60"], within: .seconds(400))
        #expect(result.status == 0, "\(result.text)")
        #expect(result.text.contains("no discrepancy"))
    }

    @Test(
        """
        O1, O2, O3: the model notices a lost store, a doubled one, two that changed places, a wrong value, a lost reply, \
        and in the ring a lost reply and a wrong count
        """,
        arguments: [
            "lostStore", "doubledStore", "swappedOrder", "wrongValue", "lostReply", "lostRingReply", "wrongRingCount",
        ])
    func planted(fault: String) throws {
        let result = try run(["one", "--seed", "1", "--length", "60", "--tampering", fault], within: .seconds(200))
        #expect(result.status == 1, "\(result.text)")
        #expect(result.text.contains("\(fault) was noticed"))
    }
}
