// SPDX-License-Identifier: GPL-2.0
/*
 * Per-vCPU waits and counts of posted stores: see scoreboard.h.
 *
 * Everything but init and sleep runs under the queue's lock.
 */
#include <linux/sched/signal.h>

#include "scoreboard.h"

/*
 * Only a fatal signal ends a wait early, and it must not hold up a system
 * suspend.  "Unsafe" since KVM_RUN sleeps here with vcpu->mutex held, which no
 * other task needs for being frozen.
 */
#define KVM_USER_SLEEP	(TASK_KILLABLE | TASK_FREEZABLE_UNSAFE)

/**
 * kvm_user_score_init - a vCPU that has nothing outstanding
 * @score: zeroed memory
 */
void kvm_user_score_init(struct kvm_user_score *score)
{
	rcuwait_init(&score->sleeper);
}

/* Lets the vCPU run on. */
static void kvm_user_score_finish(struct kvm_user_score *score)
{
	score->entry = NULL;
	/* Publishes @data; pairs with the acquire in kvm_user_score_sleep(). */
	smp_store_release(&score->wait_for, KVM_USER_NOTHING);
	rcuwait_wake_up(&score->sleeper);
}

/**
 * kvm_user_score_await - note what the vCPU is about to sleep for
 * @score: of the vCPU, which waits for nothing
 * @what: KVM_USER_SPACE or KVM_USER_REPLY
 * @entry: the request that it is about
 */
void kvm_user_score_await(struct kvm_user_score *score, enum kvm_user_wait what,
			  struct kvm_user_entry *entry)
{
	score->entry = entry;
	WRITE_ONCE(score->wait_for, what);
}

/**
 * kvm_user_score_admitted - the store that waited for space is accepted
 * @score: of the vCPU
 */
void kvm_user_score_admitted(struct kvm_user_score *score)
{
	score->posted++;
	kvm_user_score_finish(score);
}

/**
 * kvm_user_score_store_done - an accepted store is replied to, or dropped
 * @score: of the vCPU
 */
void kvm_user_score_store_done(struct kvm_user_score *score)
{
	score->posted--;
	if (score->wait_for == KVM_USER_STORES && !score->posted)
		kvm_user_score_finish(score);
}

/**
 * kvm_user_score_load_done - the load that the vCPU waits for is replied to
 * @score: of the vCPU
 * @data: the value
 *
 * All stores that are outstanding are older than the load, since their vCPU
 * has been asleep since: it goes on when the last of them is done (O3).
 */
void kvm_user_score_load_done(struct kvm_user_score *score, u64 data)
{
	score->data = data;
	score->entry = NULL;
	if (score->posted)
		WRITE_ONCE(score->wait_for, KVM_USER_STORES);
	else
		kvm_user_score_finish(score);
}

/**
 * kvm_user_score_release - what the vCPU waits for will not come
 * @score: of a vCPU that waits for space or for a reply
 * @data: what a load gives instead
 */
void kvm_user_score_release(struct kvm_user_score *score, u64 data)
{
	score->data = data;
	kvm_user_score_finish(score);
}

/**
 * kvm_user_score_sleep - wait for what kvm_user_score_await() noted
 * @score: of the current vCPU
 * @timeout: in jiffies, MAX_SCHEDULE_TIMEOUT for none
 *
 * Return: 0 when it has come; -ETIME or -EINTR (a fatal signal) where the vCPU
 * gives up, though it may come at any moment until the queue's lock is held.
 */
int kvm_user_score_sleep(struct kvm_user_score *score, long timeout)
{
	int ret = 0;

	might_sleep();
	prepare_to_rcuwait(&score->sleeper);
	for (;;) {
		set_current_state(KVM_USER_SLEEP);
		/* pairs with the release in kvm_user_score_finish() */
		if (smp_load_acquire(&score->wait_for) == KVM_USER_NOTHING)
			break;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		if (!timeout) {
			ret = -ETIME;
			break;
		}
		timeout = schedule_timeout(timeout);
	}
	finish_rcuwait(&score->sleeper);
	return ret;
}
