// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's access, from KVM's bus to the emulation process and back: what is
 * queued, what answers it, what is done with a reply.
 */
#include "device.h"
#include "glue.h"
#include "trace.h"

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

/* An access begins: however often it waits, it has one time limit. */
static void kvm_user_begin(const struct kvm_vcpu *vcpu, const struct kvm_user_target *target)
{
	struct kvm_user_access *access = &target->dev->scores[vcpu->vcpu_idx].running;

	/* Only this vCPU parks here. */
	if (READ_ONCE(target->dev->scores[vcpu->vcpu_idx].is_parked))
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
	kvm_user_ring_look(dev);
	course = kvm_user_queue_up(dev, request, may_leave);
	if (course == KVM_USER_LOST)
		dev->counters[store ? KVM_USER_DROPPED : KVM_USER_ALL_ONES]++;
	else if (course == KVM_USER_LEFT)
		dev->counters[KVM_USER_EXITS]++;
	if (dev->ring.active)
		kvm_user_ring_fill(dev);
	readable = kvm_user_ready(dev) &&
		   !(course == KVM_USER_GOES_ON && dev->coalesce_stores &&
		     kvm_user_hold_back(dev));
	spin_unlock(&dev->queue.lock);

	if (readable)
		kvm_user_wake_reader(dev);
	if (course == KVM_USER_SLEEPS &&
	    kvm_user_wait(vcpu, target, request->len, store) == -ERESTARTSYS)
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
	kvm_user_ring_look(dev);
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
	/* For stores that are held back. */
	kvm_user_wake_reader(dev);
	return kvm_user_wait(vcpu, target, len, false);
}

/* Answers a load from the shadow image; false if it is to be forwarded, @waited or not. */
static bool kvm_user_shadow_load(struct kvm_vcpu *vcpu, const struct kvm_user_target *target,
				 int len, u64 *data, bool *waited)
{
	struct kvm_user_device *dev = target->dev;
	struct kvm_user_score *score = &dev->scores[vcpu->vcpu_idx];
	int ret;

	if (!rcu_access_pointer(dev->shadow.map))
		return false;
	for (;;) {
		/* Before the read: what the process wrote before its replies is seen. */
		bool done = kvm_user_score_stores_done(score);

		if (!kvm_user_shadow_read(&dev->shadow, target->range_id,
					  target->offset, len, data))
			return false;
		if (done)
			break;
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
	WRITE_ONCE(score->shadow_hits, score->shadow_hits + 1);
	trace_kvm_user_shadow_load(dev->id, vcpu->vcpu_idx, target->range_id,
				   target->offset, len, *data);
	return true;
}

/* Has the emulation process answer a load; false if the VMM is to. */
static bool kvm_user_forward_load(struct kvm_vcpu *vcpu,
				  const struct kvm_user_target *target, int len, void *val,
				  u64 *data, bool may_leave)
{
	struct kvm_user_request request =
		kvm_user_request(vcpu, target, KVM_USER_LOAD, len);

	switch (kvm_user_forward(vcpu, target, &request, val, may_leave)) {
	case KVM_USER_LEFT:
		return false;
	case KVM_USER_SLEEPS:
		*data = target->dev->scores[request.cpu].running.data;
		return true;
	default:
		*data = KVM_USER_ALL_ONES_DATA;
		return true;
	}
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
	bool waited = false;
	u64 data;

	kvm_user_begin(vcpu, target);
	/* A wait has left kvm->srcu: KVM's bus may not be walked further (B1). */
	if (!kvm_user_shadow_load(vcpu, target, len, &data, &waited) &&
	    !kvm_user_forward_load(vcpu, target, len, val, &data, !waited))
		return -EOPNOTSUPP;
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

/*
 * Acknowledges the stores that were sent before a request.  Of the others in the list
 * there are two for a vCPU at most: what is retired is elsewhere.
 */
static void kvm_user_acknowledge_read_before(struct kvm_user_device *dev,
					     const struct kvm_user_entry *end)
{
	struct kvm_user_entry *entry, *next;

	list_for_each_entry_safe(entry, next, &dev->queue.sent, node) {
		if (entry->order >= end->order)
			break;
		if (entry->request.type != KVM_USER_STORE)
			continue;
		trace_kvm_user_replied(dev->id, &entry->request, 0);
		kvm_user_score_store_done(&dev->scores[entry->request.cpu]);
		kvm_user_queue_done(&dev->queue, entry);
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

	if (reply->flags & KVM_USER_REPLY_CUMULATIVE)
		kvm_user_acknowledge_read_before(dev, entry);
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
	if (error != -ESTALE || !entry)
		return;
	if (reply->flags & KVM_USER_REPLY_CUMULATIVE)
		kvm_user_acknowledge_read_before(dev, entry);
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
