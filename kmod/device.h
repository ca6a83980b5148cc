/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One KVM_DEV_TYPE_USER device, and what its parts call of each other.
 *
 * Lock order, outermost first:
 *
 *	kvm->lock			create
 *	vcpu->mutex			a guest's access
 *	    kvm->srcu (read)		left while asleep (B1)
 *	kvm->slots_lock			@ranges
 *	    kvm->srcu (synchronize)	in KVM's bus functions
 *	read_mutex			batches go out in order; user memory is
 *					touched under it
 *	    mmap_lock			a fault on that memory, and mmap
 *		ring.lock		the ring's memory
 *		shadow.lock		the image, changes of its map
 *		    RCU (synchronize)	until no load uses the old map
 *	    queue.lock			all else; nothing sleeps under it
 *		readable.lock, rq->lock	wake-ups
 *		hrtimer's base lock	coalesce_timer, whose handler takes
 *					readable.lock alone
 *
 * Lifetime: the KVM device holds a reference from create to destroy, which is
 * when the VM goes; the emulation file holds another.  Neither a vCPU in
 * KVM_RUN nor a placement on KVM's bus needs one: both are gone before destroy.
 */
#ifndef KVM_USER_DEVICE_H
#define KVM_USER_DEVICE_H

#include <linux/hrtimer.h>
#include <linux/kref.h>
#include <linux/kvm_host.h>
#include <linux/mutex.h>
#include <linux/rcuwait.h>
#include <linux/wait.h>

#include "queue.h"
#include "ring.h"
#include "scoreboard.h"
#include "shadow.h"

#define KVM_USER_MAX_RANGES	64

#define KVM_USER_ALL_ONES_DATA	(~0ULL)

/* Requests that are taken at a time. */
#define KVM_USER_BATCH		16

#define KVM_USER_MIN_DEPTH	1
#define KVM_USER_MAX_DEPTH	4096

enum kvm_user_counter {
	KVM_USER_REQUESTS,	/* accepted, loads and stores */
	KVM_USER_POSTED,	/* stores accepted */
	KVM_USER_SPACE_WAITS,	/* stores that waited for space */
	KVM_USER_TIMEOUTS,	/* waits that the time limit ended */
	KVM_USER_KILLED,	/* waits that a fatal signal ended */
	KVM_USER_PARKED,	/* waits that another signal ended */
	KVM_USER_LATE,		/* replies to a retired request */
	KVM_USER_INVALID,	/* replies to no request that was sent */
	KVM_USER_ALL_ONES,	/* loads that the emulation process did not answer */
	KVM_USER_DROPPED,	/* stores that it never acknowledged */
	KVM_USER_REDELIVERED,	/* requests pending anew after a close */
	KVM_USER_EXITS,		/* accesses left to the VMM */
	KVM_USER_NR_COUNTERS
};

struct kvm_user_placement;

struct kvm_user_device {
	struct kref ref;
	u32 id;
	long timeout;			/* jiffies; one word, no lock */
	bool park;			/* the VMM opted in (B4); no lock */

	/* under kvm->slots_lock */
	struct kvm_user_placement *ranges[KVM_USER_MAX_RANGES];

	struct mutex read_mutex;	/* one reader at a time takes and copies */
	struct kvm_user_request batch[KVM_USER_BATCH];	/* what it copies */
	struct rcuwait reader;		/* of the first thread that waits in read: ... */
	atomic_t reader_claimed;	/* ... cheaper to wake than the others and poll, ... */
	wait_queue_head_t readable;	/* ... who wait here */
	struct kvm_user_shadow shadow;	/* has its own lock */
	struct kvm_user_ring_state ring;
	atomic_t nr_readers;		/* threads that wait in read */
	atomic_t nr_sleepers;		/* vCPUs that do not look at the ring */
	u64 reader_spin;		/* how long a reader waits awake, in ns; no lock */

	/* under queue.lock */
	struct kvm_user_queue queue;
	struct kvm_user_score *scores;
	u32 nr_scores;
	u32 on_close;			/* what accesses get while there is no ... */
	bool open;			/* ... emulation descriptor */
	bool dead;			/* the VM is gone */
	bool stalled;			/* timed out, no sign of life since; read without */
	u32 coalesce_stores;		/* so many wake a reader, 0: each */
	u64 coalesce_ns;		/* or one that waited for so long */
	u64 counters[KVM_USER_NR_COUNTERS];

	struct hrtimer coalesce_timer;	/* wakes for stores that were held back */
	bool coalesce_armed;		/* set under queue.lock, cleared by the timer */

	struct dentry *debugfs;
};

/* Where an access goes: a copy, as the placement may go while it sleeps. */
struct kvm_user_target {
	struct kvm_user_device *dev;
	gpa_t addr;
	u64 offset;
	u32 range_id;
	u32 bus;
};

/* device.c */
extern const struct kvm_device_ops kvm_user_device_ops;
void kvm_user_device_put(struct kvm_user_device *dev);
int kvm_user_info(struct kvm_user_device *dev, void __user *arg);

/* range.c */
int kvm_user_range_set(struct kvm_user_device *dev, struct kvm *kvm,
		       const struct kvm_dev_user_pa_range *range);

/* access.c */
int kvm_user_load(struct kvm_vcpu *vcpu, const struct kvm_user_target *target, int len,
		  void *val);
int kvm_user_store(struct kvm_vcpu *vcpu, const struct kvm_user_target *target, int len,
		   const void *val);
void kvm_user_admit(struct kvm_user_device *dev);
int kvm_user_reply(struct kvm_user_device *dev, const struct kvm_user_request *reply);
void kvm_user_reject(struct kvm_user_device *dev, const struct kvm_user_request *reply,
		     int error);
u32 kvm_user_abort(struct kvm_user_device *dev);

/* wake.c */
void kvm_user_wake_init(struct kvm_user_device *dev);
void kvm_user_wake_reader(struct kvm_user_device *dev);
void kvm_user_wake_all(struct kvm_user_device *dev);
bool kvm_user_hold_back(struct kvm_user_device *dev);
int kvm_user_coalesce(struct kvm_user_device *dev, u64 ns, u32 stores);
void kvm_user_wake_reset(struct kvm_user_device *dev);

/* spin.c */
bool kvm_user_spin(struct kvm_user_device *dev, const struct kvm_user_access *access);
u64 kvm_user_spin_begin(void);
void kvm_user_spin_adapt(u64 *window, u64 begin);
bool kvm_user_spin_reader(struct kvm_user_device *dev);

/* wait.c */
int kvm_user_wait(struct kvm_vcpu *vcpu, const struct kvm_user_target *target, int len,
		  bool store);
void kvm_user_unpark(const struct kvm_vcpu *vcpu, const struct kvm_user_target *target);
int kvm_user_resume(struct kvm_user_device *dev, const struct kvm_vcpu *vcpu, u64 addr,
		    u64 *data);

/* emulation.c */
int kvm_user_wait_readable(struct kvm_user_device *dev, bool in_ring);
int kvm_user_emulation_fd(struct kvm_user_device *dev, u32 flags);

/* debugfs.c */
void kvm_user_debugfs_init(void);
void kvm_user_debugfs_exit(void);
void kvm_user_debugfs_add(struct kvm_user_device *dev);
void kvm_user_debugfs_remove(struct kvm_user_device *dev);

/**
 * kvm_user_ready - are there requests for a thread that waits?
 * @dev: the device; without queue.lock the answer is a guess
 *
 * Return: whether one can be given now, or was given in the ring and not taken.
 */
static inline bool kvm_user_ready(const struct kvm_user_device *dev)
{
	/* What is pending gets there under the lock.  After the VM's end nothing does. */
	if (READ_ONCE(dev->ring.active)) {
		if (kvm_user_ring_unread(dev))
			return true;
		if (!READ_ONCE(dev->dead))
			return false;
	}
	return kvm_user_queue_readable(&dev->queue);
}

/**
 * kvm_user_ring_look - kvm_user_ring_catch_up(), if there is a ring
 * @dev: the device, with queue.lock held
 */
static inline void kvm_user_ring_look(struct kvm_user_device *dev)
{
	if (dev->ring.active)
		kvm_user_ring_catch_up(dev);
}

#endif /* KVM_USER_DEVICE_H */
