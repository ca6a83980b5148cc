// SPDX-License-Identifier: Apache-2.0
//
// The VMM: runs a vCPU until its program ends, and brings what exits to the device, on each path.
#define _GNU_SOURCE
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <x86intrin.h>

#include "internal.h"

/* KVM_COALESCED_MMIO_MAX wants it. */
#define PAGE_SIZE	4096

/* As guest.h has it. */
#define END_PORT	0xf4

typedef int (*bring_function)(struct cbench_vcpu *vcpu, struct cbench_message *message);

static always_inline int bring_to_device(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	message->data = device_access(&vcpu->shared->device, message->offset, message->length, message->is_store,
				      message->data);
	return 0;
}

static always_inline int bring_by_socket(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	if (send(vcpu->out, message, sizeof(*message), MSG_NOSIGNAL) != sizeof(*message))
		return -errno;
	if (recv(vcpu->in, &message->data, sizeof(message->data), 0) != sizeof(message->data))
		return -EPROTO;
	return 0;
}

static always_inline int post_by_socket(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	if (!message->is_store)
		return bring_by_socket(vcpu, message);
	if (send(vcpu->out, message, sizeof(*message), MSG_NOSIGNAL) != sizeof(*message))
		return -errno;
	return 0;
}

static always_inline int bring_by_pipes(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	if (write(vcpu->out, message, sizeof(*message)) != sizeof(*message))
		return -errno;
	if (read(vcpu->in, &message->data, sizeof(message->data)) != sizeof(message->data))
		return -EPROTO;
	return 0;
}

static always_inline int bring_by_memory(struct cbench_vcpu *vcpu, struct cbench_message *message, int spins)
{
	struct cbench_shared *shared = vcpu->shared;
	uint32_t done = shared->request;

	shared->message = *message;
	if (spins) {
		__atomic_store_n(&shared->request, done + 1, __ATOMIC_RELEASE);
		spin_while(&shared->reply, done, vcpu->yields);
	} else {
		change(&shared->request, done + 1, &shared->emulation_sleeps);
		sleep_while(&shared->reply, done, &shared->vmm_sleeps);
	}
	message->data = shared->reply_data;
	return 0;
}

static always_inline int bring_by_futex(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	return bring_by_memory(vcpu, message, 0);
}

static always_inline int bring_by_spinning(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	return bring_by_memory(vcpu, message, 1);
}

/* Only a fence exits: takes what has been signalled. */
static always_inline int take_signals(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	uint64_t count;

	message->data = 0;
	if (message->is_store)
		return -EPROTO;
	if (vcpu->stores == 0)
		return 0;
	if (read(vcpu->in, &count, sizeof(count)) != sizeof(count))
		return -EPROTO;
	return count == vcpu->stores ? 0 : -EPROTO;
}

/* Only a fence exits: waits until the emulation process has taken all signals. */
static always_inline int await_signals(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	struct cbench_shared *shared = vcpu->shared;
	uint32_t rung;

	message->data = 0;
	if (message->is_store)
		return -EPROTO;
	shared->request += vcpu->stores;
	while ((rung = take(&shared->reply)) != shared->request)
		sleep_while(&shared->reply, rung, &shared->vmm_sleeps);
	return 0;
}

/* Takes all stores out of the ring; the one that found it full has exited, and comes after them. */
static always_inline int drain_ring(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	struct kvm_coalesced_mmio_ring *ring = (void *)((char *)vcpu->run + KVM_COALESCED_MMIO_PAGE_OFFSET * 4096);
	uint32_t first = ring->first;

	while (first != take(&ring->last)) {
		struct kvm_coalesced_mmio *store = &ring->coalesced_mmio[first];
		uint64_t data;

		memcpy(&data, store->data, sizeof(data));
		device_access(&vcpu->shared->device, store->phys_addr - vcpu->base, store->len, 1, data);
		first = (first + 1) % KVM_COALESCED_MMIO_MAX;
		__atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
	}
	return bring_to_device(vcpu, message);
}

/* The kernel answers every access. */
static always_inline int refuse(struct cbench_vcpu *vcpu, struct cbench_message *message)
{
	(void)vcpu;
	(void)message;
	return -EPROTO;
}

static always_inline int memory_exit(struct cbench_vcpu *vcpu, bring_function bring)
{
	struct kvm_run *run = vcpu->run;
	struct cbench_message message = {
		.offset = run->mmio.phys_addr - vcpu->base,
		.length = run->mmio.len,
		.is_store = run->mmio.is_write,
	};
	int error;

	if (message.is_store)
		memcpy(&message.data, run->mmio.data, sizeof(message.data));
	error = bring(vcpu, &message);
	if (!message.is_store)
		memcpy(run->mmio.data, &message.data, sizeof(message.data));
	return error;
}

static always_inline int port_exit(struct cbench_vcpu *vcpu, bring_function bring)
{
	struct kvm_run *run = vcpu->run;
	char *data = (char *)run + run->io.data_offset;
	struct cbench_message message = {
		.offset = run->io.port - vcpu->base,
		.length = run->io.size,
		.is_store = run->io.direction == KVM_EXIT_IO_OUT,
	};
	int error;

	if (message.is_store)
		memcpy(&message.data, data, 4);
	error = bring(vcpu, &message);
	if (!message.is_store)
		memcpy(data, &message.data, 4);
	return error;
}

static always_inline int run_program(struct cbench_vcpu *vcpu, bring_function bring)
{
	struct kvm_run *run = vcpu->run;
	int error = 0;

	while (!error) {
		if (ioctl(vcpu->descriptor, KVM_RUN, 0) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return -errno;
		}
		if (run->exit_reason == KVM_EXIT_MMIO)
			error = memory_exit(vcpu, bring);
		else if (run->exit_reason == KVM_EXIT_IO && run->io.port == END_PORT)
			return 0;
		else if (run->exit_reason == KVM_EXIT_IO)
			error = port_exit(vcpu, bring);
		else
			error = -EPROTO;
	}
	return error;
}

static int run_path(struct cbench_vcpu *vcpu)
{
	switch (vcpu->path) {
	case CBENCH_EXIT:
		return run_program(vcpu, bring_to_device);
	case CBENCH_SOCKET_POSTED:
		return run_program(vcpu, post_by_socket);
	case CBENCH_SOCKET:
	case CBENCH_SOCKET_STREAM:
		return run_program(vcpu, bring_by_socket);
	case CBENCH_PIPES:
		return run_program(vcpu, bring_by_pipes);
	case CBENCH_SHM_FUTEX:
		return run_program(vcpu, bring_by_futex);
	case CBENCH_SHM_SPIN:
		return run_program(vcpu, bring_by_spinning);
	case CBENCH_IOEVENTFD:
		return run_program(vcpu, take_signals);
	case CBENCH_IOEVENTFD_WAITER:
		return run_program(vcpu, await_signals);
	case CBENCH_COALESCED:
		return run_program(vcpu, drain_ring);
	case CBENCH_FD_READWRITE:
	case CBENCH_FD_EXCHANGE:
	case CBENCH_FD_SHADOW:
		return run_program(vcpu, refuse);
	}
	return -EINVAL;
}

/* Sleeping, not yielding: that would count as system calls of the accesses. */
static void await_others(uint32_t *barrier)
{
	uint32_t left = __atomic_sub_fetch(barrier, 1, __ATOMIC_SEQ_CST);

	if (left == 0)
		futex_wake(barrier, INT_MAX);
	while (left != 0) {
		futex_wait(barrier, left);
		left = take(barrier);
	}
}

/* A vCPU's first KVM_RUN on another thread than before waits for all of RCU's readers. */
static int adopt_vcpu(struct cbench_vcpu *vcpu)
{
	int result;

	vcpu->run->immediate_exit = 1;
	result = ioctl(vcpu->descriptor, KVM_RUN, 0);
	vcpu->run->immediate_exit = 0;
	return result < 0 && errno != EINTR ? -errno : 0;
}

int cbench_run(struct cbench_vcpu *vcpu)
{
	int error;

	if (vcpu->cpu >= 0) {
		error = cbench_pin(vcpu->cpu);
		if (error)
			return error;
	}
	error = adopt_vcpu(vcpu);
	await_others(&vcpu->shared->barrier);
	if (error)
		return error;
	vcpu->start = __rdtsc();
	error = run_path(vcpu);
	vcpu->end = __rdtsc();
	return error;
}
