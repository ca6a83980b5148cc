// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a command whose output nobody takes.

import SystemPackage
import Testing

@Suite("Standard output")
struct StandardOutputTests {
    @Test(
        "A command whose output is lost says so and fails",
        arguments: [
            "bench table FILE", "bench compare --json FILE FILE", "bench compare FILE FILE", "bench check --rows",
            "bench check FILE --against FILE", "emulate --list", "emulate --list --json", "module status",
        ])
    func lost(arguments: String) throws {
        let run = try CommandProcess(
            arguments.replacing("FILE", with: "'\(BenchCommandTests.figures)'"), output: "/dev/full")
        #expect(run.status == 1)
        #expect(run.errorText.contains("the output is lost"), "\(run.errorText)")
        #expect(run.errorText.contains("No space left on device"))
    }

    @Test("A command whose output is taken has nothing to say")
    func taken() throws {
        let run = try CommandProcess("emulate --list", output: "/dev/null")
        #expect(run.status == 0)
        #expect(run.errorText.isEmpty)
    }

    @Test("A command without standard output fails")
    func closed() throws {
        let run = try CommandProcess("emulate --list", output: "&-")
        #expect(run.status == 1)
        #expect(run.errorText.contains("the output is lost"))
    }
}
