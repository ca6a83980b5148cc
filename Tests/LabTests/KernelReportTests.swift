// SPDX-License-Identifier: Apache-2.0
//
// What counts as a kernel's report, and what does not.

import Testing

@testable import Lab

@Suite("Kernel reports")
struct KernelReportTests {
    @Test(
        "Each kind of report is found by its first line",
        arguments: [
            ("BUG: KASAN: slab-use-after-free in kvm_user_read+0x1f2/0x3a0 [kvm_user]", .kasan),
            ("BUG: KASAN: slab-out-of-bounds in queue_push+0x55/0x90", .kasan),
            ("BUG: KFENCE: use-after-free read in test_free+0x3c/0x60", .kasan),
            ("BUG: KCSAN: data-race in kvm_user_write / kvm_user_read", .kcsan),
            ("UBSAN: array-index-out-of-bounds in drivers/a.c:12:3", .ubsan),
            ("UBSAN: shift-out-of-bounds in ./include/linux/log2.h:57:13", .ubsan),
            ("unreferenced object 0xffff888004f2e000 (size 256):", .kmemleak),
            ("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", .kmemleak),
            ("kmemleak: Kernel memory leak detector disabled", .kmemleak),
            ("BUG: MAX_LOCKDEP_CHAINS too low!", .lockdep),
            ("turning off the locking correctness validator.", .lockdep),
            ("WARNING: possible circular locking dependency detected", .lockdep),
            ("WARNING: possible recursive locking detected", .lockdep),
            ("WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", .lockdep),
            ("WARNING: inconsistent lock state", .lockdep),
            ("[ BUG: Invalid wait context ]", .lockdep),
            ("WARNING: bad unlock balance detected!", .lockdep),
            ("INFO: trying to register non-static key.", .lockdep),
            ("WARNING: lock held when returning to user space!", .lockdep),
            ("WARNING: suspicious RCU usage", .rcu),
            ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", .rcu),
            ("rcu: INFO: rcu_sched self-detected stall on CPU", .rcu),
            ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 22 jiffies s: 77", .rcu),
            ("BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580", .atomicSleep),
            ("BUG: scheduling while atomic: insmod/214/0x00000002", .atomicSleep),
            ("refcount_t: underflow; use-after-free.", .referenceCount),
            ("refcount_t: addition on 0; use-after-free.", .referenceCount),
            ("ODEBUG: free active (active state 0) object type: timer_list hint: x+0x0/0x10", .debugObjects),
            ("INFO: task mmiofd:412 blocked for more than 120 seconds.", .hungTask),
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [mmiofd:412]", .lockup),
            ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 0", .lockup),
            ("BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!", .lockup),
            ("Oops: 0000 [#1] PREEMPT SMP NOPTI", .oops),
            ("Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]", .oops),
            ("general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1]", .oops),
            ("kernel BUG at mm/slub.c:4409!", .oops),
            ("invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", .oops),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000008", .bug),
            ("BUG: unable to handle page fault for address: ffffc90000a3d000", .bug),
            ("BUG kmalloc-64 (Tainted: G           O      ): Redzone overwritten", .bug),
            ("list_del corruption. prev->next should be ffff8880, but was dead0000", .bug),
            ("WARNING: CPU: 1 PID: 214 at virt/kvm/kvm_main.c:1234 kvm_destroy_vm+0x1b2/0x2d0 [kvm]", .warning),
            ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b", .panic),
        ] as [(String, KernelReport.Kind)])
    func found(line: String, kind: KernelReport.Kind) {
        for stamped in [line, "[   21.504817] \(line)\r", "[   21.504817][  T214] \(line)"] {
            let reports = KernelReport.scan(["[   21.4] before", stamped, "[   21.6] after"])
            #expect(reports.map(\.kind) == [kind], "\(stamped)")
            #expect(reports.first?.lineNumber == 2)
            #expect(reports.first?.excerpt.first == line)
        }
    }

    @Test(
        "What an ordinary boot says is no report",
        arguments: [
            "Linux version 6.1.0-56-amd64 (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0) #1 SMP PREEMPT_DYNAMIC",
            "Kernel command line: console=ttyS0 oops=panic panic=-1 init=/usr/bin/init",
            "NX (Execute Disable) protection: active",
            "rcu: Preemptible hierarchical RCU implementation.",
            "rcu: \tRCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=2.",
            "rcu: Hierarchical SRCU implementation.",
            "RCU Tasks: Setting shift to 1 and lim to 1 rcu_task_cb_adjust=1 rcu_task_cpu_ids=2.",
            "DMA: preallocated 128 KiB GFP_KERNEL pool for atomic allocations",
            "PCI: Using host bridge windows from ACPI; if necessary, use \"pci=nocrs\" and report a bug",
            "AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.",
            "NMI watchdog: Perf NMI watchdog permanently disabled",
            "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
            "Running RCU self tests",
            "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)",
            "kasan: KernelAddressSanitizer initialized (generic)",
            "kcsan: enabled early",
            "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
            "kvm_user: loading out-of-tree module taints kernel.",
            "kvm_user: module verification failed: signature and/or required key missing - tainting kernel",
            "random: crng init done", "Key type encrypted registered", "reboot: Power down", "",
        ])
    func ordinary(line: String) {
        #expect(KernelReport.scan(["[    0.123456] \(line)\r", line]).isEmpty)
    }

    /// A data race as the kernel reports it, found in the timer's interrupt while a task does something else.
    private static func race(
        _ name: String = "tick_nohz_idle_got_tick / tick_sched_do_timer",
        reader: [String] = [" tick_nohz_idle_got_tick+0x27/0x50"], interrupted: String = " do_idle+0x87/0x230"
    ) -> [String] {
        let lines =
            [
                "BUG: KCSAN: data-race in \(name)", "",
                "write to 0xff1100013cc1ecac of 1 bytes by interrupt on cpu 0:", " tick_sched_do_timer+0xc4/0x140",
                " asm_sysvec_apic_timer_interrupt+0x1b/0x20", interrupted, "",
                "read to 0xff1100013cc1ecac of 1 bytes by task 212 on cpu 0:",
            ] + reader + [
                "", "1 lock held by mmiofd/212:",
                " #0: ff1100013c (&vcpu->mutex){+.+.}-{3:3}, at: kvm_vcpu_ioctl+0x1/0x2 [kvm]", "",
                "value changed: 0x01 -> 0x11", "", "Reported by Kernel Concurrency Sanitizer on:",
            ]
        return lines.map { "[   35.664432] \($0)" }
    }

    @Test("A data race of the kernel's own is no report, and hides none that follows")
    func foreignRace() {
        #expect(KernelReport.scan(Self.race()).isEmpty)
        #expect(KernelReport.scan(Self.race(interrupted: " svm_vcpu_run+0x1/0x2 [kvm_amd]")).isEmpty)
        #expect(KernelReport.scan(Self.race() + ["WARNING: suspicious RCU usage"]).map(\.kind) == [.rcu])
    }

    @Test(
        "A data race known as the kernel's own is no report, whoever called it; with any other function it is one",
        arguments: [("pollwake", "poll_schedule_timeout"), ("ktime_get_mono_fast_ns", "timekeeping_update")])
    func kernelsOwnRace(first: String, second: String) {
        let calledByUs = [" \(first)+0x1/0x2", " __wake_up+0x1/0x2", " kvm_user_wake_reader+0x1/0x2 [kvm_user]"]
        for name in ["\(first) / \(second)", "\(second) / \(first)"] {
            #expect(KernelReport.scan(Self.race(name, reader: calledByUs)).isEmpty)
        }
        for name in ["\(first) / kvm_user_load", "kvm_user_load / \(second)", first] {
            #expect(KernelReport.scan(Self.race(name, reader: calledByUs)).map(\.kind) == [.kcsan])
        }
    }

    @Test("A data race in KVM or its modules is one, also one in what they call, and one whose end is missing")
    func race() {
        let cases = [
            Self.race("kvm_user_load / kvm_user_store"),
            Self.race(reader: [" memcpy+0x1/0x2", " kvm_user_load+0x1/0x2 [kvm_user]"]),
            Self.race().dropLast(),
        ]
        for lines in cases { #expect(KernelReport.scan(Array(lines)).map(\.kind) == [.kcsan]) }
    }

    @Test("What follows a report belongs to it: one oops is one report")
    func grouped() {
        let lines = [
            "[    9.1] ordinary",
            "[   10.1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[   10.1] Oops: 0000 [#1] PREEMPT SMP NOPTI",
            "[   10.1] Call Trace:",
            "[   10.2] Kernel panic - not syncing: Fatal exception",
        ]
        let reports = KernelReport.scan(lines)
        #expect(reports.map(\.kind) == [.bug])
        #expect(reports.first?.excerpt.count == 4)
        #expect(reports.first?.excerpt.last == "Kernel panic - not syncing: Fatal exception")
    }

    @Test("A report far behind another is one of its own")
    func separate() {
        let gap = Array(repeating: "[   11.0] ordinary", count: KernelReport.length)
        let lines = ["WARNING: suspicious RCU usage"] + gap + ["BUG: KASAN: wild-access in f"]
        #expect(KernelReport.scan(lines).map(\.kind) == [.rcu, .kasan])
        #expect(KernelReport.scan(lines).map(\.lineNumber) == [1, KernelReport.length + 2])
    }

    @Test("A report quotes itself")
    func quoted() {
        let report = KernelReport.scan(["", "[ 1.0] BUG: KASAN: planted", "[ 1.1] Read of size 8"])
        #expect(report.first?.description == "KASAN, console line 2:\n    BUG: KASAN: planted\n    Read of size 8\n")
    }
}
