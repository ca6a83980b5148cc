/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What each vCPU of a device has outstanding and what it sleeps for.
 *
 * A score changes under the queue's lock.  Only its own vCPU sleeps on it, and
 * reads @data without the lock once @wait_for has become KVM_USER_NOTHING.
 */
#ifndef KVM_USER_SCOREBOARD_H
#define KVM_USER_SCOREBOARD_H

#include <linux/cache.h>
#include <linux/rcuwait.h>

#include "queue.h"

enum kvm_user_wait {
	KVM_USER_NOTHING,	/* runs, or may run on */
	KVM_USER_SPACE,		/* @entry, a store, has no space in the queue */
	KVM_USER_REPLY,		/* @entry, a load, has no reply */
	KVM_USER_STORES,	/* the load has its reply, older stores have not */
};

struct kvm_user_score {
	struct rcuwait sleeper;
	struct kvm_user_entry *entry;
	u64 data;		/* what the load gave */
	u32 posted;		/* stores accepted and not yet replied to */
	enum kvm_user_wait wait_for;
} ____cacheline_aligned_in_smp;

void kvm_user_score_init(struct kvm_user_score *score);
void kvm_user_score_await(struct kvm_user_score *score, enum kvm_user_wait what,
			  struct kvm_user_entry *entry);
void kvm_user_score_admitted(struct kvm_user_score *score);
void kvm_user_score_store_done(struct kvm_user_score *score);
void kvm_user_score_load_done(struct kvm_user_score *score, u64 data);
void kvm_user_score_release(struct kvm_user_score *score, u64 data);
int kvm_user_score_sleep(struct kvm_user_score *score, long timeout);

#endif /* KVM_USER_SCOREBOARD_H */
