// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting awake for a short while before sleeping, as KVM does for a halted vCPU:
 * where the other side runs on another CPU, it spares both a wake-up.
 */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>

#include "device.h"

/* What a window begins with once a wait was short. */
#define KVM_USER_SPIN_START	2000

static unsigned int spin_ns = 50000;
module_param(spin_ns, uint, 0644);
MODULE_PARM_DESC(spin_ns, "longest that a vCPU or a reader waits awake, 0: never");

static u64 kvm_user_spin_limit(void)
{
	return num_online_cpus() > 1 ? READ_ONCE(spin_ns) : 0;
}

/**
 * kvm_user_spin_begin - a wait goes on asleep
 *
 * Return: what kvm_user_spin_adapt() is to be given.
 */
u64 kvm_user_spin_begin(void)
{
	return kvm_user_spin_limit() ? ktime_get_ns() : 0;
}

/**
 * kvm_user_spin_adapt - learn from a sleep how long the next wait may be awake
 * @window: that length in ns; becomes longer if that would have spared the sleep, else 0
 * @begin: of the sleep, which is over
 */
void kvm_user_spin_adapt(u64 *window, u64 begin)
{
	u64 limit = kvm_user_spin_limit(), old = READ_ONCE(*window), wait;

	if (!begin || !limit) {
		if (old)
			WRITE_ONCE(*window, 0);
		return;
	}
	wait = ktime_get_ns() - begin + old;
	if (wait > limit)
		WRITE_ONCE(*window, 0);
	else
		WRITE_ONCE(*window, clamp_t(u64, 2 * old, min_t(u64, KVM_USER_SPIN_START, limit),
					    limit));
}

/* A time of waiting awake, which is over when another task wants this CPU. */
struct kvm_user_spinning {
	u64 window;
	u64 end;		/* 0: not looked at the clock yet */
	u32 rounds;
};

/* What is waited for mostly comes before the clock is looked at. */
#define KVM_USER_SPIN_ROUNDS	16

static bool kvm_user_spin_on(struct kvm_user_spinning *spinning)
{
	u64 now;

	cpu_relax();
	if (++spinning->rounds % KVM_USER_SPIN_ROUNDS)
		return true;
	if (need_resched() || signal_pending(current) || !single_task_running())
		return false;
	now = ktime_get_ns();
	if (!spinning->end)
		spinning->end = now + spinning->window;
	return now < spinning->end;
}

/* A vCPU that is awake looks at the ring, so that the process need not enter the kernel. */
static void kvm_user_spin_drain(struct kvm_user_device *dev)
{
	if (!kvm_user_ring_answered(dev))
		return;
	spin_lock(&dev->queue.lock);
	if (dev->ring.active)
		kvm_user_ring_drain(dev);
	spin_unlock(&dev->queue.lock);
}

/**
 * kvm_user_spin - wait awake for what kvm_user_access_await() noted
 * @dev: the device
 * @access: on which no other task sleeps
 *
 * Return: whether it has come.
 */
bool kvm_user_spin(struct kvm_user_device *dev, const struct kvm_user_access *access)
{
	struct kvm_user_spinning spinning = { .window = READ_ONCE(access->spin) };

	if (!spinning.window)
		return false;
	do {
		kvm_user_spin_drain(dev);
		/* pairs with the release in kvm_user_access_finish() */
		if (smp_load_acquire(&access->wait_for) == KVM_USER_NOTHING)
			return true;
	} while (kvm_user_spin_on(&spinning));
	return false;
}

/**
 * kvm_user_spin_reader - wait awake for a request
 * @dev: the device
 *
 * Return: whether one may have come.
 */
bool kvm_user_spin_reader(struct kvm_user_device *dev)
{
	struct kvm_user_spinning spinning = { .window = READ_ONCE(dev->reader_spin) };

	if (!spinning.window)
		return false;
	do {
		if (kvm_user_ready(dev) || READ_ONCE(dev->dead))
			return true;
	} while (kvm_user_spin_on(&spinning));
	return false;
}
