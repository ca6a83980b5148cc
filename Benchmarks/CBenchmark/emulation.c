// SPDX-License-Identifier: Apache-2.0
//
// The emulation process: one loop for each path.
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <CKVMUser.h>
#include "internal.h"

/* As many as a read takes at once. */
#define BATCH	64

/* One message a call, each with a reply. */
static int serve_packets(const struct cbench_emulation *emulation)
{
	struct cbench_message message;

	for (;;) {
		if (recv(emulation->in, &message, sizeof(message), 0) != sizeof(message))
			return EPROTO;
		count_batch(emulation->shared, 1);
		message.data = device_access(&emulation->shared->device, message.offset, message.length, message.is_store,
					     message.data);
		if (send(emulation->out, &message.data, sizeof(message.data), 0) != sizeof(message.data))
			return errno;
	}
}

/* Whatever bytes are there: only one message can be under way. */
static int serve_pipes(const struct cbench_emulation *emulation)
{
	struct cbench_message message;

	for (;;) {
		if (read(emulation->in, &message, sizeof(message)) != sizeof(message))
			return EPROTO;
		count_batch(emulation->shared, 1);
		message.data = device_access(&emulation->shared->device, message.offset, message.length, message.is_store,
					     message.data);
		if (write(emulation->out, &message.data, sizeof(message.data)) != sizeof(message.data))
			return errno;
	}
}

/* As many messages as there are; loads alone have replies. */
static int serve_posted(const struct cbench_emulation *emulation)
{
	struct cbench_message messages[BATCH];
	size_t filled = 0;

	for (;;) {
		ssize_t got = recv(emulation->in, (char *)messages + filled, sizeof(messages) - filled, 0);
		size_t count;

		if (got <= 0)
			return EPROTO;
		filled += got;
		count = filled / sizeof(messages[0]);
		count_batch(emulation->shared, count);
		for (size_t i = 0; i < count; i++) {
			struct cbench_message *message = &messages[i];
			uint64_t data = device_access(&emulation->shared->device, message->offset, message->length,
						      message->is_store, message->data);

			if (!message->is_store && send(emulation->out, &data, sizeof(data), 0) != sizeof(data))
				return errno;
		}
		filled %= sizeof(messages[0]);
		memmove(messages, &messages[count], filled);
	}
}

static always_inline int serve_memory(const struct cbench_emulation *emulation, int spins)
{
	struct cbench_shared *shared = emulation->shared;
	const struct cbench_message *message = &shared->message;
	uint32_t done = 0;

	for (;;) {
		if (spins)
			spin_while(&shared->request, done, emulation->yields);
		else
			sleep_while(&shared->request, done, &shared->emulation_sleeps);
		count_batch(shared, 1);
		shared->reply_data = device_access(&shared->device, message->offset, message->length, message->is_store,
						   message->data);
		done++;
		if (spins)
			__atomic_store_n(&shared->reply, done, __ATOMIC_RELEASE);
		else
			change(&shared->reply, done, &shared->vmm_sleeps);
	}
}

/* Signals carry no data. */
static int serve_eventfd(const struct cbench_emulation *emulation)
{
	struct cbench_shared *shared = emulation->shared;
	uint64_t count;

	for (;;) {
		if (read(emulation->in, &count, sizeof(count)) != sizeof(count))
			return EPROTO;
		count_batch(shared, count);
		change(&shared->reply, shared->reply + (uint32_t)count, &shared->vmm_sleeps);
	}
}

static void serve_requests(struct cbench_shared *shared, struct kvm_user_request *requests, size_t count)
{
	count_batch(shared, count);
	for (size_t i = 0; i < count; i++) {
		struct kvm_user_request *request = &requests[i];

		request->data = device_access(&shared->device, request->offset, request->len,
					      request->type == KVM_USER_STORE, request->data);
	}
}

static int serve_readwrite(const struct cbench_emulation *emulation)
{
	struct kvm_user_request requests[BATCH];

	for (;;) {
		ssize_t got = read(emulation->in, requests, sizeof(requests));

		if (got <= 0)
			return got ? errno : 0;
		serve_requests(emulation->shared, requests, got / sizeof(requests[0]));
		if (write(emulation->in, requests, got) != got)
			return EPROTO;
	}
}

/* Leaves the loads and one reply for all stores; gives how many these are. */
static uint32_t acknowledge_at_once(struct kvm_user_request *requests, uint32_t count)
{
	uint32_t kept = 0, last = count;

	while (last > 0 && requests[last - 1].type != KVM_USER_STORE)
		last--;
	if (last)
		requests[last - 1].flags |= KVM_USER_REPLY_CUMULATIVE;
	for (uint32_t i = 0; i < count; i++)
		if (requests[i].type == KVM_USER_LOAD || i + 1 == last)
			requests[kept++] = requests[i];
	return kept;
}

static always_inline int serve_by_exchange(const struct cbench_emulation *emulation, int at_once)
{
	struct kvm_user_request requests[BATCH];
	uint32_t replies = 0;

	for (;;) {
		struct kvm_dev_user_exchange exchange = {
			.replies = (uintptr_t)requests,
			.requests = (uintptr_t)requests,
			.nr_replies = replies,
			.nr_requests = BATCH,
			.flags = KVM_USER_EXCHANGE_WAIT,
		};

		if (ioctl(emulation->in, KVM_DEV_USER_EXCHANGE, &exchange) < 0)
			return errno;
		if (exchange.nr_replies != replies)
			return EPROTO;
		replies = exchange.nr_requests;
		if (replies == 0)
			return 0;
		serve_requests(emulation->shared, requests, replies);
		if (at_once)
			replies = acknowledge_at_once(requests, replies);
	}
}

static int serve_exchange(const struct cbench_emulation *emulation)
{
	return serve_by_exchange(emulation, 0);
}

static int serve_coalesced(const struct cbench_emulation *emulation)
{
	struct kvm_dev_user_coalesce coalesce = {
		.stores = CBENCH_COALESCED_STORES,
		.ns = CBENCH_COALESCED_NS,
	};

	if (ioctl(emulation->in, KVM_DEV_USER_COALESCE, &coalesce) < 0)
		return errno;
	return serve_by_exchange(emulation, 1);
}

struct ring {
	struct kvm_user_ring *shared;
	const char *requests;
	char *replies;
	uint32_t mask;
};

static int map_ring(int descriptor, struct ring *ring)
{
	struct kvm_dev_user_ring layout;
	void *memory;

	if (ioctl(descriptor, KVM_DEV_USER_RING, &layout) < 0)
		return errno;
	memory = mmap(NULL, layout.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, KVM_USER_RING_OFFSET);
	if (memory == MAP_FAILED)
		return errno;
	ring->shared = memory;
	ring->requests = (const char *)memory + layout.requests_offset;
	ring->replies = (char *)memory + layout.replies_offset;
	ring->mask = layout.entries - 1;
	return 0;
}

/* Carries out what is in the ring; one reply acknowledges all stores. Gives how many requests these were. */
static uint32_t serve_ring_batch(const struct cbench_emulation *emulation, struct ring *ring, uint32_t tail,
				 uint32_t *head)
{
	uint32_t end = take(&ring->shared->request_head), count = end - tail;
	struct kvm_user_request *store = NULL;

	if (!count)
		return 0;
	count_batch(emulation->shared, count);
	for (; tail != end; tail++) {
		struct kvm_user_request request;

		memcpy(&request, ring->requests + (size_t)(tail & ring->mask) * KVM_USER_RING_STRIDE, sizeof(request));
		request.data = device_access(&emulation->shared->device, request.offset, request.len,
					     request.type == KVM_USER_STORE, request.data);
		/* A store's reply is overwritten by a later one's, which stands for it. */
		if (request.type == KVM_USER_LOAD || !store) {
			char *at = ring->replies + (size_t)((*head)++ & ring->mask) * KVM_USER_RING_STRIDE;

			memcpy(at, &request, sizeof(request));
			store = request.type == KVM_USER_STORE ? (void *)at : NULL;
		} else {
			memcpy(store, &request, sizeof(request));
		}
		if (store)
			store->flags |= KVM_USER_REPLY_CUMULATIVE;
	}
	__atomic_store_n(&ring->shared->request_tail, end, __ATOMIC_RELEASE);
	return count;
}

static int serve_ring(const struct cbench_emulation *emulation)
{
	struct kvm_dev_user_ring_enter enter = { .flags = 0 };
	uint32_t tail = 0, head = 0, count;
	struct ring ring;
	int error = map_ring(emulation->in, &ring);

	if (error)
		return error;
	for (;;) {
		count = serve_ring_batch(emulation, &ring, tail, &head);
		tail += count;
		if (count)
			put(&ring.shared->reply_head, head);
		/* With a CPU of its own it stays awake. */
		enter.flags = emulation->yields ? KVM_USER_RING_ENTER_WAIT : 0;
		if (!enter.flags && !(count && take(&ring.shared->flags) & KVM_USER_RING_NEED_ENTER)) {
			__builtin_ia32_pause();
			continue;
		}
		if (ioctl(emulation->in, KVM_DEV_USER_RING_ENTER, &enter) < 0 && errno != EINTR)
			return errno == ENODEV ? 0 : errno;
	}
}

static int serve(const struct cbench_emulation *emulation)
{
	switch (emulation->path) {
	case CBENCH_SOCKET_POSTED:
		return serve_posted(emulation);
	case CBENCH_SOCKET:
	case CBENCH_SOCKET_STREAM:
		return serve_packets(emulation);
	case CBENCH_PIPES:
		return serve_pipes(emulation);
	case CBENCH_SHM_FUTEX:
		return serve_memory(emulation, 0);
	case CBENCH_SHM_SPIN:
		return serve_memory(emulation, 1);
	case CBENCH_IOEVENTFD_WAITER:
		return serve_eventfd(emulation);
	case CBENCH_FD_READWRITE:
		return serve_readwrite(emulation);
	case CBENCH_FD_EXCHANGE:
	case CBENCH_FD_SHADOW:
		return serve_exchange(emulation);
	case CBENCH_FD_COALESCED_WAKE:
		return serve_coalesced(emulation);
	case CBENCH_FD_RING:
		return serve_ring(emulation);
	case CBENCH_EXIT:
	case CBENCH_IOEVENTFD:
	case CBENCH_COALESCED:
		return EINVAL;
	}
	return EINVAL;
}

/* -errno, or a descriptor that comes with one message. */
static int receive_descriptor(int socket)
{
	char bytes[64], control[CMSG_SPACE(sizeof(int))];
	struct iovec part = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	int descriptor;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0)
		return -EPROTO;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
	return descriptor;
}

static int emulate(struct cbench_emulation emulation)
{
	int handover = emulation.in;

	cbench_close_ends(emulation.vmm_in, emulation.vmm_out);
	if (emulation.cpu >= 0) {
		int error = cbench_pin(emulation.cpu);

		if (error)
			return -error;
	}
	for (int i = 0; i < emulation.descriptors; i++) {
		/* The others stay open, and idle. */
		emulation.in = receive_descriptor(handover);
		if (emulation.in < 0)
			return -emulation.in;
	}
	return serve(&emulation);
}

pid_t cbench_start_emulation(const struct cbench_emulation *emulation)
{
	pid_t parent = getpid(), process = fork();

	if (process < 0)
		return -errno;
	if (process > 0)
		return process;
	forget_cleanup();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	emulation->shared->error = emulate(*emulation);
	_exit(emulation->shared->error != 0);
}

void cbench_end_emulation(pid_t process)
{
	kill(process, SIGKILL);
	while (waitpid(process, NULL, 0) < 0 && errno == EINTR)
		;
}
