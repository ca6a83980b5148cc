// SPDX-License-Identifier: Apache-2.0
//
// Whether the scheduler lets a thread that is woken interrupt the one that woke it.

import CBenchmark
import SystemPackage

/// The scheduler's feature WAKEUP_PREEMPTION, in debugfs; put back at the end.
struct WakeupPreemption: ~Copyable {
    private static let path = "/sys/kernel/debug/sched/features"
    private static let file = KernelFile(path)
    private let original: Bool?

    init() {
        original = Self.isOn
        guard let original else { return }
        unsafe cbench_write_at_signal(Self.path, original ? "WAKEUP_PREEMPTION" : "NO_WAKEUP_PREEMPTION")
    }

    /// Whether it is on; nil where this cannot be told.
    static var isOn: Bool? {
        guard let features = file.text()?.split(separator: " ") else { return nil }
        if features.contains("WAKEUP_PREEMPTION") { return true }
        return features.contains("NO_WAKEUP_PREEMPTION") ? false : nil
    }

    /// Whether it can be changed.
    var isKnown: Bool { original != nil }

    /// Switches it.
    ///
    /// - Throws: errno of the write: EACCES for users other than root.
    func set(_ on: Bool) throws(Errno) {
        guard let original else { return }
        if on != Self.isOn ?? original { try Self.file.write(on ? "WAKEUP_PREEMPTION" : "NO_WAKEUP_PREEMPTION") }
    }

    deinit {
        if let original { try? set(original) }
    }
}
