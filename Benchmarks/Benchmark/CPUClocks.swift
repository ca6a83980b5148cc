// SPDX-License-Identifier: Apache-2.0
//
// CPU time of the two processes.

import CBenchmark
import Glibc

/// What the two processes have used of the CPUs so far, in nanoseconds.
struct CPUClocks {
    private var vmm: UInt64 = 0
    private var emulation: UInt64 = 0
    private var kernel: UInt64 = 0

    init() {}

    /// Reads the clocks of this process and the emulation process.
    init(and process: pid_t?) {
        vmm = cbench_cpu_time(0)
        kernel = cbench_kernel_time()
        if let process {
            emulation = cbench_cpu_time(process)
            kernel += Self.kernelTime(of: process)
        }
    }

    /// Another process's time in the kernel, which is told in hundredths of a second.
    private static func kernelTime(of process: pid_t) -> UInt64 {
        let text = KernelFile("/proc/\(process)/stat").text() ?? ""
        // The name, in parentheses, may have anything in it; stime is the 13th field after it.
        let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
        return fields.count > 13 ? (UInt64(fields[13]) ?? 0) * 10_000_000 : 0
    }

    static func - (end: CPUClocks, start: CPUClocks) -> CPUClocks {
        var difference = CPUClocks()
        difference.vmm = end.vmm - start.vmm
        difference.emulation = end.emulation - start.emulation
        difference.kernel = end.kernel - start.kernel
        return difference
    }

    static func += (sum: inout CPUClocks, more: CPUClocks) {
        sum.vmm += more.vmm
        sum.emulation += more.emulation
        sum.kernel += more.kernel
    }

    /// - Parameter hasKernel: whether it ran for long enough for the kernel's sampling.
    func perAccess(_ accesses: Double, hasKernel: Bool) -> Row.CPUTime {
        Row.CPUTime(
            vmm: Double(vmm) / accesses, emulation: Double(emulation) / accesses,
            kernel: hasKernel ? Double(kernel) / accesses : nil)
    }
}
