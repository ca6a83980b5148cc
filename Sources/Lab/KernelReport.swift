// SPDX-License-Identifier: Apache-2.0
//
// What a kernel says on its console when something is wrong with it.

/// A report in a console log: a bug, a warning, a finding of one of the kernel's checkers.
public struct KernelReport: Hashable, Sendable {
    /// Which part of the kernel reported.
    public let kind: Kind
    /// The report's first line, in the log counted from 1.
    public let lineNumber: Int
    /// That line and those after it that belong to it, a few at most.
    public let excerpt: [String]

    /// The kinds of report that fail a run.
    public enum Kind: String, CaseIterable, Sendable {
        case kasan = "KASAN"
        case kcsan = "KCSAN"
        case ubsan = "UBSAN"
        case kmemleak
        case lockdep
        case rcu = "RCU"
        case atomicSleep = "sleep in atomic context"
        case referenceCount = "reference count"
        case debugObjects = "debug objects"
        case hungTask = "hung task"
        case lockup
        case oops
        case warning = "WARNING"
        case bug = "BUG"
        case panic
    }

    /// Finds the reports in a log.
    ///
    /// - Parameter lines: the console log, line by line, with or without time stamps.
    /// - Returns: the reports in order. Whatever follows a report within ``length`` lines (its call trace, the panic
    ///   that `oops=panic` makes of it) counts as part of it. Data races in which KVM and its modules have no part are
    ///   left out, and those of ``kernelsOwnRaces``: the kernel has some of its own, in its timers for example.
    public static func scan(_ lines: [String]) -> [KernelReport] {
        var reports: [KernelReport] = []
        var end = 0
        for (index, line) in lines.enumerated() where index >= end {
            guard let kind = kind(of: message(of: line)) else { continue }
            if kind == .kcsan, let last = lastLineOfForeignRace(lines[index...]) {
                end = last + 1
                continue
            }
            end = min(index + length, lines.count)
            let excerpt = lines[index..<min(index + quotedLength, end)].map { String(message(of: $0)) }
            reports.append(KernelReport(kind: kind, lineNumber: index + 1, excerpt: excerpt))
        }
        return reports
    }

    /// Where a data race ends neither of whose accesses is made by KVM or for it; nil for any other race, and for one
    /// whose end is missing.
    private static func lastLineOfForeignRace(_ lines: ArraySlice<String>) -> Int? {
        let isKernelsOwn = lines.first.map { kernelsOwnRaces.contains(racers(in: message(of: $0))) } ?? false
        var isInterrupted = false
        for index in lines.indices.prefix(4 * length) {
            let message = message(of: lines[index])
            if message.hasPrefix("Reported by Kernel Concurrency Sanitizer") { return index }
            // What an interrupt came into is no part of what its handler did, nor is a lock that is held meanwhile.
            if message.isEmpty { isInterrupted = false }
            if message.hasPrefix(" asm_") { isInterrupted = true }
            let isAccess = message.hasPrefix("BUG:") || message.hasPrefix(" ") && !message.hasPrefix(" #")
            if isAccess, !isInterrupted, !isKernelsOwn, message.contains("kvm") { return nil }
        }
        return nil
    }

    /// The two functions that a data race's first line names, `BUG: KCSAN: data-race in a / b`, in either order.
    private static func racers(in message: Substring) -> Set<Substring> {
        Set(message.split(separator: " ").suffix(3).filter { $0 != "/" })
    }

    /// Data races that need nothing of KVM but that it calls the kernel: both accesses are the kernel's, to what only
    /// the kernel has.
    private static let kernelsOwnRaces: Set<Set<Substring>> = [
        // fs/select.c: poll() looks whether it was woken; any wake-up of a file that is polled can write it meanwhile.
        ["poll_schedule_timeout", "pollwake"],
        // kernel/time/timekeeping.c: a clock that reads one of two copies while the other is written.
        ["ktime_get_mono_fast_ns", "timekeeping_update"],
    ]

    /// How many lines after its first are taken for one report.
    static let length = 64
    /// How many of them ``excerpt`` keeps.
    static let quotedLength = 24

    /// What a line reports, if it begins a report.
    ///
    /// - Parameter message: a console line without its time stamp.
    static func kind(of message: Substring) -> Kind? {
        patterns.first { pattern in pattern.matches(message) }?.kind
    }

    /// The line without the time stamp and the caller ID in front, `[   12.345678][  T123] `, and without its return.
    static func message(of line: String) -> Substring {
        var rest = line[...]
        while rest.last?.isWhitespace == true { rest.removeLast() }
        while rest.first == "[" {
            guard let end = rest.firstIndex(of: "]") else { break }
            let inside = rest[rest.index(after: rest.startIndex)..<end]
            guard inside.allSatisfy({ $0 == " " || $0 == "." || $0 == "T" || $0 == "C" || $0.isNumber }) else { break }
            rest = rest[rest.index(after: end)...]
            if rest.first == " " { rest.removeFirst() }
        }
        return rest
    }

    private struct Pattern {
        let kind: Kind
        let text: String
        /// Whether the text must begin the message; in the middle of one it may be somebody's prose.
        let leads: Bool

        init(_ kind: Kind, leading text: String) { (self.kind, self.text, leads) = (kind, text, true) }
        init(_ kind: Kind, containing text: String) { (self.kind, self.text, leads) = (kind, text, false) }

        func matches(_ message: Substring) -> Bool {
            leads ? message.hasPrefix(text) : message.contains(text)
        }
    }

    /// The first that matches names the report, so a checker's own words come before the general ones.
    private static let patterns: [Pattern] = [
        Pattern(.kasan, leading: "BUG: KASAN:"),
        Pattern(.kasan, leading: "BUG: KFENCE:"),
        Pattern(.kasan, leading: "KASAN: "),
        Pattern(.kcsan, leading: "BUG: KCSAN:"),
        Pattern(.ubsan, leading: "UBSAN:"),
        Pattern(.kmemleak, leading: "unreferenced object"),
        // "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
        Pattern(.kmemleak, containing: "new suspected memory leaks"),
        // A checker that turned itself off finds nothing more.
        Pattern(.kmemleak, leading: "kmemleak: Kernel memory leak detector disabled"),
        Pattern(.lockdep, leading: "BUG: MAX_LOCK"),
        Pattern(.lockdep, containing: "turning off the locking correctness validator"),
        Pattern(.lockdep, leading: "BUG: workqueue leaked lock"),
        Pattern(.atomicSleep, containing: "sleeping function called from invalid context"),
        Pattern(.atomicSleep, containing: "scheduling while atomic"),
        Pattern(.lockup, containing: "soft lockup - CPU#"),
        Pattern(.lockup, containing: "Watchdog detected hard LOCKUP"),
        Pattern(.lockup, leading: "BUG: workqueue lockup"),
        Pattern(.lockup, leading: "BUG: spinlock lockup"),
        Pattern(.hungTask, containing: "blocked for more than"),
        Pattern(.rcu, containing: "suspicious RCU usage"),
        Pattern(.rcu, leading: "rcu: INFO: "),
        Pattern(.rcu, leading: "INFO: rcu"),
        Pattern(.rcu, containing: "detected stalls on CPUs/tasks"),
        Pattern(.rcu, containing: "self-detected stall on CPU"),
        Pattern(.rcu, containing: "detected expedited stalls"),
        Pattern(.lockdep, containing: "possible circular locking dependency"),
        Pattern(.lockdep, containing: "possible recursive locking"),
        Pattern(.lockdep, containing: "possible irq lock inversion"),
        Pattern(.lockdep, containing: "inconsistent lock state"),
        Pattern(.lockdep, containing: "lock order detected"),
        Pattern(.lockdep, containing: "lock held when returning to user space"),
        Pattern(.lockdep, containing: "bad unlock balance detected"),
        Pattern(.lockdep, containing: "bad contention detected"),
        Pattern(.lockdep, containing: "held lock freed"),
        Pattern(.lockdep, containing: "still has locks held"),
        Pattern(.lockdep, containing: "nested lock was not taken"),
        Pattern(.lockdep, containing: "Invalid wait context"),
        Pattern(.lockdep, containing: "INFO: trying to register non-static key"),
        Pattern(.lockdep, leading: "DEBUG_LOCKS_WARN_ON"),
        Pattern(.referenceCount, containing: "refcount_t: "),
        Pattern(.debugObjects, leading: "ODEBUG: "),
        Pattern(.oops, leading: "Oops:"),
        Pattern(.oops, leading: "general protection fault"),
        Pattern(.oops, leading: "stack segment:"),
        Pattern(.oops, leading: "double fault:"),
        Pattern(.oops, leading: "invalid opcode:"),
        Pattern(.oops, leading: "divide error:"),
        Pattern(.oops, leading: "int3:"),
        Pattern(.oops, leading: "kernel BUG at"),
        Pattern(.oops, leading: "kernel tried to execute"),
        Pattern(.warning, leading: "WARNING:"),
        Pattern(.bug, leading: "BUG:"),
        Pattern(.bug, leading: "BUG "),
        Pattern(.bug, leading: "list_del corruption"),
        Pattern(.bug, leading: "list_add corruption"),
        Pattern(.panic, leading: "Kernel panic - not syncing"),
    ]
}

extension KernelReport: CustomStringConvertible {
    /// The report as a few lines of text.
    public var description: String {
        "\(kind.rawValue), console line \(lineNumber):\n" + excerpt.map { "    \($0)\n" }.joined()
    }
}
