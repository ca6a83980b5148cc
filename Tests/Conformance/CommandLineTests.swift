// SPDX-License-Identifier: Apache-2.0
//
// The commands that users type, as processes: a VMM and an emulation process, the module between.

import FoundationEssentials
import Glibc
import LinuxSystem
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Command line", .serialized)
struct CommandLineTests {
    private let socket = "/tmp/mmiofd-test-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"

    // MARK: What the commands print

    private struct Verdict: Decodable {
        struct Requests: Decodable {
            let loads: Int
            let stores: Int
        }
        struct Emulation: Decodable {
            let process: Int32
            let user: UInt32
            let stayed: Bool
        }
        let held: Bool
        let accesses: Int
        let requests: Requests
        let checks: Int
        let mismatches: Int
        let emulation: Emulation
    }

    private struct Served: Decodable {
        let end: String
        let counters: [String: Int]
    }

    private struct Traced: Decodable {
        let kind: String
        let offset: String
        let length: Int
        let value: String
    }

    private func parse<Value: Decodable>(_ type: Value.Type, _ text: some StringProtocol) throws -> Value {
        try JSONDecoder().decode(type, from: Data(text.utf8))
    }

    // MARK: The two processes

    /// Has the module loaded, and one virtual machine that outlives the commands'.
    private func prepare() throws {
        try ModuleUnderTest.load()
    }

    private func vmm(_ arguments: String...) throws -> RunningCommand {
        try vmm(arguments)
    }

    private func vmm(_ arguments: [String]) throws -> RunningCommand {
        try RunningCommand(arguments: ["vmm", "--socket", socket, "--timeout", "30", "--json"] + arguments)
    }

    private func emulation(_ arguments: String...) throws -> RunningCommand {
        try RunningCommand(arguments: ["emulate", "--socket", socket, "--wait", "30", "--json"] + arguments)
    }

    /// One for which every load is a request, so that both sides can be compared.
    private func emulationByRequests(_ arguments: String...) throws -> RunningCommand {
        try emulationByRequests(arguments)
    }

    private func emulationByRequests(_ arguments: [String]) throws -> RunningCommand {
        try RunningCommand(
            arguments: ["emulate", "--no-shadow", "--socket", socket, "--wait", "30", "--json"] + arguments)
    }

    /// An emulation process that shows its first request, and so that the guest runs.
    private func tracing() throws -> RunningCommand {
        try RunningCommand(arguments: [
            "trace", "scratch", "--socket", socket, "--wait", "30", "--json", "--limit", "1",
        ])
    }

    private func waitForGuest(_ trace: RunningCommand) throws {
        try #require(eventually(within: .seconds(60)) { trace.text.contains("\n") }, "no request came")
    }

    private var socketExists: Bool { unsafe access(socket, F_OK) == 0 }

    /// Whether both sides say the same, and that everything was right.
    private func expectAgreement(
        _ vmm: RunningCommand, _ emulation: RunningCommand, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        #expect(try vmm.end() == 0, "\(vmm.text) \(vmm.errorText)", sourceLocation: sourceLocation)
        #expect(try emulation.end() == 0, "\(emulation.errorText)", sourceLocation: sourceLocation)
        let verdict = try parse(Verdict.self, vmm.text)
        let served = try parse(Served.self, emulation.text)
        #expect(verdict.held && verdict.mismatches == 0 && verdict.checks > 0, sourceLocation: sourceLocation)
        #expect(served.end == "machine_gone", sourceLocation: sourceLocation)
        #expect(served.counters["loads"] == verdict.requests.loads, sourceLocation: sourceLocation)
        #expect(served.counters["stores"] == verdict.requests.stores, sourceLocation: sourceLocation)
        #expect(!socketExists, sourceLocation: sourceLocation)
    }

    // MARK: Tests

    @Test(
        "Every value is right, and both sides count the same",
        arguments: [
            "store_1:50 load_8:50 pair_4:50 mixed:200 mixed_aligned:100", "straddle:5 sixteen:10",
            "rep_stos_4:30 rep_movs_out_2:30 rep_movs_in_8:30", "out_4:30 in_1:30 rep_outs_2:30 rep_ins_4:30",
        ])
    func programs(names: String) throws {
        try prepare()
        let options = names.split(separator: " ").flatMap { ["--program", String($0)] }
        try expectAgreement(try vmm(options), try emulationByRequests("scratch"))
    }

    @Test("Four vCPUs and two emulation threads: every value is right")
    func several() throws {
        try prepare()
        try expectAgreement(
            try vmm("--vcpus", "4", "--program", "mixed:200", "--program", "straddle:3"),
            try emulationByRequests("scratch", "--threads", "2", "--batch", "3"))
    }

    @Test(
        "In a ring, and woken for several stores: every value is right",
        arguments: ["--ring", "--coalesce 8", "--coalesce 64 --coalesce-time 500 --ring"])
    func otherWays(options: String) throws {
        try prepare()
        try expectAgreement(
            try vmm("--vcpus", "2", "--program", "mixed:200", "--program", "store_4:200"),
            try emulationByRequests(["scratch"] + options.split(separator: " ").map { String($0) }))
    }

    @Test("The UART answers on its ports")
    func uart() throws {
        try prepare()
        try expectAgreement(
            try vmm("--device", "uart16550a", "--program", "out_1:50", "--program", "in_1:10"),
            try emulationByRequests("uart16550a"))
    }

    @Test(
        "O4: loads come from shadow memory, and every value is right",
        arguments: [["scratch", "mixed:300", "4", "2"], ["uart16550a", "in_1:50", "1", "1"]])
    func shadow(setup: [String]) throws {
        try prepare()
        let vmm = try vmm("--device", setup[0], "--vcpus", setup[2], "--program", setup[1])
        let emulation = try emulation(setup[0], "--threads", setup[3])
        #expect(try vmm.end() == 0, "\(vmm.text) \(vmm.errorText)")
        #expect(try emulation.end() == 0, "\(emulation.errorText)")
        let verdict = try parse(Verdict.self, vmm.text)
        let served = try parse(Served.self, emulation.text)
        #expect(verdict.held && verdict.mismatches == 0 && verdict.checks > 0)
        #expect(served.counters["stores"] == verdict.requests.stores)
        let loads = try #require(served.counters["loads"])
        #expect(loads < verdict.requests.loads, "every load was a request")
    }

    @Test("The two processes may be different users: the socket's group and mode let one in")
    func users() throws {
        try prepare()
        let nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]
        // The checkout may lie where only root can read.
        let copy = "/tmp/mmiofd-for-nobody"
        try #require(
            try RunningCommand("/usr/bin/install", arguments: [RunningCommand.mmiofd.string, copy]).end() == 0)
        func asNobody(_ arguments: String...) throws -> RunningCommand {
            try RunningCommand("/usr/bin/setpriv", arguments: nobody + [copy] + arguments)
        }
        let closed = try vmm("--program", "mixed:10")
        try #require(eventually { socketExists })
        let refused = try asNobody("emulate", "scratch", "--socket", socket)
        #expect(try refused.end() == 1)
        #expect(refused.errorText.contains("--socket-mode"))
        closed.signal(SIGTERM)
        try closed.end()
        let open = try vmm("--program", "mixed:10", "--socket-mode", "0660", "--socket-group", "nogroup")
        let served = try asNobody("emulate", "scratch", "--no-shadow", "--socket", socket, "--wait", "30", "--json")
        try expectAgreement(open, served)
        #expect(try parse(Verdict.self, open.text).emulation.user == 65534)
    }

    @Test("trace shows each request with its value, and then the counters")
    func trace() throws {
        try prepare()
        let vmm = try vmm("--program", "pair_4:2", "--seed", "7")
        let trace = try RunningCommand(
            arguments: ["trace", "scratch", "--socket", socket, "--wait", "30", "--json", "--limit", "4"])
        #expect(try vmm.end() == 0)
        #expect(try trace.end() == 0)
        let lines = trace.text.split(separator: "\n")
        try #require(lines.count == 5)
        let requests = try lines.prefix(4).map { try parse(Traced.self, $0) }
        #expect(requests.map(\.kind) == ["store", "load", "store", "load"])
        #expect(requests.map(\.value) == ["0x7", "0x7", "0x8", "0x8"])
        #expect(requests.allSatisfy { $0.offset == "0x400" && $0.length == 4 })
        #expect(try parse(Served.self, lines[4]).counters["stores"] == 2)
    }

    @Test("The emulation process is killed in the middle: the guest reads all-ones, the VMM says so and fails")
    func emulationKilled() throws {
        try prepare()
        let vmm = try vmm("--program", "load_4:20000")
        let trace = try tracing()
        try waitForGuest(trace)
        trace.signal(SIGKILL)
        #expect(try trace.end() == 128 + SIGKILL)
        #expect(try vmm.end() == 1)
        #expect(vmm.errorText.contains("the emulation process is gone"))
        #expect(vmm.text.contains("0xffffffff instead of 0x0"))
        let verdict = try parse(Verdict.self, vmm.text)
        #expect(!verdict.held && verdict.mismatches > 0 && !verdict.emulation.stayed)
    }

    @Test("The VMM is killed in the middle: the emulation process ends well, and counts")
    func vmmKilled() throws {
        try prepare()
        let vmm = try vmm("--program", "load_4:100000")
        let trace = try tracing()
        try waitForGuest(trace)
        vmm.signal(SIGKILL)
        #expect(try vmm.end() == 128 + SIGKILL)
        #expect(try trace.end() == 0)
        let served = try parse(Served.self, try #require(trace.text.split(separator: "\n").last))
        #expect(served.end == "machine_gone")
        #expect(try #require(served.counters["loads"]) > 0)
    }

    @Test("A signal ends the emulation process after its replies, with its counters", arguments: [SIGTERM, SIGINT])
    func emulationStopped(signal: CInt) throws {
        try prepare()
        let vmm = try vmm("--program", "load_4:20000")
        let trace = try tracing()
        try waitForGuest(trace)
        trace.signal(signal)
        #expect(try trace.end() == 0)
        let served = try parse(Served.self, try #require(trace.text.split(separator: "\n").last))
        #expect(served.end == "stopped")
        #expect(served.counters["stale_replies"] == 0)
        #expect(try vmm.end() == 1)
    }

    @Test("A signal ends the VMM, whether it waits or runs, and its socket goes", arguments: [SIGTERM, SIGINT])
    func vmmStopped(signal: CInt) throws {
        try prepare()
        let waiting = try vmm()
        try #require(eventually { socketExists })
        waiting.signal(signal)
        #expect(try waiting.end() == 128 + signal)
        #expect(!socketExists)
        let running = try vmm("--program", "load_4:100000")
        let trace = try tracing()
        try waitForGuest(trace)
        running.signal(signal)
        #expect(try running.end() == 128 + signal)
        #expect(try trace.end() == 0)
    }

    /// How many milliseconds each pause of a VMM took, as it says.
    private static func pauses(_ vmm: RunningCommand) -> [Double] {
        vmm.errorText.matches(of: /after_ms=([0-9.]+).*paused/).compactMap { Double($0.1) }
    }

    @Test("SIGTSTP stops the VMM with no vCPU in the guest, SIGCONT lets all go on; the device answers late (B4)")
    func pausing() throws {
        try prepare()
        let vmm = try vmm("--vcpus", "2", "--program", "load_4:20")
        try #require(eventually { socketExists })
        let handover = try Handover(receivingFrom: try UnixSocket(connectingTo: FilePath(socket)))
        let owed = try handover.emulation.take(exactly: 2)
        for round in 1...3 {
            vmm.signal(SIGTSTP)
            try #require(eventually { vmm.isStopped }, "\(vmm.errorText)")
            #expect(Self.pauses(vmm).count == round)
            vmm.signal(SIGCONT)
            try #require(eventually { vmm.errorText.matches(of: /going on/).count == round }, "\(vmm.errorText)")
        }
        // The shortest: the lab's machine may be busy with something else for as long.
        #expect(try #require(Self.pauses(vmm).min()) < 100, "\(vmm.errorText)")
        #expect(try !handover.emulation.poll(milliseconds: 0).contains(.readable), "an access was made twice")
        try handover.emulation.acknowledge(owed)
        while true {
            let requests = try handover.emulation.take()
            if requests.isEmpty { break }
            try handover.emulation.acknowledge(requests)
        }
        #expect(try vmm.end() == 0, "\(vmm.text) \(vmm.errorText)")
        #expect(try parse(Verdict.self, vmm.text).held)
    }

    @Test("A VMM that was paused and waits again dies at once when it is killed (B2)")
    func killedAfterPause() throws {
        try prepare()
        let vmm = try vmm("--program", "load_4:20")
        try #require(eventually { socketExists })
        let handover = try Handover(receivingFrom: try UnixSocket(connectingTo: FilePath(socket)))
        _ = try handover.emulation.take(exactly: 1)
        vmm.signal(SIGTSTP)
        try #require(eventually { vmm.isStopped })
        vmm.signal(SIGCONT)
        try #require(eventually { vmm.errorText.contains("going on") })
        vmm.signal(SIGKILL)
        #expect(try vmm.end(within: .seconds(20)) == 128 + SIGKILL)
        #expect(try eventually { try handover.emulation.poll(milliseconds: 0).contains(.machineGone) })
    }

    @Test("A VMM that waits for its emulation process stops and goes on as well")
    func pausingWhileWaiting() throws {
        try prepare()
        let vmm = try vmm("--program", "mixed:10")
        try #require(eventually { socketExists })
        vmm.signal(SIGTSTP)
        try #require(eventually { vmm.isStopped })
        vmm.signal(SIGCONT)
        try expectAgreement(vmm, try emulationByRequests("scratch"))
    }

    @Test("A socket of a VMM that was killed is replaced, one of a living VMM is not")
    func staleSocket() throws {
        try prepare()
        let killed = try vmm()
        try #require(eventually { socketExists })
        killed.signal(SIGKILL)
        try killed.end()
        #expect(socketExists)
        let next = try vmm("--program", "mixed:10", "--log-level", "info")
        try #require(eventually { next.errorText.contains("waiting") })
        let rival = try vmm()
        #expect(try rival.end() == 1)
        #expect(rival.errorText.contains("another VMM waits there"))
        try expectAgreement(next, try emulationByRequests("scratch"))
    }

    @Test("Without the module the VMM says how to load it")
    func moduleMissing() throws {
        try ModuleUnderTest.unloadIfLoaded()
        let vmm = try vmm()
        #expect(try vmm.end() == 1)
        #expect(vmm.errorText.contains("run `mmiofd module load`"))
        #expect(!socketExists)
    }

    @Test("Without a VMM the emulation process says what to start")
    func socketMissing() throws {
        let emulation = try RunningCommand(arguments: ["emulate", "scratch", "--socket", socket, "--wait", "0.1"])
        #expect(try emulation.end() == 1)
        #expect(emulation.errorText.contains("start one with `mmiofd vmm --socket \(socket)`"))
    }

    @Test("A comparison of costs covers all paths, and a bare exit is its own measure")
    func costs() throws {
        struct Comparison: Decodable {
            struct Cost: Decodable {
                let ratio: Int

                enum CodingKeys: String, CodingKey {
                    case ratio = "ratio_to_exit_percent"
                }
            }
            let costs: [Cost]
        }
        try prepare()
        let command = try RunningCommand(arguments: ["cost", "--count", "50", "--rounds", "2", "--json"])
        #expect(try command.end() == 0, "\(command.errorText)")
        let costs = try parse(Comparison.self, command.text).costs
        #expect(costs.count == 8)
        #expect(costs.prefix(2).allSatisfy { $0.ratio == 100 })
        #expect(costs.allSatisfy { $0.ratio > 0 })
    }
}
