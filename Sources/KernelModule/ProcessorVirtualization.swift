// SPDX-License-Identifier: Apache-2.0
//
// Which hardware virtualisation the CPU offers.

/// An x86 CPU's virtualisation extension.
public enum ProcessorVirtualization: String, Sendable, Hashable, CaseIterable {
    /// AMD's, the CPU flag `svm`.
    case amd = "AMD SVM"
    /// Intel's, the CPU flag `vmx`.
    case intel = "Intel VT-x"

    /// Reads /proc/cpuinfo.
    ///
    /// - Returns: nil if the first CPU has neither flag. A flag does not mean that the firmware left it enabled.
    public init?(of tree: SystemTree = .running) {
        guard let text = try? tree.text("proc/cpuinfo"),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("flags") })
        else { return nil }
        let flags = line.split { $0 == " " || $0 == "\t" }
        if flags.contains("svm") {
            self = .amd
        } else if flags.contains("vmx") {
            self = .intel
        } else {
            return nil
        }
    }

    /// The module that drives it.
    public var moduleName: String {
        switch self {
        case .amd: "kvm_amd"
        case .intel: "kvm_intel"
        }
    }
}
