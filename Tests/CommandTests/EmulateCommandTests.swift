// SPDX-License-Identifier: Apache-2.0
//
// mmiofd emulate: what it accepts, and what it says while it waits.

import ArgumentParser
import Testing

@testable import mmiofd

@Suite("mmiofd emulate")
struct EmulateCommandTests {
    @Test("--coalesce-time belongs to --coalesce", arguments: ["emulate", "trace"])
    func coalesceTime(command: String) throws {
        let alone = #expect(throws: (any Error).self) {
            try MMIOFD.parseAsRoot([command, "scratch", "--coalesce-time", "5"])
        }
        #expect(alone.map { MMIOFD.message(for: $0).contains("without --coalesce") } == true)
        _ = try MMIOFD.parseAsRoot([command, "scratch", "--coalesce-time", "5", "--coalesce", "8"])
        _ = try MMIOFD.parseAsRoot([command, "scratch", "--coalesce", "8"])
    }

    @Test("A wait of more than a second says for whom")
    func waiting() throws {
        let run = try CommandProcess("emulate scratch --socket /nonexistent/vmm --wait 4", output: "/dev/null")
        #expect(run.status == 1)
        #expect(run.errorText.contains("waiting for a VMM at /nonexistent/vmm"))
    }

    @Test("A wait of less than a second is silent but for its end")
    func brief() throws {
        let run = try CommandProcess("emulate scratch --socket /nonexistent/vmm --wait 0.1", output: "/dev/null")
        #expect(run.status == 1)
        #expect(!run.errorText.contains("waiting for a VMM"))
        #expect(run.errorText.contains("start one with `mmiofd vmm --socket /nonexistent/vmm`"))
    }
}
