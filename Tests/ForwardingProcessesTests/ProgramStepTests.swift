// SPDX-License-Identifier: Apache-2.0
//
// How a program is chosen on the command line.

import ForwardingProcesses
import GuestPrograms
import Testing

@Suite("Program steps") struct ProgramStepTests {
    @Test("A name has the usual count, a name with a number its own")
    func parsing() {
        #expect(ProgramStep(parsing: "store_4", count: 7) == ProgramStep(.storeLoop(.four), count: 7))
        #expect(ProgramStep(parsing: "mixed:12", count: 7) == ProgramStep(.mixed, count: 12))
    }

    @Test(
        "What is no program with a count of 1 or more is refused",
        arguments: ["", "store_3", "mixed:", "mixed:0", "mixed:-1", "mixed:x", "mixed:99999999999999999999", "mailbox"])
    func rubbish(text: String) {
        #expect(ProgramStep(parsing: text, count: 7) == nil)
    }
}
