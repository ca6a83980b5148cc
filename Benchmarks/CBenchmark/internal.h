/* SPDX-License-Identifier: Apache-2.0 */
/* What the VMM's side and the emulation's have in common. */
#ifndef CBENCHMARK_INTERNAL_H
#define CBENCHMARK_INTERNAL_H

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CBenchmark.h"

#define always_inline	inline __attribute__((always_inline))

/* The cleanup at a signal is the VMM's. */
void forget_cleanup(void);

/* One access to the device, the same code on every path.  A width that is no power of two reads 0. */
static inline uint64_t device_access(struct cbench_device *device, uint64_t offset, uint32_t length, int is_store,
				     uint64_t data)
{
	uint8_t *at = device->registers + offset % CBENCH_REGISTERS_SIZE;

	if (is_store) {
		device->stores++;
		switch (length) {
		case 1: memcpy(at, &data, 1); break;
		case 2: memcpy(at, &data, 2); break;
		case 4: memcpy(at, &data, 4); break;
		case 8: memcpy(at, &data, 8); break;
		}
		return data;
	}
	device->loads++;
	data = 0;
	switch (length) {
	case 1: memcpy(&data, at, 1); break;
	case 2: memcpy(&data, at, 2); break;
	case 4: memcpy(&data, at, 4); break;
	case 8: memcpy(&data, at, 8); break;
	}
	return data;
}

static inline void count_batch(struct cbench_shared *shared, uint64_t requests)
{
	shared->batches++;
	shared->requests += requests;
}

static inline uint32_t take(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* A full barrier: what follows must not read before this is seen. */
static inline void put(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static inline void futex_wait(uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static inline void futex_wake(uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* Sleeps while *word is value; whoever changes it wakes this side if *sleeps says so. */
static inline void sleep_while(uint32_t *word, uint32_t value, uint32_t *sleeps)
{
	while (take(word) == value) {
		put(sleeps, 1);
		if (take(word) == value)
			futex_wait(word, value);
		put(sleeps, 0);
	}
}

static inline void change(uint32_t *word, uint32_t value, const uint32_t *sleeps)
{
	put(word, value);
	if (take(sleeps))
		futex_wake(word, 1);
}

static inline void spin_while(const uint32_t *word, uint32_t value, int yields)
{
	while (take(word) == value) {
		if (yields)
			sched_yield();
		else
			__builtin_ia32_pause();
	}
}

#endif
