// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinuxSystem.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 16 };

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
};

int clinux_ioctl_pointer(int descriptor, unsigned long command, void *argument)
{
	return ioctl(descriptor, command, argument);
}

int clinux_ioctl_integer(int descriptor, unsigned long command, unsigned long argument)
{
	return ioctl(descriptor, command, argument);
}

ssize_t clinux_send_descriptors(int socket, const void *bytes, size_t count, const int *descriptors,
				size_t descriptor_count)
{
	union control control = { 0 };
	struct iovec vector = { .iov_base = (void *)bytes, .iov_len = count };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	if (descriptor_count > MAX_DESCRIPTORS) {
		errno = EINVAL;
		return -1;
	}
	if (descriptor_count > 0) {
		size_t size = descriptor_count * sizeof(int);

		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(size);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(&control.header), descriptors, size);
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t clinux_receive_descriptors(int socket, void *bytes, size_t count, int *descriptors,
				   size_t *descriptor_count)
{
	union control control = { 0 };
	struct iovec vector = { .iov_base = bytes, .iov_len = count };
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	size_t room = *descriptor_count, came = 0, kept = 0;
	ssize_t result = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);

	*descriptor_count = 0;
	if (result < 0)
		return result;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= header->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
			int descriptor;

			memcpy(&descriptor, CMSG_DATA(header) + at, sizeof(int));
			if (came++ < room)
				descriptors[kept++] = descriptor;
			else
				close(descriptor);
		}
	}
	if (came > room || (message.msg_flags & MSG_CTRUNC)) {
		while (kept > 0)
			close(descriptors[--kept]);
		errno = EMSGSIZE;
		return -1;
	}
	*descriptor_count = kept;
	return result;
}

static int unix_socket(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address->sun_path, path);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

static int close_keeping_errno(int descriptor)
{
	int saved = errno;

	close(descriptor);
	errno = saved;
	return -1;
}

int clinux_unix_listen(const char *path, int backlog)
{
	struct sockaddr_un address;
	int descriptor = unix_socket(path, &address);

	if (descriptor < 0)
		return -1;
	if (bind(descriptor, (struct sockaddr *)&address, sizeof(address)) || listen(descriptor, backlog))
		return close_keeping_errno(descriptor);
	return descriptor;
}

int clinux_unix_connect(const char *path)
{
	struct sockaddr_un address;
	int descriptor = unix_socket(path, &address);

	if (descriptor < 0)
		return -1;
	if (connect(descriptor, (struct sockaddr *)&address, sizeof(address)))
		return close_keeping_errno(descriptor);
	return descriptor;
}

int clinux_accept(int socket)
{
	return accept4(socket, NULL, NULL, SOCK_CLOEXEC);
}

bool clinux_contains(const void *bytes, size_t count, const void *pattern, size_t pattern_count)
{
	return memmem(bytes, count, pattern, pattern_count) != NULL;
}

int clinux_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

int clinux_memory_file(off_t count)
{
	int descriptor = memfd_create("mmiofd", MFD_CLOEXEC);

	if (descriptor >= 0 && ftruncate(descriptor, count))
		return close_keeping_errno(descriptor);
	return descriptor;
}

int clinux_unix_peer(int socket, pid_t *pid, uid_t *uid, gid_t *gid)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size))
		return -1;
	*pid = peer.pid;
	*uid = peer.uid;
	*gid = peer.gid;
	return 0;
}
