// SPDX-License-Identifier: Apache-2.0
//
// What the tests share with Tests/KillableEmulation, an emulation process made to be killed.
//
// Its standard input is a SOCK_SEQPACKET socket.  The first message brings, as SCM_RIGHTS, a file to map as struct
// killable_record.  Each further message is a struct killable_order with an emulation descriptor: a child process is
// forked that serves it until it is killed, or the virtual machine is gone.  The answers are two messages: the child's
// process id at once, as an int, and once it has been waited for its wait status, as an int.  End of file ends it all.
#ifndef KILLABLE_EMULATION_H
#define KILLABLE_EMULATION_H

#include <stdint.h>

/// Exit statuses of a child that found something wrong.
enum {
	KILLABLE_FULL = 3,	///< more requests than struct killable_record has room for
	KILLABLE_BAD_READ = 4,	///< read failed
	KILLABLE_BAD_WRITE = 5, ///< write failed, or took less than it was given
	KILLABLE_BAD_OFFSET = 6 ///< a request beyond KILLABLE_MEMORY
};

enum {
	/// Requests that one child can record.
	KILLABLE_REQUESTS = 1 << 16,
	/// Size of the device, which is plain memory, little endian.
	KILLABLE_MEMORY = 1 << 15,
	/// Most requests that a child reads at once.
	KILLABLE_BATCH = 64
};

/// How a child is to go about it.
struct killable_order {
	/// Requests that it reads at once, 1 to KILLABLE_BATCH.
	uint32_t batch;
	/// Replies that it writes at once, 1 to KILLABLE_BATCH; in the order of the requests.
	uint32_t replies;
	/// Microseconds that it waits before it replies to what it has read and carried out.
	uint32_t pause;
};

/// Outlives the children: what the present one has done, and the device's memory.  What follows in the file are
/// KILLABLE_REQUESTS of struct kvm_user_request.
struct killable_record {
	/// Requests recorded since the child began; each is recorded before it is carried out.
	uint32_t recorded;
	/// How many of them, from the first on, write(2) has accepted replies to; there may be more.
	uint32_t replied;
	uint8_t memory[KILLABLE_MEMORY];
};

/// How many requests the child has recorded so far, while it runs.
static inline uint32_t killable_recorded(const struct killable_record *record)
{
	return __atomic_load_n(&record->recorded, __ATOMIC_ACQUIRE);
}

#endif
