// SPDX-License-Identifier: Apache-2.0
//
// Lines of trace_pipe: as the kernel writes them, and as a hostile thread's name or a broken pipe could make them.

import Testing

@testable import Observability

@Suite("Trace lines")
struct TraceItemTests {
    private let told =
        "kvm_user_queued: dev=3 cpu=1 seq=17 store range=0 offset=0x404 len=4 data=0xff flags=0x0"

    private func parse(_ line: String) -> TraceEvent? {
        if case .event(let event) = TraceItem(Array(line.utf8)) { event } else { nil }
    }

    @Test("A request's line, as Linux 6.1 and 6.12 write it")
    func request() throws {
        let event = try #require(parse("             vmm-812     [001] ...1.    12.045678: \(told)"))
        #expect(event.name == "queued")
        #expect(event.nanoseconds == 12_045_678_000)
        #expect(event.thread == 812)
        #expect(event.command == "vmm")
        #expect(event.processor == 1)
        #expect(event["dev"] == "3" && event["seq"] == "17" && event["offset"] == "0x404" && event["data"] == "0xff")
        #expect(event.fields.filter { $0.name == nil }.map(\.value) == ["store"])
        #expect(event["none"] == nil)
    }

    @Test(
        "A thread may be called anything",
        arguments: [
            ("a b", "a b"), ("<...>", "<...>"), ("a-1 [0] . 1.0", "a-1 [0] . 1.0"), ("-", "-"), ("", ""),
            (": kvm_user_x: ", ": kvm_user_x: "), ("\u{1b}[2J", "?[2J"), ("\u{202e}x", "?x"), ("x-7", "x-7"),
        ])
    func names(name: String, shown: String) throws {
        let event = try #require(parse("  \(name)-812   [000] d..1. 99999.000001: \(told)"))
        #expect(event.thread == 812 && event.name == "queued" && event["dev"] == "3")
        // Trailing spaces of a name cannot be told from the kernel's.
        #expect(event.command == shown)
    }

    @Test("A tracepoint that nobody knows is taken as it is, with and without fields")
    func unknown() throws {
        let event = try #require(parse("vmm-1 [000] ..... 1.000000: kvm_user_new_one: dev=1 how=so a=b=c odd"))
        #expect(event.name == "new_one")
        #expect(event["a"] == "b=c")
        #expect(event.fields.count == 4)
        #expect(parse("vmm-1 [000] ..... 1.000000: kvm_user_bare:")?.fields.isEmpty == true)
    }

    @Test(
        "Lost events are said, with their number if the kernel has it",
        arguments: [
            ("CPU:1 [LOST 12 EVENTS]", .lost(processor: 1, count: 12)),
            ("CPU:0 [LOST EVENTS]", .lost(processor: 0, count: nil)),
            ("CPU:0 [LOST 99999999999999999999 EVENTS]", .lost(processor: 0, count: nil)),
        ] as [(String, TraceItem)])
    func lost(line: String, item: TraceItem) {
        #expect(TraceItem(Array(line.utf8)) == item)
    }

    @Test(
        "A line of another form is shown as it is, fit for a terminal",
        arguments: [
            ("", ""), ("#  tracer: nop", "#  tracer: nop"), ("CPU:x [LOST 1 EVENTS]", "CPU:x [LOST 1 EVENTS]"),
            ("CPU:1 [LOST", "CPU:1 [LOST"), ("\u{1b}[31m", "?[31m"), (": kvm_user_", ": kvm_user_"),
        ])
    func other(line: String, shown: String) {
        #expect(TraceItem(Array(line.utf8)) == .other(shown))
    }

    @Test(
        "A line with a part that is missing or no number is no event",
        arguments: [
            ": kvm_user_x: ", "[000] . 1.000000: kvm_user_x: ", "a-1 [0] . 1.0: kvm_user_x:",
            "a-1 [0] . 99999999999999999999.000000: kvm_user_x:", "a-1 [0] . 18446744074.000000: kvm_user_x:",
            "a-1 [] . 1.000000: kvm_user_x:", "a-1 [ . 1.000000: kvm_user_x:", "a-1 [0] 1.000000: kvm_user_x:",
            "a-2147483648 [0] . 1.000000: kvm_user_x:", "a [0] . 1.000000: kvm_user_x:",
            "a-1 [0] . 1.000000: other_event: x", "a-1 [0] . 1.000000: kvm_user_", "a-1 [0] . 1.000000: kvm_user_:",
        ])
    func incomplete(line: String) {
        #expect(TraceItem(Array(line.utf8)) == .other(line))
    }

    @Test("Lines are whole, wherever a read ended", arguments: [1, 2, 7, 50, 1000])
    func pieces(size: Int) {
        let text = "a-1 [0] . 1.000000: \(told)\n\nCPU:1 [LOST 3 EVENTS]\nb-2 [1] . 2.000000: \(told)\nunfinished"
        var (unfinished, items): ([UInt8], [TraceItem]) = ([], [])
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            items += TraceSession.lines(unfinished: &unfinished, rest.prefix(size))
            rest = rest.dropFirst(size)
        }
        #expect(items.count == 3)
        #expect(items.dropFirst().first == .lost(processor: 1, count: 3))
        #expect(String(decoding: unfinished, as: UTF8.self) == "unfinished")
    }

    @Test("A line without an end does not grow for ever")
    func endless() {
        var unfinished: [UInt8] = []
        var items: [TraceItem] = []
        for _ in 0..<5 {
            items += TraceSession.lines(unfinished: &unfinished, [UInt8](repeating: 0x61, count: 1 << 15))
        }
        #expect(items.count == 1)
        #expect(unfinished.count < 1 << 17)
    }
}
