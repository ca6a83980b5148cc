// SPDX-License-Identifier: Apache-2.0
//
// `mmiofd emulate --reattach` and `mmiofd vmm --on-close`, as processes that are killed.

import FoundationEssentials
import Glibc
import LinuxSystem
import Testing

@Suite("Reattaching", .serialized)
struct ReattachTests {
    private let socket = "/tmp/mmiofd-reattach-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"

    /// Two processes begin, on a machine that may be busy.
    private static let patience = Duration.seconds(120)

    // MARK: What the commands print

    private struct Verdict: Decodable {
        struct Emulation: Decodable {
            let stayed: Bool
            let replacements: Int
        }
        let held: Bool
        let requests: [String: Int]
        let checks: Int
        let mismatches: Int
        let unforwardedLoads: Int
        let unforwardedStores: Int
        let emulation: Emulation

        enum CodingKeys: String, CodingKey {
            case held, requests, checks, mismatches, emulation
            case unforwardedLoads = "unforwarded_loads"
            case unforwardedStores = "unforwarded_stores"
        }
    }

    private struct Served: Decodable {
        let end: String
        let counters: [String: Int]
        let restarts: Int
    }

    private func parse<Value: Decodable>(_ type: Value.Type, _ text: String) throws -> Value {
        try JSONDecoder().decode(type, from: Data(text.utf8))
    }

    // MARK: The processes

    private func vmm(_ arguments: String...) throws -> RunningCommand {
        try ModuleUnderTest.load()
        return try RunningCommand(arguments: ["vmm", "--socket", socket, "--json"] + arguments)
    }

    /// A supervisor whose processes get every load as a request, unless there is to be shadow memory.
    private func supervisor(shadow: Bool = false) throws -> RunningCommand {
        try RunningCommand(
            arguments: [
                "emulate", "scratch", "--reattach", "--socket", socket, "--wait", "120", "--json", "--log-level",
                "info",
            ] + (shadow ? [] : ["--no-shadow"]))
    }

    /// An emulation process without a supervisor, once the guest runs.
    private func lonely() throws -> RunningCommand {
        let trace = try RunningCommand(arguments: [
            "trace", "scratch", "--socket", socket, "--wait", "120", "--json", "--limit", "1",
        ])
        try #require(eventually(within: Self.patience) { trace.text.contains("\n") }, "no request came")
        return trace
    }

    /// The emulation processes that a supervisor has started so far.
    private func children(of supervisor: RunningCommand) -> [pid_t] {
        supervisor.errorText.split(separator: "\n").compactMap { line in
            guard line.contains("started an emulation process") else { return nil }
            return line.split(separator: "process=").last.flatMap { pid_t($0.prefix { $0.isNumber }) }
        }
    }

    /// The emulation process that a supervisor starts after so many others.
    private func child(after count: Int, of supervisor: RunningCommand) throws -> pid_t {
        try #require(
            eventually(within: Self.patience) { children(of: supervisor).count > count },
            "\(supervisor.text) \(supervisor.errorText)")
        return children(of: supervisor)[count]
    }

    /// How many requests the device of a VMM has had.
    private func requests(of vmm: RunningCommand) throws -> Int {
        try DebugCounters.ofNewestDevice(of: vmm.process)["requests", default: 0]
    }

    private func waitForRequests(beyond count: Int, of vmm: RunningCommand) throws {
        try #require(
            try eventually(within: Self.patience) { try requests(of: vmm) > count }, "\(vmm.text) \(vmm.errorText)")
    }

    /// Whether a process has ended, waited for or not.
    private func isGone(_ process: pid_t) -> Bool {
        // "number (name) state ..."
        guard let status = try? textOfFile("/proc/\(process)/stat") else { return true }
        return status.split(separator: ")").last?.hasPrefix(" Z") ?? true
    }

    // MARK: Tests

    @Test(
        "F1: killed again and again under a running guest, every value is right and every access happened once",
        arguments: [false, true])
    func killedAgainAndAgain(shadow: Bool) throws {
        let kills = 4
        let vmm = try vmm("--on-close", "hold", "--timeout", "none", "--vcpus", "2", "--program", "mixed:1000")
        let supervisor = try supervisor(shadow: shadow)
        var before = 0
        for round in 0..<kills {
            let process = try child(after: round, of: supervisor)
            // Far into its work, and the guest's.
            try waitForRequests(beyond: before + 100, of: vmm)
            #expect(kill(process, SIGKILL) == 0)
            before = try requests(of: vmm)
        }
        #expect(try vmm.end() == 0, "\(vmm.text) \(vmm.errorText)")
        #expect(try supervisor.end() == 0, "\(supervisor.errorText)")
        let verdict = try parse(Verdict.self, vmm.text)
        let served = try parse(Served.self, supervisor.text)
        #expect(verdict.held && verdict.checks > 0 && verdict.mismatches == 0)
        #expect(verdict.emulation.stayed)
        #expect(verdict.emulation.replacements == kills)
        #expect(served.end == "machine_gone")
        #expect(served.restarts == kills)
        #expect(served.counters["stores"] == verdict.requests["stores"])
        if !shadow { #expect(served.counters["loads"] == verdict.requests["loads"]) }
    }

    @Test("A signal ends the supervisor and its process, with the counters", arguments: [SIGTERM, SIGINT])
    func stopped(signal: CInt) throws {
        let vmm = try vmm("--on-close", "hold", "--timeout", "none", "--program", "load_4:5000")
        let supervisor = try supervisor()
        let process = try child(after: 0, of: supervisor)
        try waitForRequests(beyond: 10, of: vmm)
        supervisor.signal(signal)
        #expect(try supervisor.end() == 0, "\(supervisor.errorText)")
        let isChildGone = isGone(process)
        #expect(isChildGone)
        let served = try parse(Served.self, supervisor.text)
        #expect(served.end == "stopped")
        #expect(try #require(served.counters["loads"]) > 0)
        #expect(eventually { vmm.errorText.contains("accesses wait up to the time limit") })
        vmm.signal(SIGTERM)
        #expect(try vmm.end() == 128 + SIGTERM)
    }

    @Test("A supervisor that is killed leaves no process behind")
    func supervisorKilled() throws {
        let vmm = try vmm("--timeout", "none", "--program", "load_4:5000")
        let supervisor = try supervisor()
        let process = try child(after: 0, of: supervisor)
        try waitForRequests(beyond: 10, of: vmm)
        supervisor.signal(SIGKILL)
        #expect(try supervisor.end() == 128 + SIGKILL)
        #expect(eventually { isGone(process) })
        #expect(try vmm.end() == 1)
    }

    @Test("The VMM is killed: the supervisor and its process end well")
    func machineGone() throws {
        let vmm = try vmm("--on-close", "hold", "--timeout", "none", "--program", "load_4:5000")
        let supervisor = try supervisor()
        _ = try child(after: 0, of: supervisor)
        try waitForRequests(beyond: 10, of: vmm)
        vmm.signal(SIGKILL)
        #expect(try vmm.end() == 128 + SIGKILL)
        #expect(try supervisor.end() == 0, "\(supervisor.errorText)")
        let served = try parse(Served.self, supervisor.text)
        #expect(served.end == "machine_gone")
        #expect(served.restarts == 0)
    }

    @Test("Processes that die before they serve anything are given up, and the reason is said")
    func storm() throws {
        let vmm = try vmm("--on-close", "hold", "--timeout", "none", "--program", "load_4:5000")
        let supervisor = try supervisor()
        for round in 0..<8 {
            let process = try child(after: round, of: supervisor)
            #expect(kill(process, SIGKILL) == 0)
        }
        #expect(try supervisor.end() == 1)
        #expect(supervisor.errorText.contains("8 emulation processes in a row died before they had served anything"))
        #expect(children(of: supervisor).count == 8)
        vmm.signal(SIGTERM)
        #expect(try vmm.end() == 128 + SIGTERM)
    }

    @Test("B2: a VMM whose guest is held, with nobody to come, dies at once when it is killed")
    func heldAndKilled() throws {
        let vmm = try vmm("--on-close", "hold", "--timeout", "none", "--program", "load_4:5000")
        let emulation = try lonely()
        emulation.signal(SIGKILL)
        try emulation.end()
        try #require(eventually { vmm.errorText.contains("the emulation process is gone") })
        vmm.signal(SIGKILL)
        #expect(try vmm.end(within: .seconds(10)) == 128 + SIGKILL)
    }

    @Test("EXIT: what comes to the VMM is answered with all-ones or dropped, counted, and said at the end")
    func exits() throws {
        let vmm = try vmm("--on-close", "exit", "--timeout", "none", "--program", "pair_4:5000")
        let emulation = try lonely()
        emulation.signal(SIGKILL)
        try emulation.end()
        #expect(try vmm.end() == 1)
        #expect(vmm.errorText.contains("accesses come to this process"))
        let verdict = try parse(Verdict.self, vmm.text)
        #expect(!verdict.held && verdict.mismatches > 0 && !verdict.emulation.stayed)
        #expect(verdict.unforwardedLoads > 0)
        #expect(verdict.unforwardedStores > 0)
    }
}
