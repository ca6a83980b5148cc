// SPDX-License-Identifier: Apache-2.0
//
// How a program is chosen on the command line.

import ForwardingProcesses
import GuestPrograms
import Testing

@Suite("Program steps") struct ProgramStepTests {
    @Test("A name has the usual count, a name with a number its own")
    func parsing() throws {
        #expect(try ProgramStep(parsing: "store_4", count: 7) == ProgramStep(.storeLoop(.four), count: 7))
        #expect(try ProgramStep(parsing: "mixed:12", count: 7) == ProgramStep(.mixed, count: 12))
    }

    @Test("What is no program is refused as such", arguments: ["", "store_3", "mailbox", "mailbox:x"])
    func noProgram(text: String) {
        let name = String(text.prefix { $0 != ":" })
        #expect(throws: ProgramError.unknown(name: name)) { try ProgramStep(parsing: text, count: 7) }
    }

    @Test(
        "What is no count of 1 or more is refused as such", arguments: ["", "0", "-1", "x", "99999999999999999999"])
    func noCount(text: String) {
        #expect(throws: ProgramError.noCount(text, program: "mixed")) {
            try ProgramStep(parsing: "mixed:\(text)", count: 7)
        }
    }
}
