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

/* Gives up what the vCPU waits for. */
static void kvm_user_give_up(struct kvm_user_device *dev, u32 cpu, int reason)
{
	struct kvm_user_score *score = &dev->scores[cpu];
	bool store = score->wait_for == KVM_USER_SPACE;

	lockdep_assert_held(&dev->queue.lock);

	trace_kvm_user_retired(dev->id, cpu, score, reason);
	dev->counters[store ? KVM_USER_DROPPED : KVM_USER_ALL_ONES]++;
	dev->counters[reason == -ETIME ? KVM_USER_TIMEOUTS : KVM_USER_KILLED]++;
	/* A thread that waits in read, and may be sent something, is alive. */
	if (reason == -ETIME)
		dev->stalled = !dev->nr_readers || dev->queue.nr_sent >= dev->queue.depth;
	if (score->entry)
		kvm_user_queue_retire(&dev->queue, score->entry);
	kvm_user_score_release(score, KVM_USER_ALL_ONES_DATA);
}

/*
 * Sleeps until the access that kvm_user_score_await() noted is complete, or
 * given up.  The device stays: a vCPU in KVM_RUN keeps its VM, and the VM it.
 */
static void kvm_user_wait(struct kvm_user_device *dev, struct kvm_vcpu *vcpu)
{
	u32 cpu = vcpu->vcpu_idx;
	struct kvm_user_score *score = &dev->scores[cpu];
	bool late = false;
	int ret;

	kvm_user_leave_srcu(vcpu);
	ret = kvm_user_score_sleep(score, READ_ONCE(dev->timeout));
	kvm_user_enter_srcu(vcpu);

	if (ret) {
		spin_lock(&dev->queue.lock);
		/* It may have come since. */
		if (score->wait_for != KVM_USER_NOTHING) {
			kvm_user_give_up(dev, cpu, ret);
			late = ret == -ETIME;
		}
		spin_unlock(&dev->queue.lock);
	}
	if (late) {
		pr_warn_ratelimited("device %u: vCPU %u timed out, no reply in time\n",
				    dev->id, cpu);
		/* One that waits in poll gets the chance to say so. */
		kvm_user_wake_reader(dev);
	}
	trace_kvm_user_resumed(dev->id, cpu, ret);
}

static struct kvm_user_request
kvm_user_request(struct kvm_vcpu *vcpu, u32 type, u32 range_id, u64 offset, int len)
{
	return (struct kvm_user_request) {
		.type = type,
		.range_id = range_id,
		.offset = offset,
		.len = len,
		.cpu = vcpu->vcpu_idx,
	};
}

/* What becomes of a vCPU that made an access. */
enum kvm_user_course {
	KVM_USER_LOST,		/* nobody will ever answer it */
	KVM_USER_GOES_ON,	/* a posted store */
	KVM_USER_SLEEPS,	/* until kvm_user_wait() returns */
};

static enum kvm_user_course
kvm_user_queue_up(struct kvm_user_device *dev, const struct kvm_user_request *request)
{
	struct kvm_user_score *score = &dev->scores[request->cpu];
	bool store = request->type == KVM_USER_STORE;
	struct kvm_user_entry *entry;

	lockdep_assert_held(&dev->queue.lock);

	/* A stalled device still takes what it has space for: nobody waits. */
	if (!dev->open ||
	    (dev->stalled && (!store || kvm_user_queue_full(&dev->queue))))
		return KVM_USER_LOST;
	entry = kvm_user_queue_add(&dev->queue, request);
	if (!entry)
		return KVM_USER_LOST;

	if (entry->state == KVM_USER_WAITING) {
		dev->counters[KVM_USER_SPACE_WAITS]++;
		kvm_user_score_await(score, KVM_USER_SPACE, entry);
		return KVM_USER_SLEEPS;
	}
	dev->counters[KVM_USER_REQUESTS]++;
	trace_kvm_user_queued(dev->id, &entry->request);
	if (store) {
		dev->counters[KVM_USER_POSTED]++;
		score->posted++;
		return KVM_USER_GOES_ON;
	}
	kvm_user_score_await(score, KVM_USER_REPLY, entry);
	return KVM_USER_SLEEPS;
}

/* Sends a request on its way and waits if it has to; false if it is lost. */
static bool kvm_user_forward(struct kvm_user_device *dev, struct kvm_vcpu *vcpu,
			     const struct kvm_user_request *request)
{
	bool store = request->type == KVM_USER_STORE;
	enum kvm_user_course course;
	bool readable;

	spin_lock(&dev->queue.lock);
	course = kvm_user_queue_up(dev, request);
	if (course == KVM_USER_LOST)
		dev->counters[store ? KVM_USER_DROPPED : KVM_USER_ALL_ONES]++;
	readable = kvm_user_queue_readable(&dev->queue);
	spin_unlock(&dev->queue.lock);

	if (readable)
		kvm_user_wake_reader(dev);
	if (course == KVM_USER_SLEEPS)
		kvm_user_wait(dev, vcpu);
	return course != KVM_USER_LOST;
}

/**
 * kvm_user_load - a guest loads from a device
 * @dev: the device
 * @vcpu: the current vCPU, in its section of kvm->srcu
 * @range_id: the range that answers
 * @offset: in that range
 * @len: 1 to 8 bytes
 * @val: gets them: the reply's, or all-ones if there will be none
 */
void kvm_user_load(struct kvm_user_device *dev, struct kvm_vcpu *vcpu, u32 range_id,
		   u64 offset, int len, void *val)
{
	struct kvm_user_request request =
		kvm_user_request(vcpu, KVM_USER_LOAD, range_id, offset, len);

	if (kvm_user_forward(dev, vcpu, &request))
		memcpy(val, &dev->scores[request.cpu].data, len);
	else
		memset(val, 0xff, len);
}

/**
 * kvm_user_store - a guest stores to a device
 * @dev: the device
 * @vcpu: the current vCPU, in its section of kvm->srcu
 * @range_id: the range that answers
 * @offset: in that range
 * @len: 1 to 8 bytes
 * @val: the bytes
 *
 * Returns once the store is queued (O2) or dropped.
 */
void kvm_user_store(struct kvm_user_device *dev, struct kvm_vcpu *vcpu, u32 range_id,
		    u64 offset, int len, const void *val)
{
	struct kvm_user_request request =
		kvm_user_request(vcpu, KVM_USER_STORE, range_id, offset, len);

	memcpy(&request.data, val, len);
	kvm_user_forward(dev, vcpu, &request);
}

/**
 * kvm_user_admit - accept waiting stores, in order, while there is space
 * @dev: the device, with queue.lock held
 */
void kvm_user_admit(struct kvm_user_device *dev)
{
	struct kvm_user_entry *entry;

	while ((entry = kvm_user_queue_admit(&dev->queue))) {
		dev->counters[KVM_USER_REQUESTS]++;
		dev->counters[KVM_USER_POSTED]++;
		trace_kvm_user_queued(dev->id, &entry->request);
		kvm_user_score_admitted(&dev->scores[entry->request.cpu]);
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
	kvm_user_queue_done(&dev->queue, entry);
	if (reply->type == KVM_USER_LOAD)
		kvm_user_score_load_done(score, reply->data);
	else
		kvm_user_score_store_done(score);
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
 */
void kvm_user_abort(struct kvm_user_device *dev)
{
	struct kvm_user_entry entry;

	while (kvm_user_queue_evict(&dev->queue, &entry)) {
		struct kvm_user_score *score = &dev->scores[entry.request.cpu];
		bool load = entry.request.type == KVM_USER_LOAD;

		if (entry.state == KVM_USER_RETIRED)
			continue;
		dev->counters[load ? KVM_USER_ALL_ONES : KVM_USER_DROPPED]++;
		if (load || entry.state == KVM_USER_WAITING)
			kvm_user_score_release(score, KVM_USER_ALL_ONES_DATA);
		else
			kvm_user_score_store_done(score);
	}
}
