// SPDX-License-Identifier: Apache-2.0
//
// A line of trace_pipe, taken apart.

import KernelModule

/// What a line of the kernel's trace says.
public enum TraceItem: Sendable, Hashable {
    /// A tracepoint of kvm_user was passed.
    case event(TraceEvent)
    /// The buffer of a CPU was full, and events are missing here; nil where the kernel does not say how many.
    case lost(processor: Int, count: UInt64?)
    /// A line of another form, fit for a terminal.
    case other(String)

    /// Takes a line apart.
    ///
    /// - Parameter line: anything at all, without its end.
    public init(_ line: some Collection<UInt8>) {
        let line = [UInt8](line)
        if let event = TraceEvent(line) {
            self = .event(event)
        } else if let lost = Self.lost(line) {
            self = lost
        } else {
            self = .other(String(decoding: line, as: UTF8.self).printable)
        }
    }

    /// `CPU:1 [LOST 12 EVENTS]`, or without the number.
    private static func lost(_ line: [UInt8]) -> TraceItem? {
        let words = String(decoding: line, as: UTF8.self).split(separator: " ")
        guard words.count >= 3, words[0].hasPrefix("CPU:"), let processor = Int(words[0].dropFirst(4)),
            words[1] == "[LOST", words.last == "EVENTS]"
        else { return nil }
        return .lost(processor: processor, count: words.count == 4 ? UInt64(words[2]) : nil)
    }
}

/// One tracepoint, passed once.
public struct TraceEvent: Sendable, Hashable {
    /// A word of what the tracepoint tells: `seq=17`, or `load` alone, whose name is nil.
    public struct Field: Sendable, Hashable {
        /// What is before the `=`.
        public let name: String?
        /// What is after it.
        public let value: String
    }

    /// The tracepoint, without `kvm_user_`: `queued`, `read`, `replied` …
    public let name: String
    /// The moment, in nanoseconds of CLOCK_MONOTONIC, to the microsecond.
    public let nanoseconds: UInt64
    /// The thread that passed it: a vCPU's, or one of the emulation process.
    public let thread: Int32
    /// The thread's name, fit for a terminal.
    public let command: String
    /// The host's CPU that it ran on.
    public let processor: Int
    /// What the tracepoint tells, in its order.
    public let fields: [Field]

    /// The value of a field; nil if there is none of that name.
    public subscript(name: String) -> String? {
        fields.first { $0.name == name }?.value
    }

    private static let mark = Array(": kvm_user_".utf8)

    /// Takes `COMMAND-THREAD [CPU] FLAGS SECONDS: kvm_user_NAME: FIELDS` apart; nil for anything else.
    init?(_ line: [UInt8]) {
        // A thread may be called anything, what comes after that may not: so everything is read from the right.
        guard let mark = Self.lastMark(in: line) else { return nil }
        let told = String(decoding: line[(mark + Self.mark.count)...], as: UTF8.self).printable
        let parts = told.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty else { return nil }

        var front = String(decoding: line[..<mark], as: UTF8.self)[...]
        guard let time = Self.takeLastWord(&front).flatMap({ Self.nanoseconds($0) }), Self.takeLastWord(&front) != nil,
            let bracketed = Self.takeLastWord(&front), bracketed.hasPrefix("["), bracketed.hasSuffix("]"),
            let processor = Int(bracketed.dropFirst().dropLast()),
            let task = Self.task(front)
        else { return nil }
        name = String(parts[0])
        nanoseconds = time
        self.processor = processor
        (command, thread) = task
        fields = parts[1].split(separator: " ").map { word in
            let sides = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return sides.count == 2
                ? Field(name: String(sides[0]), value: String(sides[1])) : Field(name: nil, value: String(word))
        }
    }

    private static func lastMark(in line: [UInt8]) -> Int? {
        guard line.count >= mark.count else { return nil }
        return (0...(line.count - mark.count)).last { line[$0..<($0 + mark.count)] == mark[...] }
    }

    private static func takeLastWord(_ text: inout Substring) -> Substring? {
        while text.last == " " { text.removeLast() }
        guard !text.isEmpty else { return nil }
        let start = text.lastIndex(of: " ").map { text.index(after: $0) } ?? text.startIndex
        defer { text = text[..<start] }
        return text[start...]
    }

    /// `12.345678` seconds.
    private static func nanoseconds(_ text: Substring) -> UInt64? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[1].utf8.count == 6, let seconds = UInt64(parts[0]),
            let microseconds = UInt32(parts[1])
        else { return nil }
        let (whole, isTooLarge) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, overflow) = whole.addingReportingOverflow(UInt64(microseconds) * 1000)
        return isTooLarge || overflow ? nil : sum
    }

    /// `   vmm-812   `, where the name may have dashes and spaces.
    private static func task(_ text: Substring) -> (command: String, thread: Int32)? {
        var text = text
        while text.last == " " { text.removeLast() }
        guard let dash = text.lastIndex(of: "-"), let thread = Int32(text[text.index(after: dash)...]) else {
            return nil
        }
        return (String(text[..<dash].drop { $0 == " " }).printable, thread)
    }
}
