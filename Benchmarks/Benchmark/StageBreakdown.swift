// SPDX-License-Identifier: Apache-2.0
//
// Where an access's cost lies: the way from event to event, without what the tracing itself costs.

/// Finds the stages of an access.
struct StageBreakdown {
    /// Tracepoints that are switched on together: those of system calls cost as much alone as both.
    static let groups: [[String]] = [
        ["kvm/kvm_exit"], ["kvm/kvm_entry"], ["kvm_user/kvm_user_queued"], ["kvm_user/kvm_user_read"],
        ["kvm_user/kvm_user_replied"], ["kvm_user/kvm_user_resumed"], ["sched/sched_waking"],
        ["sched/sched_wakeup"], ["sched/sched_switch"],
        ["raw_syscalls/sys_enter", "raw_syscalls/sys_exit"],
    ]

    /// One of the two processes.
    enum Side: String {
        case vmm
        case emulation
    }

    /// From one event to the next.
    struct Step: Hashable {
        var from: String
        var to: String
        /// Who was running after the first event.
        var side: Side

        /// The stage that it belongs to.
        var stage: String {
            switch (from, to) {
            case (_, "kvm_exit"): "guest"
            case (_, "kvm_entry"): "entry"
            case (_, "sched_wakeup"): "wake-up"
            case ("sched_wakeup", "sched_switch"), (_, "sched_switch"): "switch"
            case ("kvm_exit", _): "exit"
            case ("kvm_user_queued", _): "queue"
            case ("kvm_user_read", _), (_, "kvm_user_read"): "read"
            case (_, "kvm_user_replied"), ("kvm_user_replied", _): "write"
            case (_, "kvm_user_resumed"): "resume"
            case ("sched_wakeup", _): "wake-up"
            default: betweenCalls
            }
        }

        private var betweenCalls: String {
            if let call = Self.call(from, "sys_enter ") { return call }
            if let call = Self.call(to, "sys_exit ") { return call }
            return side == .vmm ? "vmm" : "emulate"
        }

        /// What the system call is for that such an event names.
        private static func call(_ event: String, _ kind: String) -> String? {
            guard event.hasPrefix(kind) else { return nil }
            switch event.dropFirst(kind.count) {
            case "0": return "read"
            case "1": return "write"
            case "16": return "ioctl"
            case "44": return "send"
            case "45": return "receive"
            case "202": return "futex"
            default: return "call"
            }
        }
    }

    /// What an event costs, by name.
    var costs: [String: Double] = [:]
    private let vmm: Int
    private let emulation: Int

    init(vmm: Int, emulation: Int) {
        self.vmm = vmm
        self.emulation = emulation
    }

    /// The steps of each access: from one exit for it to the next.
    func accesses(_ events: [EventTrace.Event]) -> [[(step: Step, ticks: Double)]] {
        let events = events.filter { $0.thread == vmm || $0.thread == emulation }
        let starts = events.indices.filter { events[$0].name == "kvm_exit" && events[$0].fields.contains("npf") }
        return zip(starts, starts.dropFirst()).map { start, end in
            (start..<end).map { index in
                let (event, next) = (events[index], events[index + 1])
                let step = Step(from: label(event), to: label(next), side: side(after: event))
                return (step, Double(next.time - event.time) - (costs[event.name] ?? 0))
            }
        }
    }

    private func side(after event: EventTrace.Event) -> Side {
        if event.name == "sched_switch" { return event.fields.contains("next_pid=\(vmm) ") ? .vmm : .emulation }
        return event.thread == vmm ? .vmm : .emulation
    }

    private func label(_ event: EventTrace.Event) -> String {
        switch event.name {
        case "sys_enter", "sys_exit":
            // "NR 16 (…)" and "NR 16 = 0".
            let words = event.fields.split(separator: " ")
            return "\(event.name) \(words.count > 1 ? words[1] : "")"
        case "kvm_exit": return event.fields.contains("npf") ? "kvm_exit" : "kvm_exit other"
        default: return event.name
        }
    }

    /// The stages of the accesses that went as most did, in order, each with its median.
    func usualStages(_ events: [EventTrace.Event]) -> [(name: String, ticks: Double)] {
        // The first ones find nothing in the caches of either side.
        let accesses = accesses(events).dropFirst(10)
        let shapes = Dictionary(grouping: accesses) { $0.map(\.step) }
        // The order of a dictionary is another one in every run.
        let usual = shapes.max { ($0.value.count, $1.key.count) < ($1.value.count, $0.key.count) }
        guard let usual else { return [] }
        var stages: [(name: String, ticks: Double)] = []
        for (index, step) in usual.key.enumerated() {
            let ticks = usual.value.map { $0[index].ticks }.median
            if stages.last?.name == step.stage {
                stages[stages.count - 1].ticks += ticks
            } else {
                stages.append((step.stage, ticks))
            }
        }
        return stages
    }
}
