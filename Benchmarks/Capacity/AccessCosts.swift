// SPDX-License-Identifier: Apache-2.0
//
// What the parts of an access cost, worked out from measured rows. docs/capacity.md derives each.

public import BenchmarkReport

/// Instructions of the parts of an access through the descriptor, each on the CPU that executes them.
public struct AccessCosts: Hashable, Sendable {
    /// vCPU: an exit that the kernel handles, and the entry.
    public var exit: Double
    /// vCPU: what a load's exit costs more than a store's.
    public var loadExtra: Double
    /// vCPU: queueing a request.
    public var queue: Double
    /// Whoever wakes: waking a thread that sleeps.
    public var wake: Double
    /// Emulation: starting to run, the call that gets the first requests, and going to sleep after them.
    public var run: Double
    /// Emulation: one more call while requests are there.
    public var call: Double
    /// Emulation: a request and its reply.
    public var serve: Double
    /// vCPU: going to sleep and starting again on a CPU of its own.
    public var sleep: Double
    /// How many stores may be pending.
    public var queueDepth: Int
}

extension AccessCosts {
    /// Why the parts cannot be told apart.
    public enum Failure: Error, Hashable, CustomStringConvertible {
        /// A row that it takes is not there.
        case missing(BenchmarkRow.Key)
        /// A part would cost less than nothing, or an exit nothing.
        case contradictory(part: String)

        /// What was tried, what came back, and what to do.
        public var description: String {
            let found =
                switch self {
                case .missing(let key): "there is no row \(key)"
                case .contradictory(let part): "the rows contradict each other, \(part) would cost nothing or less"
                }
            return
                "cannot work out the parts of an access: \(found); make bench with all paths and both settings of wake-up "
                + "preemption measures what it takes"
        }
    }

    /// Works the parts out.
    ///
    /// - Throws: `Failure`.
    public init(_ run: BenchmarkRun) throws(Failure) {
        func row(_ path: String, _ operation: String, preemption: Bool = true) throws(Failure) -> BenchmarkRow {
            var load = BenchmarkRow.Load(operation)
            load.wakeupPreemption = preemption
            let key = BenchmarkRow.Key(path, load)
            guard let row = run.rows.first(where: { $0.key == key }) else { throw .missing(key) }
            return row
        }
        let depth = run.machine.module["queue_depth"].flatMap(Int.init) ?? 256
        queueDepth = min(max(depth, 1), 4096)
        let alone = try row("fd-exchange", "store").value
        let together = try row("fd-exchange", "store", preemption: false).value
        loadExtra = try row("exit", "load").value - row("exit", "store").value
        call = try row("fd-readwrite", "load").value - row("fd-exchange", "load").value
        exit = try row("ioeventfd", "store").value
        // Without preemption a load's vCPU sleeps, which it does not with.
        wake = try row("fd-exchange", "load", preemption: false).value - alone - loadExtra
        // A store alone is an access and a run; without preemption the queue fills up before each run.
        let calls = Double((queueDepth - 1) / Self.batch)
        let share = 1 / Double(queueDepth)
        let access = (together - share * (alone + wake + calls * call)) / (1 - share)
        self.run = alone - access - wake
        // Of what is beyond the floor of an exit, what is not queueing is serving; halves where there are no stages.
        let rest = max(0, access - exit)
        let stage = try row("fd-exchange", "store").stages?.first { $0.stage == "queue" }
        queue = min(rest, max(0, stage?.value ?? rest / 2))
        serve = rest - queue
        sleep = self.run / 2
        guard exit > 0 else { throw .contradictory(part: "an exit") }
        for (part, cost) in [
            ("a load's exit", loadExtra), ("a call", call), ("a wake-up", wake), ("a process's run", self.run),
        ] where cost < 0 { throw .contradictory(part: part) }
    }

    /// Requests that the emulation process takes at once, at most.
    static let batch = 64
}
