// SPDX-License-Identifier: Apache-2.0
//
// What is made of a trace.

import Testing

@testable import Benchmark

@Suite("Stages")
struct StageTests {
    @Test("A line of ftrace's is an event")
    func line() {
        let line: Substring =
            "           <...>-93      [000] d..2. 8401425735: kvm_exit: vcpu 0 reason npf rip 0x10040 info1 0x0"
        #expect(
            EventTrace.Event(line)
                == EventTrace.Event(
                    thread: 93, time: 8_401_425_735, name: "kvm_exit", fields: "vcpu 0 reason npf rip 0x10040 info1 0x0"
                ))
        let named: Substring = " a b-c-7 [001] ..... 12: sys_exit: NR 16 = 0"
        #expect(EventTrace.Event(named)?.thread == 7)
    }

    @Test(
        "Any other line is none",
        arguments: [
            "", "# tracer: nop", "#           TASK-PID     CPU#", "CPU:0 [LOST 12 EVENTS]", "a-b [000] d 12: x: y",
            "a-1 [000] d 12", "a-1 [000] d twelve: x: y",
        ])
    func otherLines(_ line: String) {
        #expect(EventTrace.Event(line[...]) == nil)
    }

    /// A load through the descriptor, each event 100 ticks after the one before and costing the next one 10.
    private static func access(at start: UInt64, extra: UInt64 = 0) -> [EventTrace.Event] {
        let events: [(Int, String, String)] = [
            (1, "kvm_exit", "vcpu 0 reason npf rip 0x1"), (1, "kvm_user_queued", "dev=1"), (1, "sched_waking", ""),
            (1, "sched_wakeup", ""), (1, "sched_switch", "prev_pid=1 ==> next_comm=b next_pid=2 next_prio=120"),
            (2, "kvm_user_read", ""), (2, "sys_exit", "NR 16 = 0"), (2, "sys_enter", "NR 16 (1, 2)"),
            (2, "kvm_user_replied", ""), (2, "sched_switch", "prev_pid=2 ==> next_comm=a next_pid=1 next_prio=120"),
            (1, "kvm_user_resumed", ""), (1, "kvm_entry", "vcpu 0"),
        ]
        return events.enumerated().map { index, event in
            EventTrace.Event(
                thread: event.0, time: start + 100 * UInt64(index) + (index > 6 ? extra : 0), name: event.1,
                fields: event.2)
        }
    }

    @Test("An access is taken apart at its events, whose own cost is left out")
    func stages() {
        var events: [EventTrace.Event] = []
        // One of them takes longer than the others, and somebody else's events are between.
        for index in 0..<30 as Range<UInt64> {
            events += Self.access(at: 10_000 * index, extra: index == 20 ? 5000 : 0)
            events.append(.init(thread: 9, time: 10_000 * index + 5500, name: "sched_wakeup", fields: ""))
        }
        var breakdown = StageBreakdown(vmm: 1, emulation: 2)
        breakdown.costs = ["kvm_exit": 10, "kvm_user_read": 30]
        let stages = breakdown.usualStages(events)
        #expect(
            stages.map(\.name) == [
                "exit", "queue", "wake-up", "switch", "read", "emulate", "write", "switch", "resume", "entry", "guest",
            ])
        #expect(stages.map(\.ticks) == [90, 100, 100, 100, 170, 100, 100, 100, 100, 100, 8900])
    }

    @Test("No trace has no stages")
    func nothing() {
        #expect(StageBreakdown(vmm: 1, emulation: 2).usualStages([]).isEmpty)
    }
}
