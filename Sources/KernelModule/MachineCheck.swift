// SPDX-License-Identifier: Apache-2.0
//
// One line of what a machine has or lacks.

/// A thing looked at on a machine, and what was found.
public struct MachineCheck: Sendable, Hashable {
    /// What a finding means.
    public enum Verdict: String, Sendable, Hashable, CaseIterable {
        /// As it should be.
        case ok
        /// Worth knowing; it does not keep guests from running through the module now.
        case note
        /// Guests cannot run through the module until this is there.
        case missing
    }

    /// What was looked at, in a few words.
    public let name: String
    /// What it means.
    public let verdict: Verdict
    /// What was found.
    public let detail: String
    /// What to do about it; empty if nothing.
    public let remedy: String

    static func ok(_ name: String, _ detail: String) -> MachineCheck {
        MachineCheck(name: name, verdict: .ok, detail: detail, remedy: "")
    }

    static func note(_ name: String, _ detail: String, _ remedy: String = "") -> MachineCheck {
        MachineCheck(name: name, verdict: .note, detail: detail, remedy: remedy)
    }

    static func missing(_ name: String, _ detail: String, _ remedy: String) -> MachineCheck {
        MachineCheck(name: name, verdict: .missing, detail: detail, remedy: remedy)
    }
}
