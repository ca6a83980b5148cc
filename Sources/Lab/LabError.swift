// SPDX-License-Identifier: Apache-2.0
//
// Why the lab could not be used at all.

public import SystemPackage

/// What kept the lab from running; each says what to do about it.
public enum LabError: Error, Hashable, Sendable {
    /// The cache has no such kernel.
    case kernelMissing(String, cache: FilePath)
    /// There is no kernel image at that path.
    case imageMissing(FilePath)
    /// The cache has no virtme-ng.
    case virtmeMissing(FilePath)
    /// QEMU is not in PATH.
    case qemuMissing
    /// The host's /dev/kvm was asked for and cannot be opened.
    case kvmUnusable(Errno)
    /// The VM's own file systems hide that directory: it cannot be seen inside.
    case hidden(FilePath)
    /// virtme-ng puts its arguments into a kernel command line, where that path cannot go.
    case unspeakable(String)
    /// A system call failed.
    case systemCall(String, Errno)
}

extension LabError: CustomStringConvertible {
    /// What happened, and what to do.
    public var description: String {
        switch self {
        case .kernelMissing(let name, let cache) where LabKernel.debugKernels.contains(name):
            "no kernel \(name) in \(cache.string): run `scripts/build-debug-kernel \(name)`"
        case .kernelMissing(let series, _) where !LabKernel.debianSeries.contains(series):
            "no kernel \"\(series)\": give one of "
                + (LabKernel.debianSeries + LabKernel.debugKernels).joined(separator: ", ")
                + ", or the path of a vmlinuz"
        case .kernelMissing(let series, let cache):
            "no kernel \(series) in \(cache.string): run `make deps`, or `scripts/fetch-kernel \(series)`"
        case .imageMissing(let path):
            "no kernel image at \(path.string)"
        case .virtmeMissing(let path):
            "no virtme-ng at \(path.string): run `make deps`, or `scripts/fetch-virtme`"
        case .qemuMissing:
            "no qemu-system-x86_64 in PATH: run `make deps`, or install qemu-system-x86"
        case .kvmUnusable(let error):
            "cannot open /dev/kvm (\(error)): leave --kvm off, or see that you may open it (group kvm)"
        case .hidden(let path):
            "\(path.string) cannot be seen inside the VM, which has a file system of its own there: "
                + "move it elsewhere (the cache follows MMIOFD_CACHE)"
        case .unspeakable(let text):
            "\"\(text)\" cannot be passed to the VM: it has a blank, a quote or a comma in it"
        case .systemCall(let call, let error):
            "\(call): \(error)"
        }
    }
}
