// SPDX-License-Identifier: Apache-2.0
//
// What the kernel counts of the two processes.

import CBenchmark
import Glibc
import LinuxSystem
import SystemPackage

/// Counters of tracepoints in this process, with the threads that it starts, and in the emulation process.
final class EventCounters {
    /// What is counted.
    enum Event: String, CaseIterable {
        case contextSwitches = "sched/sched_switch"
        case systemCalls = "raw_syscalls/sys_enter"
        case wakeups = "sched/sched_wakeup"
    }

    private var descriptors: [Event: [CInt]] = [:]

    /// Opens them, stopped.
    ///
    /// - Throws: ``MeasuringFailure`` that says what is missing.
    init(and emulation: pid_t?) throws {
        for event in Event.allCases {
            guard let id = Self.identifier(event) else {
                throw MeasuringFailure(
                    "no tracepoint \(event.rawValue) below /sys/kernel/tracing: is it mounted, readable?")
            }
            for process in [0] + (emulation.map { [$0] } ?? []) {
                let descriptor = cbench_open_counter(id, process)
                guard descriptor >= 0 else {
                    throw MeasuringFailure("perf_event_open of \(event.rawValue): \(Errno(rawValue: -descriptor))")
                }
                descriptors[event, default: []].append(descriptor)
            }
        }
    }

    deinit { close() }

    /// Ends the counting.
    func close() {
        for descriptor in descriptors.values.joined() { cbench_close_ends(descriptor, -1) }
        descriptors = [:]
    }

    /// Waits until switches cost what they did: for a second after the last counter the kernel still has them look for
    /// some.
    static func settle() {
        usleep(1_200_000)
    }

    private static func identifier(_ event: Event) -> UInt64? {
        for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            if let text = KernelFile("\(root)/events/\(event.rawValue)/id").text(), let id = UInt64(text) { return id }
        }
        return nil
    }

    /// What happens while `body` runs.
    func count(_ body: () throws -> Void) throws -> [Event: Double] {
        let before = try values()
        for descriptor in descriptors.values.joined() { try check(cbench_start_counter(descriptor)) }
        try body()
        // What a thread has counted is added after its end, which may be after it was joined.
        usleep(20_000)
        for descriptor in descriptors.values.joined() { try check(cbench_stop_counter(descriptor)) }
        return try values().merging(before, uniquingKeysWith: -)
    }

    private func values() throws -> [Event: Double] {
        try descriptors.mapValues { descriptors in
            try descriptors.reduce(0) { sum, descriptor in
                var value: UInt64 = 0
                try check(unsafe cbench_read_counter(descriptor, &value))
                return sum + Double(value)
            }
        }
    }

    private func check(_ result: CInt) throws {
        guard result == 0 else { throw MeasuringFailure("a perf counter: \(Errno(rawValue: -result))") }
    }
}
