// SPDX-License-Identifier: Apache-2.0
//
// mmiofd vmm: what it accepts.

import ArgumentParser
import Testing

@testable import mmiofd

@Suite("mmiofd vmm")
struct VMMCommandTests {
    @Test("A program's count that is none is called so, not the program unknown")
    func noCount() {
        let error = #expect(throws: (any Error).self) { try MMIOFD.parseAsRoot(["vmm", "--program", "mixed:x"]) }
        #expect(error.map { MMIOFD.message(for: $0) } == "'x' is no count of 1 or more for the guest program mixed")
    }
}
