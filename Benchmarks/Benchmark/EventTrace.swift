// SPDX-License-Identifier: Apache-2.0
//
// Tracepoints by the TSC: what happened when, on whose thread.

import CBenchmark
import Glibc
import SystemPackage

/// An instance of ftrace whose clock is the TSC, removed with this object.
final class EventTrace {
    /// An event of one of the threads that were asked for.
    struct Event: Equatable {
        /// The thread on which it happened.
        var thread: Int
        /// TSC.
        var time: UInt64
        /// Its name: "kvm_exit".
        var name: String
        /// What follows the name.
        var fields: String
    }

    private let path: String

    /// Makes the instance; nothing is traced yet.
    ///
    /// - Throws: ``MeasuringFailure`` where there is no tracefs, or no right to use it.
    init() throws {
        let path = "/sys/kernel/tracing/instances/mmiofd-bench"
        // Else every event would have switches record names, which counts as that event's cost.
        let names = KernelFile("/sys/kernel/tracing/options/record-cmd")
        try? names.write("0")
        defer { try? names.write("1") }
        // One of a run that was killed.
        _ = unsafe rmdir(path)
        guard unsafe mkdir(path, 0o700) == 0 else {
            throw MeasuringFailure("mkdir \(path): \(Errno(rawValue: errno)); is tracefs mounted, and are you root?")
        }
        self.path = path
        unsafe cbench_remove_at_signal(path)
        try KernelFile("\(path)/trace_clock").write("x86-tsc")
        try KernelFile("\(path)/buffer_size_kb").write("8192")
    }

    deinit { _ = unsafe rmdir(path) }

    /// Traces these tracepoints, such as "kvm/kvm_exit", while `body` runs.
    func trace(_ tracepoints: [String], _ body: () throws -> Void) throws -> [Event] {
        try KernelFile("\(path)/trace").empty()
        for tracepoint in tracepoints { try enable(tracepoint, true) }
        defer { for tracepoint in tracepoints { try? enable(tracepoint, false) } }
        try body()
        for tracepoint in tracepoints { try enable(tracepoint, false) }
        return (KernelFile("\(path)/trace").text() ?? "").split(separator: "\n").compactMap { Event($0) }
    }

    private func enable(_ tracepoint: String, _ on: Bool) throws(Errno) {
        try KernelFile("\(path)/events/\(tracepoint)/enable").write(on ? "1" : "0")
    }
}

extension EventTrace.Event {
    /// Reads a line of ftrace's: "  vmm-67  [000] d..1. 123456: kvm_exit: reason npf …"; nil for any other.
    init?(_ line: Substring) {
        guard !line.hasPrefix("#"), let bracket = line.firstIndex(of: "[") else { return nil }
        let task = line[..<bracket].split(separator: " ").joined(separator: " ")
        guard let dash = task.lastIndex(of: "-"), let thread = Int(task[task.index(after: dash)...]) else { return nil }
        // CPU, flags, time, name, fields.
        let words = line[bracket...].split(separator: " ", maxSplits: 4, omittingEmptySubsequences: true)
        guard words.count >= 4, let time = UInt64(words[2].dropLast()), words[3].hasSuffix(":") else { return nil }
        (self.thread, self.time, name) = (thread, time, String(words[3].dropLast()))
        fields = words.count > 4 ? String(words[4]) : ""
    }
}
