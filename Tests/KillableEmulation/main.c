// SPDX-License-Identifier: Apache-2.0
//
// An emulation process made to be killed: cheap to start again, and what it did outlives it.  KillableEmulation.h
// says what it is told and what it answers.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CKVMUser.h"
#include "KillableEmulation.h"

static struct killable_record *record;

static struct kvm_user_request *recorded_requests(void)
{
	return (struct kvm_user_request *)(record + 1);
}

/// Receives a message with one descriptor; false at the end of the connection.
static bool receive(void *message, size_t count, int *descriptor)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec vector = { .iov_base = message, .iov_len = count };
	struct msghdr header = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t result = recvmsg(STDIN_FILENO, &header, MSG_CMSG_CLOEXEC);

	if (result <= 0)
		return false;
	if (!CMSG_FIRSTHDR(&header))
		exit(EXIT_FAILURE);
	memcpy(descriptor, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof(int));
	return true;
}

static void tell(int value)
{
	if (send(STDIN_FILENO, &value, sizeof(value), MSG_NOSIGNAL) != sizeof(value))
		exit(EXIT_FAILURE);
}

/// Carries a request out, and makes a reply of it.
static void carry_out(struct kvm_user_request *request)
{
	uint8_t *place = record->memory + request->offset;

	if (request->offset > KILLABLE_MEMORY - sizeof(request->data))
		_exit(KILLABLE_BAD_OFFSET);
	if (request->type == KVM_USER_STORE)
		memcpy(place, &request->data, request->len);
	else
		memcpy(&request->data, place, request->len);
}

static void reply(int emulation, const struct kvm_user_request *replies, uint32_t count)
{
	ssize_t size = count * sizeof(*replies);

	if (write(emulation, replies, size) != size)
		_exit(KILLABLE_BAD_WRITE);
	__atomic_fetch_add(&record->replied, count, __ATOMIC_RELEASE);
}

static _Noreturn void serve(int emulation, const struct killable_order *order)
{
	struct kvm_user_request batch[KILLABLE_BATCH];

	for (;;) {
		ssize_t bytes = read(emulation, batch, order->batch * sizeof(*batch));
		uint32_t count = bytes / sizeof(*batch), at = record->recorded;

		if (bytes <= 0)
			_exit(bytes ? KILLABLE_BAD_READ : EXIT_SUCCESS);
		if (at + count > KILLABLE_REQUESTS)
			_exit(KILLABLE_FULL);
		memcpy(recorded_requests() + at, batch, bytes);
		__atomic_store_n(&record->recorded, at + count, __ATOMIC_RELEASE);
		for (uint32_t i = 0; i < count; i++)
			carry_out(&batch[i]);
		if (order->pause > 0)
			usleep(order->pause);
		for (uint32_t done = 0; done < count; done += order->replies) {
			uint32_t rest = count - done;

			reply(emulation, batch + done, rest < order->replies ? rest : order->replies);
		}
	}
}

static pid_t start(int emulation, const struct killable_order *order)
{
	pid_t child = fork();

	if (child < 0)
		exit(EXIT_FAILURE);
	if (child > 0)
		return child;
	// Whatever ends its parent, it must not stay; nor keep the test from seeing the end.
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(STDIN_FILENO);
	serve(emulation, order);
}

int main(void)
{
	const size_t size = sizeof(*record) + KILLABLE_REQUESTS * sizeof(struct kvm_user_request);
	struct killable_order order;
	int descriptor;

	if (!receive(&order, sizeof(order), &descriptor))
		return EXIT_SUCCESS;
	record = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	if (record == MAP_FAILED) {
		perror("mmap");
		return EXIT_FAILURE;
	}
	while (receive(&order, sizeof(order), &descriptor)) {
		int status = 0;
		pid_t child;

		record->recorded = 0;
		record->replied = 0;
		child = start(descriptor, &order);
		// The child's end is the last close.
		close(descriptor);
		tell(child);
		if (waitpid(child, &status, 0) != child)
			return EXIT_FAILURE;
		tell(status);
	}
	return EXIT_SUCCESS;
}
