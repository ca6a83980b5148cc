// SPDX-License-Identifier: Apache-2.0
//
// What connects the VMM and the emulation process on each path.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "internal.h"

static int make_sockets(int type, struct cbench_channel *channel)
{
	int ends[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	channel->vmm_in = channel->vmm_out = ends[0];
	channel->emulation_in = channel->emulation_out = ends[1];
	return 0;
}

static int make_pipes(struct cbench_channel *channel)
{
	int requests[2], replies[2];

	if (pipe2(requests, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(replies, O_CLOEXEC) < 0) {
		int error = errno;

		close(requests[0]);
		close(requests[1]);
		return -error;
	}
	channel->vmm_in = replies[0];
	channel->vmm_out = requests[1];
	channel->emulation_in = requests[0];
	channel->emulation_out = replies[1];
	return 0;
}

static int make_eventfd(struct cbench_channel *channel)
{
	channel->vmm_in = eventfd(0, EFD_CLOEXEC);
	if (channel->vmm_in < 0)
		return -errno;
	channel->emulation_in = fcntl(channel->vmm_in, F_DUPFD_CLOEXEC, 0);
	if (channel->emulation_in < 0) {
		int error = errno;

		close(channel->vmm_in);
		channel->vmm_in = -1;
		return -error;
	}
	return 0;
}

int cbench_make_channel(enum cbench_path path, struct cbench_channel *channel)
{
	*channel = (struct cbench_channel) { -1, -1, -1, -1 };
	switch (path) {
	case CBENCH_SOCKET_POSTED:
	case CBENCH_SOCKET_STREAM:
		return make_sockets(SOCK_STREAM, channel);
	case CBENCH_SOCKET:
		return make_sockets(SOCK_SEQPACKET, channel);
	case CBENCH_PIPES:
		return make_pipes(channel);
	case CBENCH_IOEVENTFD:
	case CBENCH_IOEVENTFD_WAITER:
		return make_eventfd(channel);
	case CBENCH_FD_READWRITE:
	case CBENCH_FD_EXCHANGE:
	case CBENCH_FD_SHADOW:
		/* The emulation descriptors go over it; one message each, whole. */
		return make_sockets(SOCK_SEQPACKET, channel);
	case CBENCH_EXIT:
	case CBENCH_SHM_FUTEX:
	case CBENCH_SHM_SPIN:
	case CBENCH_COALESCED:
		return 0;
	}
	return -EINVAL;
}

void cbench_close_ends(int in, int out)
{
	if (in >= 0)
		close(in);
	if (out >= 0 && out != in)
		close(out);
}
