// SPDX-License-Identifier: Apache-2.0
//
// The command line that boots the VM.

import SystemPackage

/// Arguments for virtme-ng's `virtme-run`: the host's root file system read-only, a tmpfs over what must be writable.
struct BootCommand {
    let configuration: LabConfiguration
    /// The kernel, without symbolic links.
    let image: FilePath

    /// Directories that the VM covers with file systems of its own, before anything of ours runs.
    static let hiddenDirectories: [FilePath] = [
        "/dev", "/proc", "/run", "/sys", "/var/cache", "/var/lib/apt", "/var/lib/private", "/var/log", "/var/tmp",
    ]

    /// Directories that can be written to in the VM; what is written is gone with it.
    static let overlays = ["/etc", "/lib", "/home", "/opt", "/srv", "/usr", "/var", "/tmp"]

    /// Parameters of every boot: die of an oops, keep every line, believe that the timer ticks even if a busy host is slow
    /// to show it, and leave out hardware that the lab has no use for and whose drivers cost half of the boot under
    /// emulation.
    static let kernelParameters = [
        "oops=panic", "panic=-1", "printk.devkmsg=on", "ignore_loglevel", "no_timer_check",
        "modprobe.blacklist=ahci,libata,sr_mod,cdrom,sg,psmouse,iTCO_wdt,i6300esb,i2c_i801,lpc_ich,pcspkr,evdev,"
            + "aesni_intel,sha512_ssse3,sha256_ssse3,sha1_ssse3,ghash_clmulni_intel,crc32_pclmul,crct10dif_pclmul,"
            + "powernow_k8,acpi_cpufreq,qemu_fw_cfg,serio_raw,button",
    ]

    /// Whether the VM would not see what is at `path` on the host.
    static func hides(_ path: FilePath) -> Bool {
        hiddenDirectories.contains { path.starts(with: $0) }
    }

    /// The arguments for a command whose output comes through the VM's serial ports.
    ///
    /// - Parameters:
    ///   - script: what the VM runs.
    ///   - standardError: a FIFO that the script's standard error goes to.
    func arguments(running script: FilePath, standardError: FilePath) -> [String] {
        common
            + ["--verbose", "--show-boot-console", "--script-sh", "exec bash \(script.string)"]
            + qemu([
                "-chardev", "file,id=\(Self.errorPort),path=\(standardError.string)", "-device", "virtio-serial-pci",
                "-device", "virtserialport,name=\(Self.errorPort),chardev=\(Self.errorPort)",
            ])
    }

    /// The arguments for a terminal in the VM.
    ///
    /// - Parameter shell: a script to run in the place of the login shell.
    func arguments(shell: FilePath) -> [String] {
        common + ["--user", "root", "--shell", shell.string] + qemu([])
    }

    /// The virtio port that carries the command's standard error.
    static let errorPort = "mmiofd.stderr"

    private var common: [String] {
        var arguments = ["--name", "lab", "--kimg", image.string, "--mods", "auto", "--disable-microvm", "--force-9p"]
        // Kernels that have 9p built in would else look for init before the host's root is whole.
        arguments.append("--force-initramfs")
        arguments += ["--cwd", configuration.directory.string]
        arguments += Self.overlays.flatMap { ["--overlay-rwdir", $0] }
        if Self.hides(configuration.directory) { arguments += ["--rodir", configuration.directory.string] }
        arguments += ["--cpus", String(configuration.cpus), "--memory", configuration.memory]
        if configuration.accelerator == .emulation { arguments.append("--disable-kvm") }
        let parameters = Self.kernelParameters + configuration.kernel.parameters + configuration.kernelParameters
        arguments += parameters.flatMap { ["--kopt", $0] }
        return arguments
    }

    /// QEMU's own arguments, which must come last.
    private func qemu(_ options: [String]) -> [String] {
        let isEmulated = configuration.accelerator == .emulation
        // One thread for all emulated CPUs: with one each, QEMU 7.2 has let kernels spin in code that had been patched,
        // and corrupted a stack, while several vCPUs ran. The first -accel counts, so a caller's own goes before.
        let accelerator = isEmulated ? ["-accel", "tcg,thread=single"] : []
        return ["--qemu-opts", "-cpu", isEmulated ? "max" : "host"] + options + configuration.qemuOptions + accelerator
    }
}
