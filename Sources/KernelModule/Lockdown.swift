// SPDX-License-Identifier: Apache-2.0
//
// How far the kernel is closed to root (kernel_lockdown(7)).

/// A lockdown mode.
public enum Lockdown: String, Sendable, Hashable, CaseIterable {
    /// Root may do everything.
    case none
    /// Root may not change the running kernel: unsigned modules are refused.
    case integrity
    /// Nor read its memory: kprobes are refused as well.
    case confidentiality

    /// Reads /sys/kernel/security/lockdown, which marks the mode in use: `[none] integrity confidentiality`.
    ///
    /// - Returns: nil if the kernel has no lockdown, or securityfs is not mounted.
    public init?(of tree: SystemTree = .running) {
        guard let text = try? tree.text("sys/kernel/security/lockdown"),
            let marked = text.split(separator: " ").first(where: { $0.hasPrefix("[") && $0.hasSuffix("]") })
        else { return nil }
        self.init(rawValue: String(marked.dropFirst().dropLast()))
    }
}
