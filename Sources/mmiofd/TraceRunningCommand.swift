// SPDX-License-Identifier: Apache-2.0
//
// mmiofd trace running: guests watched through the module's tracepoints.

import ArgumentParser
import Glibc
import JSONText
import KernelModule
import LinuxSystem
import Logging
import Observability
import SystemPackage

struct TraceRunningCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "running",
        abstract: "Print what happens to the accesses of guests that run, through the module's tracepoints.",
        discussion: """
            A line each time that an access is queued, read, replied to and so on, in whatever process, with the moment \
            (CLOCK_MONOTONIC, seconds) and the thread. Nobody waits for it: what comes faster than it is printed is lost, \
            and it says where and how much. Needs root, the module and tracefs, in which it uses an instance of its own; \
            that is gone afterwards. SIGINT and SIGTERM end it.

            With --json each line is an object. Of a tracepoint: event (its name without kvm_user_), monotonic_ns, \
            thread, command, processor (the host's), and what the tracepoint tells: device, vcpu, range, length, ret, \
            reason, redeliveries and aborted as numbers; sequence, offset, value and address as strings; kind (load or \
            store), bus (mmio or pio), wait (for space, reply, stores, or shadow: stores that a load from the image \
            follows), policy (abort, hold or exit); redelivered (true or false); and whatever a later module tells, under its own name, as a string, or in words if it has none. Of \
            lost events: event "lost", processor, count (null if not known). Of a line that is neither: event "other", \
            text. The last one: end (stopped, limit or module_gone), events, lost.
            """)

    @Option(
        name: .customLong("device"), parsing: .singleValue,
        help: ArgumentHelp(
            "A device to watch, its number or PROCESS-NUMBER as `mmiofd stat` shows it; may be repeated. (default: all)",
            valueName: "device"))
    var devices: [String] = []

    @Option(
        help: ArgumentHelp("Watch the devices that this VMM has by now.", valueName: "process id"))
    var process: Int32?

    @Option(help: "How many tracepoints to print before the end. (default: no limit)")
    var limit: Int?

    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard (limit ?? 1) > 0 else { throw ValidationError("--limit must be 1 or more") }
        guard process == nil || devices.isEmpty else { throw ValidationError("give --process or --device, not both") }
    }

    func run() throws {
        // The instance must go before the process does.
        _ = signal(SIGPIPE, SIG_IGN)
        let signals = try SignalDescriptor(taking: [SIGINT, SIGTERM, SIGHUP])
        var session = try TraceSession(devices: try chosenDevices())
        log.logger("trace").info("tracing")
        var tally = Tally(limit: limit ?? .max, json: output.json)
        let end = try Self.pass(&session, to: &tally, until: signals)
        _ = StandardOutput.write("\(output.json ? tally.json(end).description : tally.text(end))\n")
    }

    /// The numbers of the devices to watch, nil for all.
    private func chosenDevices() throws -> [UInt32]? {
        guard process != nil || !devices.isEmpty else { return nil }
        let present = try CounterSample.devices()
        let chosen =
            if let process {
                present.filter { $0.process == process }
            } else {
                try devices.map { try Self.device($0, among: present) }
            }
        if chosen.isEmpty, let process { throw Self.missing("process \(process) has no device", present) }
        return chosen.map(\.number)
    }

    private static func device(_ text: String, among present: [DeviceIdentity]) throws -> DeviceIdentity {
        guard let device = present.first(where: { text == "\($0)" || text == "\($0.number)" }) else {
            throw missing("there is no device \(text)", present)
        }
        return device
    }

    private static func missing(_ what: String, _ present: [DeviceIdentity]) -> ValidationError {
        let list = present.map(\.description).joined(separator: ", ")
        return ValidationError("\(what); there is \(list.isEmpty ? "none at all" : list)")
    }

    /// Why the trace ended.
    enum End: String {
        case stopped
        case limit
        case moduleGone = "module_gone"
    }

    private static func pass(
        _ session: inout TraceSession, to tally: inout Tally, until signals: borrowing SignalDescriptor
    ) throws -> End {
        while true {
            // The pipe says nothing when the module goes.
            _ = try waitForAny(of: [signals.descriptor.rawValue, session.descriptor], milliseconds: 500)
            let items = try session.take()
            // A reader that has gone is a wish to stop.
            guard tally.show(items) else { return .stopped }
            if tally.isFull { return .limit }
            // Taken, or it would act after all when the descriptor goes.
            if signals.take() != nil { return .stopped }
            if items.isEmpty, !session.hasModule { return .moduleGone }
        }
    }
}

/// Prints what comes, up to a limit, and counts it.
private struct Tally {
    private let limit: Int
    private let json: Bool
    private var events = 0
    private var lost = 0

    init(limit: Int, json: Bool) {
        self.limit = limit
        self.json = json
    }

    var isFull: Bool { events >= limit }

    /// Prints and counts.
    ///
    /// - Returns: whether anybody reads it.
    mutating func show(_ items: [TraceItem]) -> Bool {
        var text = ""
        for item in items where !isFull {
            switch item {
            case .event: events += 1
            case .lost(_, let count): lost += Int(clamping: count ?? 1)
            case .other: break
            }
            text += json ? "\(item.json)\n" : "\(item.text)\n"
        }
        return text.isEmpty || StandardOutput.write(text)
    }

    func json(_ end: TraceRunningCommand.End) -> JSONValue {
        .object(["end": .string(end.rawValue), "events": .integer(events), "lost": .integer(lost)])
    }

    func text(_ end: TraceRunningCommand.End) -> String {
        let reason =
            switch end {
            case .stopped: "stopped"
            case .limit: "as many as were asked for"
            case .moduleGone: "the module is gone"
            }
        return "\(reason): \(events) events, \(lost) lost"
    }
}

extension TraceItem {
    /// "12.345678 vmm-812 queued device 3 vCPU 0 #17 store range 0 +0x404 len 4 0x1".
    fileprivate var text: String {
        switch self {
        case .event(let event):
            let fraction = "\(event.nanoseconds % 1_000_000_000 / 1000)"
            let seconds =
                "\(event.nanoseconds / 1_000_000_000).\(String(repeating: "0", count: 6 - fraction.count))\(fraction)"
            let words = [seconds, "\(event.command)-\(event.thread)", event.name] + event.fields.compactMap(\.text)
            return words.joined(separator: " ")
        case .lost(let processor, let count):
            return "(CPU \(processor): \(count.map(String.init) ?? "some") events lost)"
        case .other(let text): return text
        }
    }

    fileprivate var json: JSONValue {
        switch self {
        case .event(let event): event.json
        case .lost(let processor, let count):
            .object([
                "event": "lost", "processor": .integer(processor), "count": JSONValue(count.map { Int(clamping: $0) }),
            ])
        case .other(let text): .object(["event": "other", "text": .string(text)])
        }
    }
}

extension TraceEvent {
    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = [:]
        var words: [JSONValue] = []
        for field in fields {
            guard let name = field.jsonName else {
                words.append(.string(field.value))
                continue
            }
            members[name] = field.json
        }
        if !words.isEmpty { members["words"] = .array(words) }
        // Last: no field takes the place of what every event has.
        members["event"] = .string(name)
        members["monotonic_ns"] = .integer(Int(clamping: nanoseconds))
        members["thread"] = .integer(Int(thread))
        members["command"] = .string(command)
        members["processor"] = .integer(processor)
        return .dictionary(members)
    }
}

extension TraceEvent.Field {
    fileprivate var jsonName: String? {
        switch (name, value) {
        case (nil, "load"), (nil, "store"): "kind"
        case (nil, "mmio"), (nil, "pio"): "bus"
        case (nil, "space"), (nil, "reply"), (nil, "stores"), (nil, "shadow"): "wait"
        case (nil, "abort"), (nil, "hold"), (nil, "exit"): "policy"
        case ("dev", _): "device"
        case ("cpu", _): "vcpu"
        case ("seq", _): "sequence"
        case ("len", _): "length"
        case ("data", _): "value"
        case ("addr", _): "address"
        case ("flags", _): "redelivered"
        case ("redelivered", _): "redeliveries"
        default: name
        }
    }

    fileprivate var json: JSONValue {
        switch name {
        case "dev", "cpu", "range", "len", "ret", "reason", "redelivered", "aborted":
            number.map { .integer($0) } ?? .string(value)
        case "flags": .boolean(isRedelivered)
        default: .string(value)
        }
    }

    /// Nil for a field that says that there is nothing to say.
    fileprivate var text: String? {
        switch name {
        case nil: value
        case "dev": "device \(value)"
        case "cpu": "vCPU \(value)"
        case "seq": "#\(value)"
        case "range": "range \(value)"
        case "offset": "+\(value)"
        case "len": "len \(value)"
        case "data": value
        case "flags": value == "0x0" ? nil : isRedelivered ? "redelivered" : "flags \(value)"
        case "ret" where value == "0": nil
        case let name?: "\(name) \(value)"
        }
    }

    private var isRedelivered: Bool { (number ?? 0) & 1 != 0 }

    /// The value as a number, in decimal or after 0x.
    private var number: Int? {
        value.hasPrefix("0x") ? Int(value.dropFirst(2), radix: 16) : Int(value)
    }
}
