// SPDX-License-Identifier: Apache-2.0
//
// What to boot and how.

public import SystemPackage

/// Everything that a boot of the lab depends on.
public struct LabConfiguration: Sendable {
    /// The kernel to boot.
    public var kernel: LabKernel
    /// How many CPUs the VM has, 1 or more.
    public var cpus: Int
    /// How much memory the VM has, as QEMU writes it: `2G`, `512M`.
    public var memory: String
    /// Who executes the VM's instructions.
    public var accelerator: Accelerator
    /// How long the command may run, in seconds, from its start.
    public var timeLimit: Int
    /// How long the boot may take, in seconds, until the command starts. Beyond it the boot counts as stalled.
    public var bootLimit: Int
    /// The directory that the command runs in: the checkout.
    public var directory: FilePath
    /// More parameters for the kernel's command line.
    public var kernelParameters: [String]
    /// More arguments for QEMU; the later one wins.
    public var qemuOptions: [String]

    /// What executes the VM's instructions.
    public enum Accelerator: Sendable {
        /// QEMU itself, as a CPU with SVM. Works anywhere.
        case emulation
        /// The host's /dev/kvm, which must allow nesting: faster, but the host's kernel takes part.
        case kvm
    }

    /// A configuration with the usual values: two emulated CPUs, 2 GiB, ten minutes.
    public init(kernel: LabKernel, directory: FilePath) {
        self.kernel = kernel
        self.directory = directory
        cpus = 2
        memory = "2G"
        accelerator = .emulation
        timeLimit = 600
        bootLimit = 180
        kernelParameters = []
        qemuOptions = []
    }
}
