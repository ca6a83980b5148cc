// SPDX-License-Identifier: Apache-2.0
//
// What runs first inside the VM.

import SystemPackage

/// The script that prepares the VM and runs the command in it, and what it says on the console about that.
struct GuestScript {
    /// The checkout.
    let directory: FilePath
    /// The caller's PATH: the Swift toolchain and whatever else lies outside the usual places.
    let path: String

    /// The line that says that the command starts.
    static let startMark = "mmiofd-lab: the command starts"
    /// The line that says how the command ended, before the status.
    static let endMark = "mmiofd-lab: the command ended with status "

    /// The script for one command.
    ///
    /// - Parameter command: the program and its arguments; no shell takes them apart.
    func running(_ command: [String]) -> String {
        let port = "/dev/virtio-ports/\(BootCommand.errorPort)"
        return """
            #!/bin/bash
            exec 2>\(port)
            # One process at a time may open such a port, and the console log is for the kernel alone.
            ln -sf virtio-ports/virtme.dev_stdout /dev/stderr
            \(preparation)
            echo '\(Self.startMark)' >/dev/kmsg
            \(command.map(Self.quote).joined(separator: " ")) </dev/null
            status=$?
            echo "\(Self.endMark)$status" >/dev/kmsg
            exit $status

            """
    }

    /// The script for a terminal.
    var shell: String {
        """
        #!/bin/bash
        \(preparation)
        exec bash -i

        """
    }

    private var preparation: String {
        """
        export PATH=\(Self.quote(path)):/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        export LANG=C.UTF-8
        modprobe -q kvm-amd || modprobe -q kvm-intel
        \(Self.lastingMachine)
        cd \(Self.quote(directory.string)) || exit 125
        """
    }

    /// One virtual machine with one vCPU for as long as the lab lasts. KVM's first and last one patch the running
    /// kernel (`preempt_notifier_key`, `kvm_has_noapic_vcpu`), and under QEMU 7.2's TCG CPUs have been seen to spin for
    /// ever at the patched place, in `finish_task_switch`, as if in a stale translation.
    private static let lastingMachine = """
        python3 -c 'import fcntl, os, signal
        machine = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xae01, 0)
        fcntl.ioctl(machine, 0xae41, 0)
        signal.pause()' </dev/null >/dev/null 2>&1 &
        """

    /// The text as one word of a shell command.
    static func quote(_ text: String) -> String {
        "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#) + "'"
    }
}
