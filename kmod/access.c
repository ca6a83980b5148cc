// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's access, from KVM's bus to the emulation process and back: what is
 * queued, who waits for what, and how a wait ends.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/poll.h>
#include <linux/ratelimit.h>

#include "device.h"
#include "glue.h"
#include "trace.h"

#define KVM_USER_ALL_ONES_DATA	(~0ULL)

/**
 * kvm_user_wake_reader - wake a thread that waits for requests
 * @dev: the device; what the thread waits for has been done under queue.lock
 */
void kvm_user_wake_reader(struct kvm_user_device *dev)
{
	if (wq_has_sleeper(&dev->readable))
		wake_up_interruptible_poll(&dev->readable, EPOLLIN | EPOLLRDNORM);
}

/* A store is in the queue: the vCPU may go on (O2), a load comes after it (O3). */
static void kvm_user_accepted(struct kvm_user_device *dev, const struct kvm_user_entry *entry)
{
	dev->counters[KVM_USER_REQUESTS]++;
	if (entry->request.type == KVM_USER_STORE) {
		dev->counters[KVM_USER_POSTED]++;
		kvm_user_score_store_posted(&dev->scores[entry->request.cpu]);
	}
	trace_kvm_user_queued(dev->id, &entry->request);
}

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
	dev->counters[KVM_USER_TIMEOUTS]++;
	/* A thread that waits in read, and may be sent something, is alive. */
	dev->stalled = !dev->nr_readers || dev->queue.nr_sent >= dev->queue.sent_limit;
	kvm_user_give_up(dev, cpu, access, -ETIME);
}

static void kvm_user_timed_out(struct kvm_user_device *dev, u32 cpu)
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
 * Sleeps until the access that kvm_user_access_await() noted is complete, or
 * given up, or interrupted.  The device stays: a vCPU in KVM_RUN keeps its VM,
 * and the VM it.
 *
 * Returns 0, or why it was not complete: -ETIME, -EINTR for a fatal signal, and
 * -ERESTARTSYS for another one, as @state permits.
 */
static int kvm_user_wait(struct kvm_user_device *dev, struct kvm_vcpu *vcpu,
			 unsigned int state)
{
	u32 cpu = vcpu->vcpu_idx;
	struct kvm_user_access *access = &dev->scores[cpu].running;
	bool late = false;
	int ret;

	kvm_user_leave_srcu(vcpu);
	ret = kvm_user_access_sleep(access, state);
	kvm_user_enter_srcu(vcpu);

	if (ret) {
		spin_lock(&dev->queue.lock);
		/* It may have come since. */
		if (access->wait_for == KVM_USER_NOTHING)
			ret = 0;
		else
			late = kvm_user_end_wait(dev, cpu, ret);
		spin_unlock(&dev->queue.lock);
	}
	if (late)
		kvm_user_timed_out(dev, cpu);
	trace_kvm_user_resumed(dev->id, cpu, ret);
	return ret;
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
 * A vCPU that makes a new access without KVM_DEV_USER_RESUME gave up the one that
 * is parked.  What follows that one in its instruction does not say so.
 */
static void kvm_user_unpark(const struct kvm_vcpu *vcpu,
			    const struct kvm_user_target *target)
{
	struct kvm_user_device *dev = target->dev;
	u32 cpu = vcpu->vcpu_idx;
	struct kvm_user_score *score = &dev->scores[cpu];

	/* Only this vCPU parks here. */
	if (!READ_ONCE(score->is_parked) ||
	    (target->bus == KVM_USER_BUS_MMIO && !kvm_user_first_piece(vcpu)))
		return;
	spin_lock(&dev->queue.lock);
	if (score->is_parked && score->parked.wait_for != KVM_USER_NOTHING)
		kvm_user_give_up(dev, cpu, &score->parked, -ECANCELED);
	WRITE_ONCE(score->is_parked, false);
	spin_unlock(&dev->queue.lock);
}

/* An access begins: however often it waits, it has one time limit. */
static void kvm_user_begin(const struct kvm_vcpu *vcpu, const struct kvm_user_target *target)
{
	struct kvm_user_access *access = &target->dev->scores[vcpu->vcpu_idx].running;

	kvm_user_unpark(vcpu, target);
	access->addr = target->addr;
	access->left = READ_ONCE(target->dev->timeout);
}

/* What becomes of a vCPU that made an access. */
enum kvm_user_course {
	KVM_USER_LOST,		/* nobody will ever answer it */
	KVM_USER_LEFT,		/* to the VMM */
	KVM_USER_GOES_ON,	/* a posted store */
	KVM_USER_SLEEPS,	/* until kvm_user_wait() returns */
};

static enum kvm_user_course
kvm_user_queue_up(struct kvm_user_device *dev, const struct kvm_user_request *request,
		  bool may_leave)
{
	struct kvm_user_access *access = &dev->scores[request->cpu].running;
	bool store = request->type == KVM_USER_STORE;
	struct kvm_user_entry *entry;

	lockdep_assert_held(&dev->queue.lock);

	if (!dev->open && dev->on_close != KVM_USER_ON_CLOSE_HOLD)
		return dev->on_close == KVM_USER_ON_CLOSE_EXIT && may_leave ?
		       KVM_USER_LEFT : KVM_USER_LOST;
	/* A stalled device still takes what it has space for: nobody waits. */
	if (dev->stalled && (!store || kvm_user_queue_full(&dev->queue)))
		return KVM_USER_LOST;
	entry = kvm_user_queue_add(&dev->queue, request);
	if (!entry)
		return KVM_USER_LOST;

	if (entry->state == KVM_USER_WAITING) {
		dev->counters[KVM_USER_SPACE_WAITS]++;
		kvm_user_access_await(access, KVM_USER_SPACE, entry);
		return KVM_USER_SLEEPS;
	}
	kvm_user_accepted(dev, entry);
	if (store)
		return KVM_USER_GOES_ON;
	kvm_user_access_await(access, KVM_USER_REPLY, entry);
	return KVM_USER_SLEEPS;
}

static struct kvm_user_request kvm_user_request(const struct kvm_vcpu *vcpu,
						const struct kvm_user_target *target,
						u32 type, int len)
{
	return (struct kvm_user_request) {
		.type = type,
		.range_id = target->range_id,
		.offset = target->offset,
		.len = len,
		.cpu = vcpu->vcpu_idx,
	};
}

/*
 * Sends a request on its way and waits if it has to.  A signal parks it: KVM then
 * goes on as if it were done, and makes an exit of @val.  Unless it @may_leave, it
 * is lost where it would have been left to the VMM.
 */
static enum kvm_user_course kvm_user_forward(struct kvm_vcpu *vcpu,
					     const struct kvm_user_target *target,
					     const struct kvm_user_request *request,
					     void *val, bool may_leave)
{
	struct kvm_user_device *dev = target->dev;
	bool store = request->type == KVM_USER_STORE;
	enum kvm_user_course course;
	bool readable;

	spin_lock(&dev->queue.lock);
	course = kvm_user_queue_up(dev, request, may_leave);
	if (course == KVM_USER_LOST)
		dev->counters[store ? KVM_USER_DROPPED : KVM_USER_ALL_ONES]++;
	else if (course == KVM_USER_LEFT)
		dev->counters[KVM_USER_EXITS]++;
	readable = kvm_user_queue_readable(&dev->queue);
	spin_unlock(&dev->queue.lock);

	if (readable)
		kvm_user_wake_reader(dev);
	if (course == KVM_USER_SLEEPS &&
	    kvm_user_wait(dev, vcpu, kvm_user_sleep_state(vcpu, target, request->len, store)) ==
	    -ERESTARTSYS)
		kvm_user_park(vcpu, target->addr, request->len, val);
	return course;
}

/*
 * Waits for the vCPU's stores, as the shadow image may answer only after them.
 * Returns as kvm_user_wait() does.
 */
static int kvm_user_await_stores(struct kvm_vcpu *vcpu,
				 const struct kvm_user_target *target, int len)
{
	struct kvm_user_device *dev = target->dev;
	struct kvm_user_score *score = &dev->scores[vcpu->vcpu_idx];
	bool lost = false, done;

	spin_lock(&dev->queue.lock);
	done = kvm_user_score_stores_done(score);
	if (!done && dev->stalled) {
		lost = true;
		dev->counters[KVM_USER_ALL_ONES]++;
	} else if (!done) {
		kvm_user_access_await(&score->running, KVM_USER_SHADOW, NULL);
	}
	spin_unlock(&dev->queue.lock);

	if (done)
		return 0;
	if (lost)
		return -ETIME;
	return kvm_user_wait(dev, vcpu, kvm_user_sleep_state(vcpu, target, len, false));
}

/* Answers a load from the shadow image; false if it is to be forwarded, @waited or not. */
static bool kvm_user_shadow_load(struct kvm_vcpu *vcpu, const struct kvm_user_target *target,
				 int len, u64 *data, bool *waited)
{
	struct kvm_user_device *dev = target->dev;
	struct kvm_user_score *score = &dev->scores[vcpu->vcpu_idx];
	int ret;

	if (!kvm_user_score_stores_done(score)) {
		if (!kvm_user_shadow_covers(&dev->shadow, target->range_id,
					    target->offset, len))
			return false;
		*waited = true;
		ret = kvm_user_await_stores(vcpu, target, len);
		/* A load that can be parked has to be a request. */
		if (ret == -ERESTARTSYS)
			return false;
		if (ret) {
			*data = KVM_USER_ALL_ONES_DATA;
			return true;
		}
	}
	if (!kvm_user_shadow_read(&dev->shadow, target->range_id, target->offset, len, data))
		return false;
	WRITE_ONCE(score->shadow_hits, score->shadow_hits + 1);
	trace_kvm_user_shadow_load(dev->id, vcpu->vcpu_idx, target->range_id,
				   target->offset, len, *data);
	return true;
}

/**
 * kvm_user_load - a guest loads from a device
 * @vcpu: the current vCPU, in its section of kvm->srcu
 * @target: what it loads from
 * @len: 1 to 8 bytes
 * @val: gets them: the image's, the reply's, or all-ones if there will be none
 *
 * Return: 0, or -EOPNOTSUPP if the VMM is to answer, before anything was done.
 */
int kvm_user_load(struct kvm_vcpu *vcpu, const struct kvm_user_target *target, int len,
		  void *val)
{
	struct kvm_user_request request =
		kvm_user_request(vcpu, target, KVM_USER_LOAD, len);
	bool waited = false;
	u64 data;

	kvm_user_begin(vcpu, target);
	if (!kvm_user_shadow_load(vcpu, target, len, &data, &waited)) {
		/* A wait has left kvm->srcu: KVM's bus may not be walked further (B1). */
		switch (kvm_user_forward(vcpu, target, &request, val, !waited)) {
		case KVM_USER_LEFT:
			return -EOPNOTSUPP;
		case KVM_USER_SLEEPS:
			data = target->dev->scores[request.cpu].running.data;
			break;
		default:
			data = KVM_USER_ALL_ONES_DATA;
		}
	}
	memcpy(val, &data, len);
	return 0;
}

/**
 * kvm_user_store - a guest stores to a device
 * @vcpu: the current vCPU, in its section of kvm->srcu
 * @target: what it stores to
 * @len: 1 to 8 bytes
 * @val: the bytes
 *
 * Return: 0 once the store is queued (O2) or dropped, or -EOPNOTSUPP as above.
 */
int kvm_user_store(struct kvm_vcpu *vcpu, const struct kvm_user_target *target, int len,
		   const void *val)
{
	struct kvm_user_request request =
		kvm_user_request(vcpu, target, KVM_USER_STORE, len);

	kvm_user_begin(vcpu, target);
	memcpy(&request.data, val, len);
	/* KVM's fragment has no const; of a store it is only read. */
	return kvm_user_forward(vcpu, target, &request, (void *)val, true) == KVM_USER_LEFT ?
	       -EOPNOTSUPP : 0;
}

/* The wait of a KVM_DEV_USER_RESUME is over; the access may not be. */
static int kvm_user_resumed(struct kvm_user_device *dev, u32 cpu, int ret)
{
	struct kvm_user_score *score = &dev->scores[cpu];

	lockdep_assert_held(&dev->queue.lock);

	score->resuming = false;
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

	spin_lock(&dev->queue.lock);
	if (!score->is_parked || score->parked.addr != addr)
		ret = -ENOENT;
	else if (score->resuming)
		ret = -EBUSY;
	else if (score->parked.wait_for != KVM_USER_NOTHING && kvm_user_exit_wanted(vcpu))
		ret = -EINTR;
	else
		score->resuming = true;
	/* A process that hangs has cost its one time limit (B3). */
	if (!ret && dev->stalled && score->parked.wait_for != KVM_USER_NOTHING)
		kvm_user_give_up(dev, cpu, &score->parked, -ETIME);
	spin_unlock(&dev->queue.lock);
	if (ret)
		return ret;

	ret = kvm_user_access_sleep(&score->parked, TASK_INTERRUPTIBLE);

	spin_lock(&dev->queue.lock);
	ret = kvm_user_resumed(dev, cpu, ret);
	*data = score->parked.data;
	spin_unlock(&dev->queue.lock);

	trace_kvm_user_resumed(dev->id, cpu, ret);
	if (ret == -ETIME) {
		kvm_user_timed_out(dev, cpu);
		ret = 0;
	}
	return ret;
}

/**
 * kvm_user_admit - accept waiting stores, in order, while there is space
 * @dev: the device, with queue.lock held
 */
void kvm_user_admit(struct kvm_user_device *dev)
{
	struct kvm_user_entry *entry;

	while ((entry = kvm_user_queue_admit(&dev->queue))) {
		struct kvm_user_score *score = &dev->scores[entry->request.cpu];

		kvm_user_accepted(dev, entry);
		kvm_user_access_finish(kvm_user_score_access(score, entry), 0);
	}
}

/**
 * kvm_user_reply - complete the request that a reply names
 * @dev: the device, with queue.lock held
 * @reply: as user space wrote it
 *
 * Return: 0; -EINVAL if it answers no request that was sent; -ESTALE if the
 * vCPU does not wait for it any more.  An error changes nothing.
 */
int kvm_user_reply(struct kvm_user_device *dev, const struct kvm_user_request *reply)
{
	struct kvm_user_entry *entry = kvm_user_queue_match(&dev->queue, reply);
	struct kvm_user_score *score;

	if (!entry)
		return -EINVAL;
	if (entry->state == KVM_USER_RETIRED)
		return -ESTALE;

	trace_kvm_user_replied(dev->id, reply, 0);
	score = &dev->scores[entry->request.cpu];
	if (reply->type == KVM_USER_LOAD)
		kvm_user_score_load_done(score, entry, reply->data);
	else
		kvm_user_score_store_done(score);
	kvm_user_queue_done(&dev->queue, entry);
	return 0;
}

/**
 * kvm_user_reject - user space is told that kvm_user_reply() failed
 * @dev: the device, with queue.lock held
 * @reply: as user space wrote it
 * @error: what it is told
 *
 * With -ESTALE the reply has come, and the request leaves the sent queue.
 */
void kvm_user_reject(struct kvm_user_device *dev, const struct kvm_user_request *reply,
		     int error)
{
	struct kvm_user_entry *entry = kvm_user_queue_match(&dev->queue, reply);

	trace_kvm_user_replied(dev->id, reply, error);
	dev->counters[error == -ESTALE ? KVM_USER_LATE : KVM_USER_INVALID]++;
	if (error == -ESTALE && entry)
		kvm_user_queue_done(&dev->queue, entry);
}

/**
 * kvm_user_abort - complete every request, since nobody is left to reply
 * @dev: the device, with queue.lock held
 *
 * Stores are dropped and loads give all-ones, as from a device pulled out.
 *
 * Return: how many.
 */
u32 kvm_user_abort(struct kvm_user_device *dev)
{
	struct kvm_user_entry *entry;
	u32 count = 0;

	while ((entry = kvm_user_queue_any(&dev->queue))) {
		struct kvm_user_score *score = &dev->scores[entry->request.cpu];
		bool load = entry->request.type == KVM_USER_LOAD;

		if (entry->state != KVM_USER_RETIRED) {
			count++;
			dev->counters[load ? KVM_USER_ALL_ONES : KVM_USER_DROPPED]++;
			if (load || entry->state == KVM_USER_WAITING)
				kvm_user_access_finish(kvm_user_score_access(score, entry),
						       KVM_USER_ALL_ONES_DATA);
			else
				kvm_user_score_store_done(score);
		}
		kvm_user_queue_done(&dev->queue, entry);
	}
	return count;
}
