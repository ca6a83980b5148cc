// SPDX-License-Identifier: GPL-2.0
/*
 * Per-vCPU waits and counts of posted stores: see scoreboard.h.
 *
 * Everything but init, sleep and stores_done runs under the queue's lock.
 */
#include <linux/ktime.h>
#include <linux/sched/signal.h>

#include "scoreboard.h"

/**
 * kvm_user_score_init - a vCPU that has nothing outstanding
 * @score: zeroed memory
 */
void kvm_user_score_init(struct kvm_user_score *score)
{
	rcuwait_init(&score->running.sleeper);
	rcuwait_init(&score->parked.sleeper);
}

/**
 * kvm_user_score_access - which access a request belongs to
 * @score: of the request's vCPU
 * @entry: a load, or a store that waits for space
 *
 * Return: the access that waits for @entry.
 */
struct kvm_user_access *kvm_user_score_access(struct kvm_user_score *score,
					      const struct kvm_user_entry *entry)
{
	return score->parked.entry == entry ? &score->parked : &score->running;
}

/**
 * kvm_user_access_await - note what is about to be slept for
 * @access: waits for nothing
 * @what: anything but KVM_USER_NOTHING
 * @entry: the request that it is about, if any
 */
void kvm_user_access_await(struct kvm_user_access *access, enum kvm_user_wait what,
			   struct kvm_user_entry *entry)
{
	access->entry = entry;
	WRITE_ONCE(access->wait_for, what);
}

/**
 * kvm_user_access_finish - what was slept for has come, or will not come
 * @access: waits for something
 * @data: what a load gives
 */
void kvm_user_access_finish(struct kvm_user_access *access, u64 data)
{
	access->data = data;
	access->entry = NULL;
	/* Publishes @data; pairs with the acquire in kvm_user_access_sleep(). */
	smp_store_release(&access->wait_for, KVM_USER_NOTHING);
	rcuwait_wake_up(&access->sleeper);
}

/**
 * kvm_user_score_store_posted - a store is accepted
 * @score: of its vCPU
 */
void kvm_user_score_store_posted(struct kvm_user_score *score)
{
	WRITE_ONCE(score->posted, score->posted + 1);
}

static void kvm_user_access_stores_done(struct kvm_user_access *access)
{
	if (access->wait_for == KVM_USER_STORES || access->wait_for == KVM_USER_SHADOW)
		kvm_user_access_finish(access, access->data);
}

/**
 * kvm_user_score_store_done - an accepted store is replied to, or dropped
 * @score: of its vCPU
 */
void kvm_user_score_store_done(struct kvm_user_score *score)
{
	/* What the process wrote before is seen; see the function below. */
	smp_store_release(&score->posted, score->posted - 1);
	if (score->posted)
		return;
	kvm_user_access_stores_done(&score->running);
	kvm_user_access_stores_done(&score->parked);
}

/**
 * kvm_user_score_stores_done - may a load read the shadow image now (O4)?
 * @score: of the current vCPU; no lock is needed, as only it adds stores
 *
 * Return: true once all its stores are replied to.
 */
bool kvm_user_score_stores_done(const struct kvm_user_score *score)
{
	/* pairs with the release in kvm_user_score_store_done() */
	return !smp_load_acquire(&score->posted);
}

/**
 * kvm_user_score_load_done - a load is replied to
 * @score: of its vCPU
 * @entry: its request
 * @data: the value
 *
 * All stores that are outstanding are older than the load, since their vCPU
 * has made no access since: it goes on when the last of them is done (O3).
 */
void kvm_user_score_load_done(struct kvm_user_score *score,
			      const struct kvm_user_entry *entry, u64 data)
{
	struct kvm_user_access *access = kvm_user_score_access(score, entry);

	if (!score->posted) {
		kvm_user_access_finish(access, data);
		return;
	}
	access->data = data;
	kvm_user_access_await(access, KVM_USER_STORES, NULL);
}

/**
 * kvm_user_score_park - what the vCPU waited for goes on without it (B4)
 * @score: of the vCPU, which waits for something and has nothing parked
 */
void kvm_user_score_park(struct kvm_user_score *score)
{
	score->parked.addr = score->running.addr;
	score->parked.data = score->running.data;
	score->parked.left = score->running.left;
	kvm_user_access_await(&score->parked, score->running.wait_for,
			      score->running.entry);
	WRITE_ONCE(score->is_parked, true);
	kvm_user_access_finish(&score->running, 0);
}

/**
 * kvm_user_access_sleep - wait for what kvm_user_access_await() noted
 * @access: on which no other task sleeps; @access->left has the time limit, or
 *	MAX_SCHEDULE_TIMEOUT, and keeps what is left of it
 * @state: TASK_KILLABLE, or TASK_INTERRUPTIBLE for any signal to end it
 *
 * A wait must not hold up a system suspend.  "Unsafe" since KVM_RUN sleeps here
 * with vcpu->mutex held: who wants that very vCPU is held up.
 *
 * Return: 0 when it has come; -ETIME, -EINTR (a fatal signal) or -ERESTARTSYS
 * (another one) if not, though it may come until the queue's lock is held.
 */
int kvm_user_access_sleep(struct kvm_user_access *access, unsigned int state)
{
	u64 start = ktime_get_ns();
	int ret = 0;

	might_sleep();
	prepare_to_rcuwait(&access->sleeper);
	for (;;) {
		set_current_state(state | TASK_FREEZABLE_UNSAFE);
		/* pairs with the release in kvm_user_access_finish() */
		if (smp_load_acquire(&access->wait_for) == KVM_USER_NOTHING)
			break;
		if (signal_pending_state(state, current)) {
			/* What is not to be parked was killed, seen so already or not. */
			ret = state == TASK_KILLABLE || fatal_signal_pending(current) ?
			      -EINTR : -ERESTARTSYS;
			break;
		}
		if (!access->left) {
			ret = -ETIME;
			break;
		}
		access->left = schedule_timeout(access->left);
	}
	finish_rcuwait(&access->sleeper);
	WRITE_ONCE(access->longest, max(access->longest, ktime_get_ns() - start));
	return ret;
}
