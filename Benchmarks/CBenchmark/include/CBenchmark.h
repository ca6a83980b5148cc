// SPDX-License-Identifier: Apache-2.0
//
// The measured loops of the load generator: of each path, what the VMM does about a vCPU's exits, and what the emulation
// process does about the accesses. In C, so that nothing but the path is measured.
#ifndef CBENCHMARK_H
#define CBENCHMARK_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// How an access comes to its device.
enum cbench_path {
	/// To the VMM, which emulates the device itself.
	CBENCH_EXIT,
	/// To the VMM, which sends a message over a stream socket; only loads are waited for.
	CBENCH_SOCKET_POSTED,
	/// To the VMM, which sends a message over a SEQPACKET socket and waits for the reply.
	CBENCH_SOCKET,
	/// The same over a stream socket.
	CBENCH_SOCKET_STREAM,
	/// The same over two pipes.
	CBENCH_PIPES,
	/// To the VMM, which puts it into shared memory and wakes the other side with a futex, if that sleeps.
	CBENCH_SHM_FUTEX,
	/// The same, but both sides spin.
	CBENCH_SHM_SPIN,
	/// The kernel signals an eventfd, for which nobody waits.
	CBENCH_IOEVENTFD,
	/// The kernel signals an eventfd, which the emulation process reads.
	CBENCH_IOEVENTFD_WAITER,
	/// The kernel collects stores in a ring, which the VMM drains when it is full and at a fence.
	CBENCH_COALESCED,
	/// Through the emulation descriptor: read, write.
	CBENCH_FD_READWRITE,
	/// Through the emulation descriptor: KVM_DEV_USER_EXCHANGE.
	CBENCH_FD_EXCHANGE,
	/// From the shadow image; whatever it does not answer goes as by CBENCH_FD_EXCHANGE.
	CBENCH_FD_SHADOW,
};

#define CBENCH_REGISTERS_SIZE	64

/// The device on every path: a load returns what the last store to the register set.
struct cbench_device {
	/* An access at the last one may be 8 bytes long. */
	uint8_t registers[CBENCH_REGISTERS_SIZE + 8];
	uint64_t loads, stores;
};

/// An access on its way from the VMM to the emulation process.
struct cbench_message {
	uint64_t offset, data;
	uint32_t length, is_store;
};

/// What a row's two processes share: the device's state, by which the VMM checks what was done, and a cache line that only
/// the VMM writes and one that only the emulation process writes, for the paths that go through memory.
struct cbench_shared {
	struct cbench_device device;
	/// How often the emulation process got accesses, how many in all, and what failed in it.
	uint64_t batches, requests;
	int32_t error;
	/// Threads that have not begun yet.
	uint32_t barrier;
	uint8_t padding[16];

	/// Counts the requests.
	uint32_t request;
	uint32_t vmm_sleeps;
	struct cbench_message message;
	uint8_t vmm_padding[32];

	/// Counts the replies, or signals of the eventfd.
	uint32_t reply;
	uint32_t emulation_sleeps;
	uint64_t reply_data;
};

_Static_assert(offsetof(struct cbench_shared, request) == 128, "the VMM's cache line");
_Static_assert(offsetof(struct cbench_shared, reply) == 192, "the emulation process's cache line");

/// The ends of what connects the two processes; -1 where there is none.
struct cbench_channel {
	int vmm_in, vmm_out, emulation_in, emulation_out;
};

/// Makes what a path needs. -errno, or 0.
int cbench_make_channel(enum cbench_path path, struct cbench_channel *_Nonnull channel);

/// Closes one side's ends.
void cbench_close_ends(int in, int out);

/// What the emulation process needs. It receives so many emulation descriptors over `in` and then
/// serves the last one.
struct cbench_emulation {
	enum cbench_path path;
	struct cbench_shared *_Nonnull shared;
	int in, out, descriptors;
	/// The other side's ends, which are closed on this one.
	int vmm_in, vmm_out;
	/// Whether a side that spins gives up its CPU each time.
	int yields;
	/// Where it runs, or -1.
	int cpu;
};

/// Forks the emulation process, which serves until it is killed, or this one is gone. -errno, or its id.
pid_t cbench_start_emulation(const struct cbench_emulation *_Nonnull emulation);

/// Ends it and waits for that.
void cbench_end_emulation(pid_t process);

/// A vCPU and what the VMM needs for its exits.
struct cbench_vcpu {
	enum cbench_path path;
	int descriptor;
	struct kvm_run *_Nonnull run;
	struct cbench_shared *_Nonnull shared;
	/// The device's first address and port.
	uint64_t base;
	int in, out;
	int yields;
	/// Where its thread runs, or -1.
	int cpu;
	/// How many stores come before each fence.
	uint32_t stores;
	/// TSC before the vCPU was run first, and when its program had ended.
	uint64_t start, end;
};

/// Runs a vCPU until its program ends. -errno, or 0.
int cbench_run(struct cbench_vcpu *_Nonnull vcpu);

/// A counter of a tracepoint in one process (0: this one) and in threads that it starts after this. -errno, or its
/// descriptor.
int cbench_open_counter(uint64_t tracepoint, pid_t process);
int cbench_start_counter(int descriptor);
int cbench_stop_counter(int descriptor);
/// All that it has counted; PERF_EVENT_IOC_RESET would leave what threads counted that have ended.
int cbench_read_counter(int descriptor, uint64_t *_Nonnull value);

/// Frequency of a vCPU's TSC in kHz; -errno where KVM does not say.
int cbench_tsc_khz(int vcpu);

/// CPU time of a process (0: this one), in nanoseconds; the clock of that process must exist.
uint64_t cbench_cpu_time(pid_t process);

/// This process's time in the kernel, in nanoseconds.
uint64_t cbench_kernel_time(void);

/// What is to be done if SIGINT, SIGTERM or SIGHUP ends this process: write a text into a file; remove a directory of
/// tracefs, which need not exist. One of each.
void cbench_write_at_signal(const char *_Nonnull path, const char *_Nonnull text);
void cbench_remove_at_signal(const char *_Nonnull directory);

/// Binds the calling thread to a CPU. -errno, or 0.
int cbench_pin(int cpu);

#endif
