// SPDX-License-Identifier: GPL-2.0
/*
 * How an access waits and how that ends: by completion, by the time limit, by a
 * signal that kills or parks it, and what becomes of a parked one (B2 to B4).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/ratelimit.h>

#include "device.h"
#include "glue.h"
#include "trace.h"

/* Gives up what is waited for. */
static void kvm_user_give_up(struct kvm_user_device *dev, u32 cpu,
			     struct kvm_user_access *access, int reason)
{
	bool store = access->wait_for == KVM_USER_SPACE;

	lockdep_assert_held(&dev->queue.lock);

	trace_kvm_user_retired(dev->id, cpu, access, reason);
	dev->counters[store ? KVM_USER_DROPPED : KVM_USER_ALL_ONES]++;
	if (access->entry)
		kvm_user_queue_retire(&dev->queue, access->entry);
	kvm_user_access_finish(access, KVM_USER_ALL_ONES_DATA);
}

/* The same for the time limit. */
static void kvm_user_time_out(struct kvm_user_device *dev, u32 cpu,
			      struct kvm_user_access *access)
{
	/* A thread that waits in read, and may be sent something, is alive. */
	bool alive = atomic_read(&dev->nr_readers) &&
		     dev->queue.nr_sent < dev->queue.sent_limit;

	dev->counters[KVM_USER_TIMEOUTS]++;
	WRITE_ONCE(dev->stalled, !alive);
	kvm_user_give_up(dev, cpu, access, -ETIME);
}

static void kvm_user_report_late(struct kvm_user_device *dev, u32 cpu)
{
	pr_warn_ratelimited("device %u: vCPU %u timed out, no reply in time\n", dev->id, cpu);
	/* One that waits in poll gets the chance to say so. */
	kvm_user_wake_reader(dev);
}

/* A signal ended a wait that may be parked. */
static void kvm_user_interrupt(struct kvm_user_device *dev, u32 cpu)
{
	struct kvm_user_score *score = &dev->scores[cpu];

	/* No request: the load becomes one. */
	if (score->running.wait_for == KVM_USER_SHADOW) {
		kvm_user_access_finish(&score->running, 0);
		return;
	}
	trace_kvm_user_parked(dev->id, cpu, &score->running, -ERESTARTSYS);
	dev->counters[KVM_USER_PARKED]++;
	kvm_user_score_park(score);
}

/* Ends a wait that was not over; returns whether the time limit did. */
static bool kvm_user_end_wait(struct kvm_user_device *dev, u32 cpu, int reason)
{
	struct kvm_user_access *access = &dev->scores[cpu].running;

	if (reason == -ERESTARTSYS) {
		kvm_user_interrupt(dev, cpu);
		return false;
	}
	if (reason == -ETIME) {
		kvm_user_time_out(dev, cpu, access);
		return true;
	}
	dev->counters[KVM_USER_KILLED]++;
	kvm_user_give_up(dev, cpu, access, reason);
	return false;
}

/*
 * How an access may sleep: a signal ends the sleep if the access can be parked. That
 * takes a place where no RESUME sleeps any more, for what was parked there before.
 */
static unsigned int kvm_user_sleep_state(const struct kvm_vcpu *vcpu,
					 const struct kvm_user_target *target, int len,
					 bool store)
{
	const struct kvm_user_score *score = &target->dev->scores[vcpu->vcpu_idx];

	if (READ_ONCE(target->dev->park) && target->bus == KVM_USER_BUS_MMIO &&
	    !READ_ONCE(score->resuming) && kvm_user_may_park(vcpu, target->addr, len, store))
		return TASK_INTERRUPTIBLE;
	return TASK_KILLABLE;
}

/*
 * Whether it has come already, or does as the process that was woken takes this CPU:
 * that spares the sleep.  Such a wait is measured in ticks.
 */
static bool kvm_user_has_come(struct kvm_user_access *access)
{
	unsigned long start = jiffies;

	if (cond_resched() && time_after(jiffies, start))
		WRITE_ONCE(access->longest,
			   max(access->longest, jiffies_to_nsecs(jiffies - start)));
	/* pairs with the release in kvm_user_access_finish() */
	return smp_load_acquire(&access->wait_for) == KVM_USER_NOTHING;
}

/* As kvm_user_access_sleep(), but awake for a while, and minding the ring. */
static int kvm_user_sleep(struct kvm_user_device *dev, struct kvm_user_access *access,
			  unsigned int state)
{
	u64 begin;
	int ret;

	if (kvm_user_has_come(access) || kvm_user_spin(dev, access))
		return 0;
	begin = kvm_user_spin_begin();
	kvm_user_ring_sleep(dev);
	ret = kvm_user_access_sleep(access, state);
	/* What is waited for may lie in the ring, behind any number of others. */
	if (ret)
		kvm_user_ring_drain_all(dev);
	kvm_user_ring_wake(dev);
	kvm_user_spin_adapt(&access->spin, begin);
	return ret;
}

/**
 * kvm_user_wait - sleep until what kvm_user_access_await() noted has come
 * @vcpu: the current vCPU, in its section of kvm->srcu, which is left meanwhile
 * @target: of the access; a copy, since the placement may go
 * @len: bytes
 * @store: not a load
 *
 * The device stays: a vCPU in KVM_RUN keeps its VM, and the VM it.  A signal that
 * came before KVM_RUN is not pending any more: immediate_exit tells of it, at which
 * KVM looks only after the instruction that it goes on with.
 *
 * Return: 0, or why it has not come: -ETIME, -EINTR for a fatal signal, and
 * -ERESTARTSYS for another one, if the access can be parked.
 */
int kvm_user_wait(struct kvm_vcpu *vcpu, const struct kvm_user_target *target, int len,
		  bool store)
{
	struct kvm_user_device *dev = target->dev;
	u32 cpu = vcpu->vcpu_idx;
	struct kvm_user_access *access = &dev->scores[cpu].running;
	unsigned int state = kvm_user_sleep_state(vcpu, target, len, store);
	bool late = false;
	int ret;

	if (state == TASK_INTERRUPTIBLE && kvm_user_exit_wanted(vcpu)) {
		ret = -ERESTARTSYS;
	} else {
		kvm_user_leave_srcu(vcpu);
		ret = kvm_user_sleep(dev, access, state);
		kvm_user_enter_srcu(vcpu);
	}

	if (ret) {
		spin_lock(&dev->queue.lock);
		/* It may have come since, or lie in the ring: nobody enters for who is awake. */
		kvm_user_ring_look(dev);
		if (access->wait_for == KVM_USER_NOTHING)
			ret = 0;
		else
			late = kvm_user_end_wait(dev, cpu, ret);
		spin_unlock(&dev->queue.lock);
	}
	if (late)
		kvm_user_report_late(dev, cpu);
	trace_kvm_user_resumed(dev->id, cpu, ret);
	return ret;
}

/**
 * kvm_user_unpark - a vCPU makes a new access
 * @vcpu: the current vCPU
 * @target: of that access
 *
 * Without KVM_DEV_USER_RESUME it gave up the one that is parked.  What follows
 * that one in its instruction does not say so.
 */
void kvm_user_unpark(const struct kvm_vcpu *vcpu, const struct kvm_user_target *target)
{
	struct kvm_user_device *dev = target->dev;
	u32 cpu = vcpu->vcpu_idx;
	struct kvm_user_score *score = &dev->scores[cpu];

	if (target->bus == KVM_USER_BUS_MMIO && !kvm_user_first_piece(vcpu))
		return;
	spin_lock(&dev->queue.lock);
	if (score->is_parked && score->parked.wait_for != KVM_USER_NOTHING)
		kvm_user_give_up(dev, cpu, &score->parked, -ECANCELED);
	WRITE_ONCE(score->is_parked, false);
	spin_unlock(&dev->queue.lock);
}

/* The wait of a KVM_DEV_USER_RESUME is over; the access may not be. */
static int kvm_user_end_resume(struct kvm_user_device *dev, u32 cpu, int ret)
{
	struct kvm_user_score *score = &dev->scores[cpu];

	lockdep_assert_held(&dev->queue.lock);

	WRITE_ONCE(score->resuming, false);
	/* The vCPU was run meanwhile. */
	if (!score->is_parked)
		return -ENOENT;
	if (score->parked.wait_for != KVM_USER_NOTHING) {
		if (ret != -ETIME)
			return -EINTR;
		kvm_user_time_out(dev, cpu, &score->parked);
	} else {
		ret = 0;
	}
	WRITE_ONCE(score->is_parked, false);
	return ret;
}

/**
 * kvm_user_resume - wait for a parked access to complete (KVM_DEV_USER_RESUME)
 * @dev: the device
 * @vcpu: any of the VM's
 * @addr: where the access is that is meant
 * @data: gets what the load gave
 *
 * Return: 0, also if it timed out; -ENOENT: it is not parked, or the vCPU was run
 * meanwhile; -EBUSY: another task waits; -EINTR: a signal, or the VMM wants the
 * vCPU's thread, which would miss a signal that came before the sleep.
 */
int kvm_user_resume(struct kvm_user_device *dev, const struct kvm_vcpu *vcpu, u64 addr,
		    u64 *data)
{
	u32 cpu = vcpu->vcpu_idx;
	struct kvm_user_score *score = &dev->scores[cpu];
	int ret = 0;

	/* What was replied to in the ring is not to be given up. */
	if (READ_ONCE(dev->ring.active))
		kvm_user_ring_drain_all(dev);
	spin_lock(&dev->queue.lock);
	if (!score->is_parked || score->parked.addr != addr)
		ret = -ENOENT;
	else if (score->resuming)
		ret = -EBUSY;
	else if (score->parked.wait_for != KVM_USER_NOTHING && kvm_user_exit_wanted(vcpu))
		ret = -EINTR;
	else
		WRITE_ONCE(score->resuming, true);
	/* A process that hangs has cost its one time limit (B3). */
	if (!ret && dev->stalled && score->parked.wait_for != KVM_USER_NOTHING)
		kvm_user_give_up(dev, cpu, &score->parked, -ETIME);
	spin_unlock(&dev->queue.lock);
	if (ret)
		return ret;

	ret = kvm_user_sleep(dev, &score->parked, TASK_INTERRUPTIBLE);

	spin_lock(&dev->queue.lock);
	kvm_user_ring_look(dev);
	ret = kvm_user_end_resume(dev, cpu, ret);
	*data = score->parked.data;
	spin_unlock(&dev->queue.lock);

	trace_kvm_user_resumed(dev->id, cpu, ret);
	if (ret == -ETIME) {
		kvm_user_report_late(dev, cpu);
		ret = 0;
	}
	return ret;
}
