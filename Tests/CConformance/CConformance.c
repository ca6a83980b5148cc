// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CConformance.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/// Numbers of the i386 system calls.
enum { READ = 3, WRITE = 4, IOCTL = 54 };

static int32_t call32(int32_t number, uint32_t first, uint32_t second, uint32_t third)
{
	int32_t result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(first), "c"(second), "d"(third)
			 : "memory", "cc", "r8", "r9", "r10", "r11");
	return result;
}

int32_t cconformance_ioctl32(int descriptor, uint32_t command, uint32_t argument)
{
	return call32(IOCTL, descriptor, command, argument);
}

int32_t cconformance_read32(int descriptor, uint32_t buffer, uint32_t count)
{
	return call32(READ, descriptor, buffer, count);
}

int32_t cconformance_write32(int descriptor, uint32_t buffer, uint32_t count)
{
	return call32(WRITE, descriptor, buffer, count);
}

void *cconformance_grow(void *mapping, size_t old, size_t count)
{
	void *grown = mremap(mapping, old, count, MREMAP_MAYMOVE);

	return grown == MAP_FAILED ? NULL : grown;
}

int32_t cconformance_hold_back(void *memory, size_t count)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)memory, .len = count },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int descriptor = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (descriptor < 0)
		return -1;
	if (ioctl(descriptor, UFFDIO_API, &api) < 0 || ioctl(descriptor, UFFDIO_REGISTER, &range) < 0) {
		close(descriptor);
		return -1;
	}
	return descriptor;
}

int32_t cconformance_give(int descriptor, void *memory, const void *contents, size_t count)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)memory,
		.src = (uintptr_t)contents,
		.len = count,
	};

	return ioctl(descriptor, UFFDIO_COPY, &copy);
}
