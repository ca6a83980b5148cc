// SPDX-License-Identifier: Apache-2.0
//
// Which kernel the lab boots.

public import SystemPackage

/// A kernel to boot: one by name from the cache, or an image of one's own.
public enum LabKernel: Hashable, Sendable {
    /// A Debian series that `scripts/fetch-kernel` knows, `6.1` or `6.12`, or a kernel with checkers that
    /// `scripts/build-debug-kernel` does: `kasan` or `kcsan`.
    case series(String)
    /// A bzImage or vmlinuz. Modules are looked for in `../lib/modules` beside its directory.
    case image(FilePath)

    /// The series that `scripts/fetch-kernel` knows.
    public static let debianSeries = ["6.1", "6.12"]

    /// The kernels with checkers that `scripts/build-debug-kernel` knows.
    public static let debugKernels = ["kasan", "kcsan"]

    /// Takes a name as one would type it: a path if it has a slash in it, otherwise a series.
    public init(_ name: String) {
        self = name.contains("/") ? .image(FilePath(name)) : .series(name)
    }

    /// What its checkers need on the kernel's command line.
    var parameters: [String] {
        guard case .series(let name) = self, Self.debugKernels.contains(name) else { return [] }
        // Under emulation and checkers an idle work queue, CPU or grace period may look stuck for long.
        let patience = ["workqueue.watchdog_thresh=120", "watchdog_thresh=60", "rcupdate.rcu_cpu_stall_timeout=120"]
        // KASAN asks the CPU's features how many levels page tables have, which identify_cpu() clears for a moment: what an
        // interrupt touches then is "wild" where the answer would be 5.
        return (name == "kasan" ? ["kasan_multi_shot", "no5lvl"] : []) + patience
    }

    /// A short name, for messages and file names.
    public var name: String {
        switch self {
        case .series(let series): series
        case .image(let path): path.lastComponent?.string ?? "kernel"
        }
    }
}
