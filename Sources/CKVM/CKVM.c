// SPDX-License-Identifier: Apache-2.0
//
// KVM calls whose structures end in an array, and the signal that interrupts KVM_RUN.
#define _GNU_SOURCE
#include "CKVM.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int free_keeping_errno(void *memory, int result)
{
	int error = errno;

	free(memory);
	errno = error;
	return result;
}

static int get_cpuid(int descriptor, unsigned long command, struct kvm_cpuid_entry2 *entries, uint32_t *count)
{
	struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + *count * sizeof(*entries));

	if (!table)
		return -1;
	table->nent = *count;
	if (ioctl(descriptor, command, table))
		return free_keeping_errno(table, -1);
	// KVM never says more than there was room for; a copy beyond it would be ours to answer for.
	if (table->nent < *count)
		*count = table->nent;
	memcpy(entries, table->entries, *count * sizeof(*entries));
	return free_keeping_errno(table, 0);
}

int ckvm_supported_cpuid(int kvm, struct kvm_cpuid_entry2 *entries, uint32_t *count)
{
	return get_cpuid(kvm, KVM_GET_SUPPORTED_CPUID, entries, count);
}

int ckvm_get_cpuid(int vcpu, struct kvm_cpuid_entry2 *entries, uint32_t *count)
{
	return get_cpuid(vcpu, KVM_GET_CPUID2, entries, count);
}

int ckvm_set_cpuid(int vcpu, const struct kvm_cpuid_entry2 *entries, uint32_t count)
{
	struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + count * sizeof(*entries));

	if (!table)
		return -1;
	table->nent = count;
	if (count)
		memcpy(table->entries, entries, count * sizeof(*entries));
	return free_keeping_errno(table, ioctl(vcpu, KVM_SET_CPUID2, table));
}

// struct kvm_msrs with its array of one.
struct one_msr {
	__u32 nmsrs;
	__u32 pad;
	struct kvm_msr_entry entry;
};

_Static_assert(offsetof(struct one_msr, entry) == sizeof(struct kvm_msrs), "one_msr");

// The call's result is the number of registers that it did.
static int one_msr(int vcpu, unsigned long command, struct one_msr *msr)
{
	int done = ioctl(vcpu, command, msr);

	if (done == 1)
		return 0;
	if (done == 0)
		errno = EINVAL;
	return -1;
}

int ckvm_get_msr(int vcpu, uint32_t index, uint64_t *value)
{
	struct one_msr msr = { .nmsrs = 1, .entry.index = index };

	if (one_msr(vcpu, KVM_GET_MSRS, &msr))
		return -1;
	*value = msr.entry.data;
	return 0;
}

int ckvm_set_msr(int vcpu, uint32_t index, uint64_t value)
{
	struct one_msr msr = { .nmsrs = 1, .entry = { .index = index, .data = value } };

	return one_msr(vcpu, KVM_SET_MSRS, &msr);
}

int ckvm_irq_line(int vm, uint32_t gsi, uint32_t level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	return ioctl(vm, KVM_IRQ_LINE, &line);
}

int ckvm_register_coalesced(int vm, uint64_t address, uint32_t size)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = address, .size = size };

	return ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone);
}

int ckvm_unregister_coalesced(int vm, uint64_t address, uint32_t size)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = address, .size = size };

	return ioctl(vm, KVM_UNREGISTER_COALESCED_MMIO, &zone);
}

int ckvm_set_gsi_routing(int vm, const struct kvm_irq_routing_entry *entries, uint32_t count)
{
	struct kvm_irq_routing *table = calloc(1, sizeof(*table) + count * sizeof(*entries));

	if (!table)
		return -1;
	table->nr = count;
	if (count)
		memcpy(table->entries, entries, count * sizeof(*entries));
	return free_keeping_errno(table, ioctl(vm, KVM_SET_GSI_ROUTING, table));
}

struct kvm_irq_routing_entry ckvm_route_to_irqchip(uint32_t gsi, uint32_t irqchip, uint32_t pin)
{
	return (struct kvm_irq_routing_entry) {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = irqchip, .pin = pin },
	};
}

struct kvm_irq_routing_entry ckvm_route_to_msi(uint32_t gsi, uint64_t address, uint32_t data)
{
	return (struct kvm_irq_routing_entry) {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data },
	};
}

pid_t ckvm_thread_id(void)
{
	static __thread pid_t thread;

	if (!thread)
		thread = (pid_t)syscall(SYS_gettid);
	return thread;
}

int ckvm_kick_signal(void)
{
	return SIGRTMIN;
}

static void ignore(int signal)
{
	(void)signal;
}

int ckvm_install_kick_handler(void)
{
	// SA_RESTART spares other system calls that the signal hits; KVM_RUN ends with EINTR all the same.
	struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };

	sigemptyset(&action.sa_mask);
	return sigaction(ckvm_kick_signal(), &action, NULL);
}

void ckvm_unblock_kick_signal(void)
{
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, ckvm_kick_signal());
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
}

int ckvm_kick(pid_t thread)
{
	return (int)syscall(SYS_tgkill, getpid(), thread, ckvm_kick_signal());
}
