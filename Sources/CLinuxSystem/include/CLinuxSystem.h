// SPDX-License-Identifier: Apache-2.0
//
// System calls that Swift cannot make by itself: variadic ones, and those whose arguments are built with macros.
#ifndef CLINUXSYSTEM_H
#define CLINUXSYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/types.h>

/// ioctl(2) with a pointer or an integer as its argument. -1 with errno, or the call's result.
int clinux_ioctl_pointer(int descriptor, unsigned long command, void *_Nullable argument);
int clinux_ioctl_integer(int descriptor, unsigned long command, unsigned long argument);

/// Sends `count` bytes and the descriptors as SCM_RIGHTS on the first byte, with MSG_NOSIGNAL. -1 with errno, or
/// the number of bytes that went out; at most 16 descriptors, EINVAL above that.
ssize_t clinux_send_descriptors(int socket, const void *_Nonnull bytes, size_t count,
				const int *_Nullable descriptors, size_t descriptor_count);

/// Receives up to `count` bytes and up to *descriptor_count descriptors (close-on-exec), and stores how many came.
/// -1 with errno, 0 at the end of the stream, or the number of bytes. Descriptors that the control message had no
/// room for make it fail with EMSGSIZE, after closing those that came.
ssize_t clinux_receive_descriptors(int socket, void *_Nonnull bytes, size_t count,
				   int *_Nonnull descriptors, size_t *_Nonnull descriptor_count);

/// socket, bind and listen, or socket and connect, for a SOCK_SEQPACKET socket of family AF_UNIX at `path`, all
/// close-on-exec. -1 with errno (ENAMETOOLONG for a path that does not fit a sockaddr_un), or the descriptor.
int clinux_unix_listen(const char *_Nonnull path, int backlog);
int clinux_unix_connect(const char *_Nonnull path);

/// accept4 with SOCK_CLOEXEC. -1 with errno, or the connection's descriptor.
int clinux_accept(int socket);

/// Whether the `pattern_count` bytes of `pattern` are somewhere in the `count` bytes (memmem).
bool clinux_contains(const void *_Nonnull bytes, size_t count, const void *_Nonnull pattern, size_t pattern_count);

/// eventfd with count 0 and EFD_CLOEXEC. -1 with errno, or the descriptor.
int clinux_eventfd(void);

/// memfd_create with MFD_CLOEXEC, `count` bytes long, all zero. -1 with errno, or the descriptor.
int clinux_memory_file(off_t count);

/// The process at the other end of a connected AF_UNIX socket (SO_PEERCRED). -1 with errno, or 0.
int clinux_unix_peer(int socket, pid_t *_Nonnull pid, uid_t *_Nonnull uid, gid_t *_Nonnull gid);

#endif
