// SPDX-License-Identifier: Apache-2.0
//
// System calls with whatever arguments: addresses are numbers, and a failure is -errno.
#ifndef CFUZZ_H
#define CFUZZ_H

#include <stddef.h>
#include <stdint.h>

int64_t cfuzz_ioctl(int descriptor, uint64_t command, uint64_t argument);
/// Two threads make the same ioctl at once. A failure of one of them, if there is one.
int64_t cfuzz_ioctl_at_once(int descriptor, uint64_t command, uint64_t argument);
int64_t cfuzz_read(int descriptor, uint64_t address, size_t count);
int64_t cfuzz_write(int descriptor, uint64_t address, size_t count);
/// readv and writev of `count` bytes at `address`, in two parts of which the first has `first` bytes.
int64_t cfuzz_readv(int descriptor, uint64_t address, size_t first, size_t count);
int64_t cfuzz_writev(int descriptor, uint64_t address, size_t first, size_t count);
/// poll without waiting for POLLIN and POLLOUT: the events.
int64_t cfuzz_poll(int descriptor);
int64_t cfuzz_mmap(int descriptor, uint64_t count, int protection, int flags, uint64_t offset);
int64_t cfuzz_munmap(uint64_t address, size_t count);
int64_t cfuzz_duplicate(int descriptor);
int64_t cfuzz_close(int descriptor);
int64_t cfuzz_set_nonblocking(int descriptor, int nonblocking);

/// Maps `count` bytes, a multiple of the page size, with a page after them that nobody may touch.
int64_t cfuzz_make_arena(size_t count);
/// memcpy between this process's own memory and an address that is a number.
void cfuzz_put(uint64_t address, const void *_Nonnull bytes, size_t count);
void cfuzz_get(uint64_t address, void *_Nonnull bytes, size_t count);
/// One access to a word of shared memory.
uint64_t cfuzz_load(uint64_t address);
void cfuzz_store(uint64_t address, uint64_t value);
uint32_t cfuzz_load32(uint64_t address);
void cfuzz_store32(uint64_t address, uint32_t value);
/// Stores `value` if the word is still `old`.
void cfuzz_replace32(uint64_t address, uint32_t old, uint32_t value);

/// Forks a child that holds a copy of every descriptor and does nothing; it dies with its parent. Its process id.
int64_t cfuzz_fork_holder(void);
/// Forks a child that makes one ioctl. What the child got.
int64_t cfuzz_fork_ioctl(int descriptor, uint64_t command, uint64_t argument);
/// Kills a child and waits for its end.
void cfuzz_end_child(int64_t process);

#endif
