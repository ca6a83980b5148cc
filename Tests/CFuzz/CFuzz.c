// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CFuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void *pointer(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static int64_t result(int64_t value)
{
	return value == -1 ? -errno : value;
}

int64_t cfuzz_ioctl(int descriptor, uint64_t command, uint64_t argument)
{
	return result(ioctl(descriptor, command, argument));
}

int64_t cfuzz_read(int descriptor, uint64_t address, size_t count)
{
	return result(read(descriptor, pointer(address), count));
}

int64_t cfuzz_write(int descriptor, uint64_t address, size_t count)
{
	return result(write(descriptor, pointer(address), count));
}

int64_t cfuzz_readv(int descriptor, uint64_t address, size_t first, size_t count)
{
	struct iovec parts[] = { { pointer(address), first }, { pointer(address + first), count - first } };

	return result(readv(descriptor, parts, 2));
}

int64_t cfuzz_writev(int descriptor, uint64_t address, size_t first, size_t count)
{
	struct iovec parts[] = { { pointer(address), first }, { pointer(address + first), count - first } };

	return result(writev(descriptor, parts, 2));
}

int64_t cfuzz_poll(int descriptor)
{
	struct pollfd entry = { .fd = descriptor, .events = POLLIN | POLLOUT };

	return result(poll(&entry, 1, 0)) < 0 ? -errno : entry.revents;
}

int64_t cfuzz_mmap(int descriptor, uint64_t count, int protection, int flags, uint64_t offset)
{
	return result((int64_t)mmap(NULL, count, protection, flags, descriptor, (off_t)offset));
}

int64_t cfuzz_munmap(uint64_t address, size_t count)
{
	return result(munmap(pointer(address), count));
}

int64_t cfuzz_duplicate(int descriptor)
{
	return result(fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
}

int64_t cfuzz_close(int descriptor)
{
	return result(close(descriptor));
}

int64_t cfuzz_set_nonblocking(int descriptor, int nonblocking)
{
	int flags = fcntl(descriptor, F_GETFL);

	if (flags == -1)
		return -errno;
	return result(fcntl(descriptor, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

int64_t cfuzz_make_arena(size_t count)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *start = mmap(NULL, count + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (start == MAP_FAILED || mprotect(start + count, page, PROT_NONE))
		return -errno;
	return (int64_t)start;
}

void cfuzz_put(uint64_t address, const void *bytes, size_t count)
{
	memcpy(pointer(address), bytes, count);
}

void cfuzz_get(uint64_t address, void *bytes, size_t count)
{
	memcpy(bytes, pointer(address), count);
}

uint64_t cfuzz_load(uint64_t address)
{
	return __atomic_load_n((uint64_t *)pointer(address), __ATOMIC_SEQ_CST);
}

void cfuzz_store(uint64_t address, uint64_t value)
{
	__atomic_store_n((uint64_t *)pointer(address), value, __ATOMIC_SEQ_CST);
}

uint32_t cfuzz_load32(uint64_t address)
{
	return __atomic_load_n((uint32_t *)pointer(address), __ATOMIC_SEQ_CST);
}

void cfuzz_store32(uint64_t address, uint32_t value)
{
	/* With the full barrier that a look at the ring's flags needs. */
	__atomic_store_n((uint32_t *)pointer(address), value, __ATOMIC_SEQ_CST);
}

void cfuzz_replace32(uint64_t address, uint32_t old, uint32_t value)
{
	__atomic_compare_exchange_n((uint32_t *)pointer(address), &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

struct call {
	int descriptor;
	uint64_t command;
	uint64_t argument;
	int64_t result;
	pthread_barrier_t start;
};

static void *make_call(void *argument)
{
	struct call *call = argument;

	pthread_barrier_wait(&call->start);
	call->result = cfuzz_ioctl(call->descriptor, call->command, call->argument);
	return NULL;
}

int64_t cfuzz_ioctl_at_once(int descriptor, uint64_t command, uint64_t argument)
{
	struct call call = { .descriptor = descriptor, .command = command, .argument = argument };
	pthread_t other;
	int64_t own;

	pthread_barrier_init(&call.start, NULL, 2);
	own = -pthread_create(&other, NULL, make_call, &call);
	if (own == 0) {
		pthread_barrier_wait(&call.start);
		own = cfuzz_ioctl(descriptor, command, argument);
		pthread_join(other, NULL);
	}
	pthread_barrier_destroy(&call.start);
	return own < 0 ? own : call.result;
}

int64_t cfuzz_fork_holder(void)
{
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return result(child);
}

int64_t cfuzz_fork_ioctl(int descriptor, uint64_t command, uint64_t argument)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (child == 0)
		_exit(ioctl(descriptor, command, argument) == -1 ? errno : 0);
	while (waitpid(child, &status, 0) == -1)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

void cfuzz_end_child(int64_t process)
{
	kill((pid_t)process, SIGKILL);
	while (waitpid((pid_t)process, NULL, 0) == -1 && errno == EINTR)
		;
}
