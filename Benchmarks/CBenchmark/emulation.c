// SPDX-License-Identifier: Apache-2.0
//
// The emulation process: one loop for each path.
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
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

static int serve_exchange(const struct cbench_emulation *emulation)
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
