// SPDX-License-Identifier: Apache-2.0
//
// A console that prints anything: a kernel that is broken, or a command that imitates one.

import Fuzzing
import SeededRandom
import Testing

@testable import Lab

@Suite("Hostile console", .timeLimit(.minutes(10)))
struct HostileConsoleTests {
    private static let right = Array(
        """
        [    0.000000] Linux version 6.1.0\r
        [    3.141592][    T1] \(GuestScript.startMark)\r
        [   12.345678][  T123] BUG: KASAN: slab-use-after-free in kvm_user_read+0x1f2/0x3a0 [kvm_user]\r
        [   12.345679][  C1] Call Trace:\r
        [   13.000000] \(GuestScript.endMark)0\r

        """.utf8)

    @Test("A console of any bytes, in pieces of any size, comes to a result", arguments: fuzzSeeds)
    func console(seed: UInt64) {
        announce(seed, of: "consoles")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            var log = ConsoleLog()
            for _ in 0..<Int.random(in: 0...5, using: &random) {
                log.append(
                    Bool.random(using: &random)
                        ? mutated(Self.right, using: &random) : randomBytes(upTo: 500, using: &random))
            }
            log.finish()
            let endings: [LabResult.Ending] = [.machineEnded, .timeLimitPassed, .interrupted(signal: 2)]
            for ending in endings {
                let result = LabResult(ending, console: log)
                #expect(!result.description.isEmpty)
                _ = result.exitStatus
            }
            for report in KernelReport.scan(log.lines) {
                #expect(log.lines.indices.contains(report.lineNumber - 1) && !report.excerpt.isEmpty)
            }
        }
    }

    @Test(
        "An exit status that is no number is none, one beyond an Int32 is the nearest",
        arguments: [
            ("", nil), ("x", nil), ("-", nil), ("99999999999999999999", nil), ("9223372036854775807", Int32.max),
            ("-9223372036854775808", Int32.min), ("7", 7),
        ] as [(String, Int32?)])
    func status(text: String, status: Int32?) {
        var log = ConsoleLog()
        log.append("\(GuestScript.startMark)\n\(GuestScript.endMark)\(text)\n".utf8)
        let result = LabResult(.machineEnded, console: log)
        #expect(result.exitStatus == status ?? 122)
    }
}
