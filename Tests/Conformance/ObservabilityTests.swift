// SPDX-License-Identifier: Apache-2.0
//
// What can be seen of running guests from outside: mmiofd stat and mmiofd trace running, as processes.

import FoundationEssentials
import Glibc
import KernelModule
import SystemPackage
import Testing

@Suite("Observability", .serialized)
struct ObservabilityCommandTests {
    private let socket = "/tmp/mmiofd-watched-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
    private static let instances = "sys/kernel/tracing/instances"

    // MARK: What the commands print

    private struct Sample: Decodable {
        struct Device: Decodable {
            let device: String
            let process: Int32
            let number: Int
            let command: String?
            let counters: [String: Int]
            let perSecond: [String: Int]
        }
        let monotonicNs: Int
        let intervalNs: Int?
        let devices: [Device]
    }

    private struct Event: Decodable {
        let event: String?
        let monotonicNs: Int?
        let device: Int?
        let vcpu: Int?
        let sequence: String?
        let kind: String?
        let offset: String?
        let length: Int?
        let value: String?
        let count: Int?
        // Of the last line.
        let end: String?
        let events: Int?
        let lost: Int?
    }

    private static let decoder = {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }()

    private func lines<Line: Decodable>(_ type: Line.Type, _ command: RunningCommand) throws -> [Line] {
        try command.text.split(separator: "\n").map { try Self.decoder.decode(type, from: Data($0.utf8)) }
    }

    // MARK: Who watches and who is watched

    private func stat(_ arguments: String...) throws -> RunningCommand {
        try RunningCommand(arguments: ["stat"] + arguments)
    }

    /// A trace that has begun.
    private func trace(_ arguments: String...) throws -> RunningCommand {
        let trace = try RunningCommand(arguments: ["trace", "running", "--json", "--log-level", "info"] + arguments)
        try #require(eventually(within: .seconds(60)) { trace.errorText.contains("tracing") }, "\(trace.errorText)")
        return trace
    }

    private func vmm(
        _ program: String, device: String = "scratch", socket: String? = nil
    ) throws -> RunningCommand {
        try RunningCommand(arguments: [
            "vmm", "--socket", socket ?? self.socket, "--timeout", "30", "--device", device, "--program", program,
            "--seed", "7",
        ])
    }

    private func emulation(device: String = "scratch", socket: String? = nil) throws -> RunningCommand {
        try RunningCommand(arguments: [
            "emulate", "--no-shadow", device, "--socket", socket ?? self.socket, "--wait", "120",
        ])
    }

    /// A guest from beginning to end.
    private func runGuest(_ program: String, device: String = "scratch") throws {
        let vmm = try vmm(program, device: device)
        let emulation = try emulation(device: device)
        #expect(try emulation.end(within: .seconds(180)) == 0, "\(emulation.errorText)")
        #expect(try vmm.end() == 0, "\(vmm.text) \(vmm.errorText)")
    }

    /// Waits until a trace has come to the end of the device's use; printing is slow under emulation.
    private func waitForClose(_ trace: RunningCommand) throws {
        try #require(
            eventually(within: .seconds(120)) { trace.text.contains("\"event\":\"closed\"") }, "\(trace.errorText)")
    }

    /// Trace instances that this project's processes have.
    private func instances() throws -> [String] {
        try SystemTree.running.names(in: Self.instances).filter { $0.hasPrefix("mmiofd-") }
    }

    private func ended(_ trace: RunningCommand) throws -> Event {
        try #require(try lines(Event.self, trace).last)
    }

    // MARK: Counters

    @Test("stat shows a running guest's counters and rates, sample by sample, until a signal")
    func stat() throws {
        try ModuleUnderTest.load()
        let vmm = try vmm("load_4:100000")
        let emulation = try emulation()
        let stat = try stat("--json", "--interval", "0.2")
        let process = vmm.process
        func counters() throws -> [Int] {
            let whole = stat.text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            return try whole.compactMap { line in
                let sample = try Self.decoder.decode(Sample.self, from: Data(line.utf8))
                return sample.devices.first { $0.process == process }?.counters["requests"]
            }
        }
        try #require(
            try eventually(within: .seconds(60)) { Set(try counters()).count >= 3 }, "\(stat.text) \(stat.errorText)")
        stat.signal(SIGINT)
        #expect(try stat.end() == 0)
        let samples = try lines(Sample.self, stat)
        #expect(samples[0].intervalNs == nil && samples[0].devices.allSatisfy { $0.perSecond.isEmpty })
        let last = try #require(samples.last?.devices.first { $0.process == process })
        #expect(last.command == "mmiofd")
        #expect(last.device == "\(process)-\(last.number)")
        #expect(last.counters["all_ones"] == 0)
        #expect(last.perSecond["longest_wait_ns"] == nil)
        #expect(samples.contains { $0.devices.contains { ($0.perSecond["requests"] ?? 0) > 0 } })
        #expect(try counters() == (try counters()).sorted())
        vmm.signal(SIGKILL)
        try vmm.end()
        #expect(try emulation.end() == 0)
    }

    @Test("stat as a table: the VMM's name, each counter by its name")
    func table() throws {
        try ModuleUnderTest.load()
        let vmm = try vmm("load_4:100000")
        let emulation = try emulation()
        try #require(try eventually(within: .seconds(60)) { try !CounterFiles.names(of: vmm.process).isEmpty })
        let stat = try stat("--once")
        #expect(try stat.end() == 0)
        let name = try #require(try CounterFiles.names(of: vmm.process).first)
        #expect(stat.text.contains("mmiofd \(name)"))
        for line in try textOfFile("/\(CounterFiles.folder)/\(name)").split(separator: "\n") {
            let counter = try #require(line.split(separator: " ").first)
            #expect(stat.text.contains(counter.replacing("_", with: " ")), "\(counter)")
        }
        vmm.signal(SIGKILL)
        try vmm.end()
        try emulation.end()
    }

    @Test("stat without a device says so, and without the module how to load it, and without rights to use sudo")
    func nothing() throws {
        try ModuleUnderTest.load()
        let empty = try stat("--once")
        #expect(try empty.end() == 0)
        #expect(empty.text.contains("no device"))
        let json = try stat("--once", "--json")
        #expect(try json.end() == 0)
        #expect(try lines(Sample.self, json).map(\.devices.count) == [0])
        let copy = "/tmp/mmiofd-for-nobody"
        try #require(
            try RunningCommand("/usr/bin/install", arguments: [RunningCommand.mmiofd.string, copy]).end() == 0)
        for command in [["stat"], ["trace", "running"]] {
            let refused = try RunningCommand(
                "/usr/bin/setpriv",
                arguments: ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--", copy] + command)
            #expect(try refused.end() == 1)
            #expect(refused.errorText.contains("use sudo"), "\(refused.errorText)")
        }
        try ModuleUnderTest.unload()
        for command in [["stat"], ["trace", "running"]] {
            let missing = try RunningCommand(arguments: command)
            #expect(try missing.end() == 1)
            #expect(missing.errorText.contains("kvm_user is not loaded; sudo mmiofd module load"))
        }
    }

    @Test("stat ends when the module goes, and says so")
    func moduleGoes() throws {
        try ModuleUnderTest.load()
        let stat = try stat("--json", "--interval", "0.05")
        let trace = try trace()
        try #require(eventually(within: .seconds(60)) { stat.text.contains("\n") })
        try ModuleUnderTest.unload()
        #expect(try stat.end() == 1)
        #expect(stat.errorText.contains("kvm_user is not loaded"))
        #expect(try trace.end() == 0)
        #expect(try ended(trace).end == "module_gone")
        #expect(try instances().isEmpty)
    }

    // MARK: Tracepoints

    @Test("trace running shows each access on its way, beside the emulation process, and leaves nothing behind")
    func accesses() throws {
        try ModuleUnderTest.load()
        let trace = try trace()
        #expect(try instances() == ["mmiofd-\(trace.process)"])
        try runGuest("pair_4:2")
        try waitForClose(trace)
        trace.signal(SIGTERM)
        #expect(try trace.end() == 0)
        let all = try lines(Event.self, trace)
        #expect(all.last?.end == "stopped" && all.last?.events == all.count - 1 && all.last?.lost == 0)
        for name in ["queued", "read"] {
            let events = all.filter { $0.event == name }.prefix(4)
            #expect(events.map(\.kind) == ["store", "load", "store", "load"], "\(name)")
            #expect(events.map(\.value) == ["0x7", "0x0", "0x8", "0x0"], "\(name)")
            #expect(events.allSatisfy { $0.offset == "0x400" && $0.length == 4 && $0.vcpu == 0 }, "\(name)")
        }
        let replied = all.filter { $0.event == "replied" }.prefix(4)
        #expect(replied.filter { $0.kind == "load" }.map(\.value) == ["0x7", "0x8"])
        #expect(Set(all.compactMap(\.device)).count == 1)
        let moments = all.filter { $0.event == "queued" }.compactMap(\.monotonicNs)
        #expect(moments == moments.sorted() && !moments.isEmpty)
        #expect(try instances().isEmpty)
    }

    @Test("trace running as lines for people")
    func text() throws {
        try ModuleUnderTest.load()
        let trace = try RunningCommand(arguments: ["trace", "running", "--limit", "4", "--log-level", "info"])
        try #require(eventually(within: .seconds(60)) { trace.errorText.contains("tracing") }, "\(trace.errorText)")
        try runGuest("pair_4:2")
        #expect(try trace.end() == 0)
        let lines = trace.text.split(separator: "\n")
        #expect(lines.count == 5)
        #expect(lines.contains { $0.contains(" queued device ") && $0.contains(" store range 0 +0x400 len 4 0x7") })
        #expect(lines.last?.hasSuffix(": 4 events, 0 lost") == true)
        #expect(try instances().isEmpty)
    }

    @Test("trace running ends at a signal, and when nobody reads, and its instance goes", arguments: [SIGINT, SIGHUP])
    func signals(signal: CInt) throws {
        try ModuleUnderTest.load()
        let trace = try trace()
        #expect(try instances().count == 1)
        trace.signal(signal)
        #expect(try trace.end() == 0)
        #expect(try instances().isEmpty)
        let piped = try RunningCommand(
            "/bin/bash", arguments: ["-c", "\(RunningCommand.mmiofd) trace running --log-level info | head -n 1"])
        try #require(eventually(within: .seconds(60)) { piped.errorText.contains("tracing") })
        try runGuest("out_1:20", device: "uart16550a")
        #expect(try piped.end() == 0)
        #expect(try eventually { try instances().isEmpty })
    }

    @Test("The instance of a trace that was killed is removed by the next one")
    func killed() throws {
        try ModuleUnderTest.load()
        let killed = try trace()
        killed.signal(SIGKILL)
        try killed.end()
        #expect(try instances() == ["mmiofd-\(killed.process)"])
        let next = try trace()
        #expect(try instances() == ["mmiofd-\(next.process)"])
        next.signal(SIGINT)
        #expect(try next.end() == 0)
    }

    @Test("trace running narrowed to one VMM, or one device, shows no other")
    func narrowed() throws {
        try ModuleUnderTest.load()
        let other = socket + ".other"
        let device = "uart16550a"
        let (one, two) = (
            try vmm("out_1:20", device: device), try vmm("out_1:20", device: device, socket: other)
        )
        try #require(
            try eventually(within: .seconds(60)) {
                try !CounterFiles.names(of: one.process).isEmpty && !CounterFiles.names(of: two.process).isEmpty
            })
        let name = try #require(try CounterFiles.names(of: one.process).first)
        let byProcess = try trace("--process", "\(one.process)")
        let byDevice = try trace("--device", name)
        let unknown = try RunningCommand(arguments: ["trace", "running", "--device", "999999"])
        #expect(try unknown.end() != 0)
        #expect(unknown.errorText.contains(name), "\(unknown.errorText)")
        // The other one first: whatever it does has been traced by the time that the one's own events come.
        for socket in [other, socket] {
            let emulation = try emulation(device: device, socket: socket)
            try (socket == other ? two : one).end()
            try emulation.end()
        }
        for trace in [byProcess, byDevice] {
            try waitForClose(trace)
            trace.signal(SIGINT)
            #expect(try trace.end() == 0)
            let devices = Set(try lines(Event.self, trace).compactMap(\.device))
            #expect(devices.count == 1 && name.hasSuffix("-\(devices.first ?? 0)"))
        }
    }

    @Test("Events that were lost are said")
    func lost() throws {
        try ModuleUnderTest.load()
        let trace = try trace()
        let size = try FileDescriptor.open(
            FilePath("/\(Self.instances)/mmiofd-\(trace.process)/buffer_size_kb"), .writeOnly)
        try size.writeAll("4".utf8)
        try size.close()
        trace.signal(SIGSTOP)
        try runGuest("load_4:1000")
        trace.signal(SIGCONT)
        try waitForClose(trace)
        trace.signal(SIGINT)
        #expect(try trace.end() == 0)
        let all = try lines(Event.self, trace)
        #expect(all.contains { $0.event == "lost" && $0.count ?? 0 > 0 })
        #expect(try #require(all.last?.lost) > 1000)
    }
}

/// The files that devices have in debugfs.
private enum CounterFiles {
    static let folder = "sys/kernel/debug/kvm_user"

    static func names(of process: Int32) throws -> [String] {
        try SystemTree.running.names(in: folder).filter { $0.hasPrefix("\(process)-") }
    }
}
