// SPDX-License-Identifier: Apache-2.0
//
// mmiofd stat: what the module counts for each device.

import ArgumentParser
import Glibc
import JSONText
import KernelModule
import LinuxSystem
import Logging
import Observability
import SystemPackage

struct StatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stat",
        abstract: "Show what the module counts for each device, live.",
        discussion: """
            A table with a column for each device, PROCESS-NUMBER below the name of its VMM, and a row for each counter: \
            how much it grew per second, and its total. Needs root, the module and debugfs. In a terminal the table is \
            drawn anew in its place; Ctrl-C ends it.

            With --json each sample is an object in a line of its own: monotonic_ns (CLOCK_MONOTONIC), interval_ns since \
            the sample before (null in the first), and devices, an array of objects: device (PROCESS-NUMBER), process, \
            number, command (null if the process is no more), counters (an object of totals by name) and per_second (the \
            same of rates, rounded; without those that have none, and empty in the first sample).
            """)

    @Option(help: ArgumentHelp("How long from one sample to the next.", valueName: "seconds"))
    var interval = 1.0

    @Flag(help: "Take one sample, and so no rates.")
    var once = false

    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard (0.01...86400).contains(interval) else {
            throw ValidationError("--interval must be 0.01 to 86400 seconds")
        }
    }

    func run() throws {
        // A reader that has seen enough, head(1) say, is no failure.
        _ = signal(SIGPIPE, SIG_IGN)
        let signals = try SignalDescriptor(taking: [SIGINT, SIGTERM, SIGHUP])
        var screen = TableScreen()
        var earlier: CounterSample?
        while true {
            let sample = try CounterSample()
            log.logger("stat").debug("read", metadata: ["devices": "\(sample.devices.count)"])
            let isShown =
                output.json
                ? StandardOutput.write("\(Self.json(sample, since: earlier))\n")
                : screen.show(CounterTable(sample, since: earlier))
            guard isShown, !once else { return }
            earlier = sample
            _ = try waitForAny(of: [signals.descriptor.rawValue], milliseconds: CInt(interval * 1000))
            // Taken, or it would act after all when the descriptor goes.
            if signals.take() != nil { return screen.end() }
        }
    }

    private static func json(_ sample: CounterSample, since earlier: CounterSample?) -> JSONValue {
        .object([
            "monotonic_ns": .integer(Int(clamping: sample.nanoseconds)),
            "interval_ns": JSONValue(earlier.map { Int(clamping: sample.nanoseconds &- $0.nanoseconds) }),
            "devices": .array(sample.devices.map { json($0, sample, since: earlier) }),
        ])
    }

    private static func json(
        _ counters: DeviceCounters, _ sample: CounterSample, since earlier: CounterSample?
    ) -> JSONValue {
        var totals: [String: JSONValue] = [:]
        var rates: [String: JSONValue] = [:]
        for counter in counters.counters {
            totals[counter.name] = .integer(Int(clamping: counter.value))
            rates[counter.name] = earlier.flatMap { sample.perSecond(counter, of: counters.device, since: $0) }
                .map { .integer(Int(clamping: $0)) }
        }
        return .object([
            "device": .string("\(counters.device)"), "process": .integer(Int(counters.device.process)),
            "number": .integer(Int(counters.device.number)), "command": JSONValue(counters.command),
            "counters": .dictionary(totals), "per_second": .dictionary(rates),
        ])
    }
}

/// Shows one table after the other: in a terminal each in the place of the one before, else one below the other.
private struct TableScreen {
    /// Lines on the screen that the next table takes the place of.
    private var height = 0
    private var isFirst = true

    /// Shows a table.
    ///
    /// - Returns: whether anybody reads it.
    mutating func show(_ table: CounterTable) -> Bool {
        guard let size = StandardOutput.terminalSize else {
            let text = table.lines().map { "\($0)\n" }.joined()
            defer { isFirst = false }
            return StandardOutput.write(isFirst ? text : "\n\(text)")
        }
        var lines = table.lines(width: size.columns)
        // The cursor stands below the table.
        if lines.count >= size.rows {
            lines = lines.prefix(max(0, size.rows - 2)) + ["… (the terminal has no more rows)"]
        }
        // No mode of the terminal is changed, so there is none to restore: up, and clear from there.
        let up = height > 0 ? "\u{1b}[\(height)A" : ""
        height = lines.count
        return StandardOutput.write("\(up)\r\u{1b}[J" + lines.map { "\($0)\n" }.joined())
    }

    /// Leaves the cursor below the last table, where the terminal may have shown the keys that ended it.
    func end() {
        if height > 0 { _ = StandardOutput.write("\r\u{1b}[J") }
    }
}
