// SPDX-License-Identifier: Apache-2.0
//
// Files as they should be, and as they should not.

import SystemPackage
import Testing

@testable import BenchmarkReport

@Suite("Benchmark files")
struct BenchmarkFileTests {
    /// A file with one row, of which one part was replaced by another.
    private func problem(replacing part: String, with other: String) -> BenchmarkFileError.Problem? {
        let text = String(decoding: run([row("exit", "store", 5090)]).encoded(), as: UTF8.self)
        #expect(text.contains(part), "the test replaces nothing")
        do throws(BenchmarkFileError.Problem) {
            _ = try BenchmarkRun(decoding: Array(text.replacing(part, with: other).utf8))
            return nil
        } catch {
            return error
        }
    }

    @Test("A file is read with all that it says")
    func whole() throws {
        let run = try counted()
        #expect(run.mode == .instructions)
        #expect(run.machine.module["queue_depth"] == "256" && run.machine.emulator?.hasPrefix("QEMU") == true)
        #expect(run.plan.count == 1000 && run.plan.command.first == "mmiofd-bench")
        #expect(run.rows.count == 130 && run.rows.count { !$0.wakeupPreemption } == 65)
        let bare = try #require(run.rows.first)
        #expect(bare.key == BenchmarkRow.Key("exit", BenchmarkRow.Load("store")) && bare.systemCalls == 1)
        let load = try #require(run.rows.first { $0.key == BenchmarkRow.Key("fd-exchange", BenchmarkRow.Load("load")) })
        #expect(load.stages?.contains { $0.stage == "switch" } == true)
        #expect(["p50", "p99", "max"].allSatisfy { load.latency?[$0] != nil })
    }

    @Test("What is written is read again, with everything in it")
    func again() throws {
        var row = row("fd-exchange", "burst-64", 3912.125)
        row.contextSwitches = 0.25
        row.systemCalls = 1
        row.wakeups = 0.125
        row.requestsPerRead = 8
        row.cpuNanoseconds = ["vmm": 1, "emulation": 2, "kernel": 3]
        row.latency = ["p50": 1, "p90": 2, "p99": 3, "p99.9": 4, "max": 5]
        row.stages = [.init(stage: "exit", value: 1000), .init(stage: "wake-up", value: 0)]
        let whole = run([row])
        #expect(try BenchmarkRun(decoding: whole.encoded()) == whole)
    }

    @Test("What it may have beyond the format is passed over")
    func beyond() {
        #expect(problem(replacing: #""mode""#, with: #""more":[1],"mode""#) == nil)
    }

    @Test("Another format is named, whatever else is in the file", arguments: ["0", "2", "-1"])
    func otherFormat(number: String) throws {
        let format = try #require(Int(number))
        #expect(problem(replacing: #""format":1"#, with: #""format":\#(number)"#) == .otherFormat(format))
        #expect(throws: BenchmarkFileError.Problem.otherFormat(format)) {
            _ = try BenchmarkRun(decoding: Array(#"{"format":\#(number)}"#.utf8))
        }
    }

    @Test("What is no JSON is said to be none", arguments: ["", " ", "format", "{", #"{"format":1"#, "\0", "[1;]"])
    func notJSON(text: String) {
        do throws(BenchmarkFileError.Problem) {
            _ = try BenchmarkRun(decoding: Array(text.utf8))
            Issue.record("it was read")
        } catch {
            guard case .notJSON = error else {
                Issue.record("\(error)")
                return
            }
        }
    }

    @Test(
        "What is missing, or of another kind, is named with its place",
        arguments: [
            (#""format":1,"#, "", "the file"), (#""mode":"instructions","#, "", "the file"),
            (#""mode":"instructions""#, #""mode":"hours""#, "mode"), (#""path":"exit","#, "", "rows[0]"),
            (#""value":5090"#, #""value":"5090""#, "rows[0].value"),
            (#""value":5090"#, #""value":null"#, "rows[0].value"),
            (#""wakeup_preemption":true"#, #""wakeup_preemption":1"#, "rows[0].wakeup_preemption"),
            (#""kernel":"6.1","#, "", "machine"), (#""bus":"memory""#, #""bus":"pci""#, "rows[0].bus"),
            (#""seed":1"#, #""seed":-1"#, "the file"), (#""rounds":[5090]"#, #""rounds":[]"#, "rows[0]"),
            (#""width":4"#, #""width":0"#, "rows[0]"), (#""vcpus":1"#, #""vcpus":1000001"#, "rows[0]"),
            (#""value":5090"#, #""value":1e15"#, "rows[0]"), (#""value":5090"#, #""value":-1e300"#, "rows[0]"),
            (#""unit":"instructions""#, #""unit":"ns""#, "rows[0]"), (#""path":"exit""#, #""path":"""#, "rows[0]"),
            (#""path":"exit""#, #""path":"\u001b[2J""#, "rows[0]"), (#""path":"exit""#, #""path":"Exit""#, "rows[0]"),
            (#""kernel":"6.1""#, #""kernel":"6.1\n""#, "machine or plan"),
        ])
    func malformed(part: String, other: String, place: String) {
        guard case .malformed(at: place, _) = problem(replacing: part, with: other) else {
            Issue.record("\(String(describing: problem(replacing: part, with: other)))")
            return
        }
    }

    @Test("A stage may have any name that can be printed")
    func stages() throws {
        var row = row("exit", "store", 1)
        row.stages = [.init(stage: "vmm: kvm_exit -> sys_exit 16", value: -504.2)]
        #expect(try BenchmarkRun(decoding: run([row]).encoded()).rows == [row])
        row.stages = [.init(stage: "\u{1b}[2J", value: 1)]
        #expect(throws: BenchmarkFileError.Problem.malformed(at: "rows[0]", "a stage's name cannot be printed")) {
            _ = try BenchmarkRun(decoding: run([row]).encoded())
        }
    }

    @Test("A file without rows is none, and neither is one that has a row twice")
    func rows() {
        let double = run([row("exit", "store", 1), row("pipes", "store", 1), row("exit", "store", 2)])
        #expect(throws: BenchmarkFileError.Problem.malformed(at: "rows[2]", "exit store is there twice")) {
            _ = try BenchmarkRun(decoding: double.encoded())
        }
        #expect(throws: BenchmarkFileError.Problem.malformed(at: "rows", "there is none")) {
            _ = try BenchmarkRun(decoding: run([]).encoded())
        }
    }

    @Test(
        "An error says what was tried, what came back, and what to do",
        arguments: [
            (.unreadable(.noSuchFileOrDirectory), ["No such file", "make bench JSON=a.json"]),
            (.notJSON("what"), ["no JSON (what)", "make bench"]),
            (.otherFormat(2), ["format 2", "format 1", "measure again"]),
            (.malformed(at: "rows[3]", "what"), ["rows[3]: what", "make bench"]),
        ] as [(BenchmarkFileError.Problem, [String])])
    func words(problem: BenchmarkFileError.Problem, words: [String]) {
        let text = BenchmarkFileError(file: "a.json", problem: problem).description
        for word in ["cannot read a.json"] + words { #expect(text.contains(word)) }
    }

    @Test("A file that is not there, and one that has no end, are unreadable")
    func unreadable() {
        #expect(throws: BenchmarkFileError(file: "/nonexistent", problem: .unreadable(.noSuchFileOrDirectory))) {
            _ = try BenchmarkRun(readingFrom: "/nonexistent")
        }
        #expect(throws: BenchmarkFileError(file: "/dev/zero", problem: .unreadable(.fileTooLarge))) {
            _ = try BenchmarkRun(readingFrom: "/dev/zero")
        }
    }
}
