/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What each vCPU of a device has outstanding and what it sleeps for.
 *
 * A score changes under the queue's lock.  One task at a time sleeps on an
 * access, and reads @data without the lock once @wait_for is KVM_USER_NOTHING:
 * its vCPU on @running, a KVM_DEV_USER_RESUME on @parked.
 */
#ifndef KVM_USER_SCOREBOARD_H
#define KVM_USER_SCOREBOARD_H

#include <linux/cache.h>
#include <linux/rcuwait.h>

#include "queue.h"

enum kvm_user_wait {
	KVM_USER_NOTHING,	/* complete, or never begun */
	KVM_USER_SPACE,		/* @entry, a store, has no space in the queue */
	KVM_USER_REPLY,		/* @entry, a load, has no reply */
	KVM_USER_STORES,	/* the load has its reply, older stores have not */
	KVM_USER_SHADOW,	/* as above, and the image will give the value */
};

struct kvm_user_access {
	struct rcuwait sleeper;
	struct kvm_user_entry *entry;
	u64 addr;		/* guest physical, for whoever resumes it */
	u64 data;		/* what the load gave */
	u64 longest;		/* wait so far, in ns; the sleeper's own, as is ... */
	long left;		/* ... how many jiffies it may still wait */
	u64 spin;		/* how long it may wait awake, in ns; the sleeper's own */
	enum kvm_user_wait wait_for;
};

struct kvm_user_score {
	struct kvm_user_access running;	/* what KVM_RUN waits for */
	struct kvm_user_access parked;	/* what a signal took out of KVM_RUN (B4) */
	u64 shadow_hits;		/* its vCPU's own, no lock */
	u32 posted;			/* stores accepted and not yet replied to */
	bool is_parked;			/* @parked is not resumed yet */
	bool resuming;			/* a task sleeps on @parked */
} ____cacheline_aligned_in_smp;

void kvm_user_score_init(struct kvm_user_score *score);
struct kvm_user_access *kvm_user_score_access(struct kvm_user_score *score,
					      const struct kvm_user_entry *entry);
void kvm_user_score_store_posted(struct kvm_user_score *score);
void kvm_user_score_store_done(struct kvm_user_score *score);
bool kvm_user_score_stores_done(const struct kvm_user_score *score);
void kvm_user_score_load_done(struct kvm_user_score *score,
			      const struct kvm_user_entry *entry, u64 data);
void kvm_user_score_park(struct kvm_user_score *score);

void kvm_user_access_await(struct kvm_user_access *access, enum kvm_user_wait what,
			   struct kvm_user_entry *entry);
void kvm_user_access_finish(struct kvm_user_access *access, u64 data);
int kvm_user_access_sleep(struct kvm_user_access *access, unsigned int state);

#endif /* KVM_USER_SCOREBOARD_H */
