// SPDX-License-Identifier: GPL-2.0
/*
 * The ring: see ring.h.
 */
#include <linux/kvm_user.h>
#include <linux/log2.h>
#include <linux/mm.h>

#include "device.h"
#include "image.h"
#include "trace.h"

/* Replies looked at in one go under queue.lock. */
#define KVM_USER_RING_BATCH	64

/**
 * kvm_user_ring_init - a device without a ring
 * @dev: zeroed memory
 */
void kvm_user_ring_init(struct kvm_user_device *dev)
{
	mutex_init(&dev->ring.lock);
}

static u32 kvm_user_ring_entries(const struct kvm_user_device *dev)
{
	/* No more are sent and not replied to: what nothing later was replied to stays. */
	return roundup_pow_of_two(dev->queue.depth);
}

/**
 * kvm_user_ring_layout - how a device's ring lies in memory
 * @dev: the device
 * @args: is filled in
 */
void kvm_user_ring_layout(const struct kvm_user_device *dev, struct kvm_dev_user_ring *args)
{
	u32 entries = kvm_user_ring_entries(dev);

	*args = (struct kvm_dev_user_ring) {
		.entries = entries,
		.requests_offset = sizeof(struct kvm_user_ring),
		.replies_offset = sizeof(struct kvm_user_ring) + entries * KVM_USER_RING_STRIDE,
	};
	args->size = PAGE_ALIGN(args->replies_offset + entries * KVM_USER_RING_STRIDE);
}

static void *kvm_user_ring_request(const struct kvm_user_ring_state *ring, u32 count)
{
	return (void *)(ring->shared + 1) + (count & ring->mask) * KVM_USER_RING_STRIDE;
}

static const void *kvm_user_ring_reply(const struct kvm_user_ring_state *ring, u32 count)
{
	return kvm_user_ring_request(ring, 0) +
	       (ring->mask + 1 + (count & ring->mask)) * KVM_USER_RING_STRIDE;
}

/* The memory, for who holds no lock: it goes when kvm_user_ring_close() has waited for RCU. */
static struct kvm_user_ring *kvm_user_ring_memory(const struct kvm_user_device *dev)
{
	/* pairs with the release in kvm_user_ring_make() */
	return smp_load_acquire(&dev->ring.active) ? READ_ONCE(dev->ring.shared) : NULL;
}

/**
 * kvm_user_ring_unread - how many requests the process has not taken yet
 * @dev: the device; without queue.lock, its emulation descriptor must be open
 *
 * Return: a number, of no meaning if the process counts wrong; 0 without a ring.
 */
u32 kvm_user_ring_unread(const struct kvm_user_device *dev)
{
	const struct kvm_user_ring *shared = kvm_user_ring_memory(dev);

	return shared ? READ_ONCE(dev->ring.request_head) - READ_ONCE(shared->request_tail) : 0;
}

/**
 * kvm_user_ring_answered - are there replies that were not looked at?
 * @dev: the device; queue.lock need not be held
 *
 * Return: whether kvm_user_ring_drain() has something to do.
 */
bool kvm_user_ring_answered(const struct kvm_user_device *dev)
{
	const struct kvm_user_ring *shared;
	bool answered;

	rcu_read_lock();
	shared = kvm_user_ring_memory(dev);
	answered = shared && READ_ONCE(shared->reply_head) != READ_ONCE(dev->ring.reply_tail);
	rcu_read_unlock();
	return answered;
}

/* The process may have changed what it was given: the queue's own is traced. */
static void kvm_user_ring_trace(struct kvm_user_device *dev)
{
	trace_kvm_user_read(dev->id, &list_last_entry(&dev->queue.sent, struct kvm_user_entry,
						      node)->request);
}

/*
 * Whether replies need KVM_DEV_USER_RING_ENTER: a vCPU sleeps, or requests wait for
 * replies.  Returns whether that is new: replies that came before are then to be looked
 * at, since their giver did not see it.
 */
static bool kvm_user_ring_set_flags(struct kvm_user_device *dev)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	bool needed = atomic_read(&dev->nr_sleepers) || !list_empty(&dev->queue.pending);

	if (needed == ring->need_enter)
		return false;
	ring->need_enter = needed;
	WRITE_ONCE(ring->shared->flags, needed ? KVM_USER_RING_NEED_ENTER : 0);
	/* pairs with the process's barrier between a reply and its look at the flag */
	smp_mb();
	return needed;
}

/* The process may change a reply at any time: it is read once. */
static struct kvm_user_request kvm_user_ring_copy(const void *at)
{
	union {
		struct kvm_user_request reply;
		u64 word[sizeof(struct kvm_user_request) / sizeof(u64)];
	} copy;
	const u64 *from = at;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(copy.word); i++)
		copy.word[i] = READ_ONCE(from[i]);
	return copy.reply;
}

static void kvm_user_ring_take(struct kvm_user_device *dev, u32 count)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	struct kvm_user_request reply;
	int ret;

	for (; count; count--) {
		reply = kvm_user_ring_copy(kvm_user_ring_reply(ring, ring->reply_tail));
		WRITE_ONCE(ring->reply_tail, ring->reply_tail + 1);
		ret = kvm_user_reply(dev, &reply);
		if (!ret)
			continue;
		kvm_user_reject(dev, &reply, ret);
		ring->refused++;
	}
}

/* Looks at a batch of replies; returns whether there are more. */
static bool kvm_user_ring_drain_batch(struct kvm_user_device *dev)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	/* pairs with the release that publishes the replies */
	u32 count = smp_load_acquire(&ring->shared->reply_head) - ring->reply_tail;

	if (!count)
		return false;
	/* The process does something: it does not hang (B3). */
	WRITE_ONCE(dev->stalled, false);
	if (count > ring->mask + 1) {
		/* More than there is room for: none of it can be meant. */
		WRITE_ONCE(ring->reply_tail, ring->reply_tail + count);
		dev->counters[KVM_USER_INVALID]++;
		ring->refused++;
		count = 0;
	}
	kvm_user_ring_take(dev, min_t(u32, count, KVM_USER_RING_BATCH));
	WRITE_ONCE(ring->shared->refused, ring->refused);
	/* The entries were read: they may be used again. */
	smp_store_release(&ring->shared->reply_tail, ring->reply_tail);
	return count > KVM_USER_RING_BATCH;
}

/* Gives what is pending and may be sent; returns whether that is anything. */
static bool kvm_user_ring_give(struct kvm_user_device *dev)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	u32 head = ring->request_head;

	/* After the VM's end there is no bound of what is sent, but read(2) is there. */
	while (!dev->dead && kvm_user_queue_readable(&dev->queue) &&
	       kvm_user_queue_take(&dev->queue, kvm_user_ring_request(ring, head), 1)) {
		kvm_user_ring_trace(dev);
		head++;
		kvm_user_admit(dev);
	}
	if (head == ring->request_head)
		return false;
	WRITE_ONCE(ring->request_head, head);
	/* Publishes the entries. */
	smp_store_release(&ring->shared->request_head, head);
	return true;
}

/**
 * kvm_user_ring_fill - give the process what is pending
 * @dev: the device, with queue.lock held and its ring active
 *
 * Return: whether there are replies to look at, as for kvm_user_ring_drain().
 */
bool kvm_user_ring_fill(struct kvm_user_device *dev)
{
	bool more = false;

	lockdep_assert_held(&dev->queue.lock);

	kvm_user_ring_give(dev);
	if (kvm_user_ring_set_flags(dev)) {
		more = kvm_user_ring_drain_batch(dev);
		kvm_user_ring_give(dev);
	}
	return more;
}

/**
 * kvm_user_ring_catch_up - look at replies before something is decided
 * @dev: the device, with queue.lock held and its ring active
 *
 * As kvm_user_ring_drain(), but the flag stays, and may be more than is needed: less it
 * is not, since whoever leaves something pending has set it.
 */
void kvm_user_ring_catch_up(struct kvm_user_device *dev)
{
	lockdep_assert_held(&dev->queue.lock);

	kvm_user_ring_drain_batch(dev);
	/* By themselves: a store that comes next may be held back. */
	if (!list_empty(&dev->queue.pending) && kvm_user_ring_give(dev))
		kvm_user_wake_reader(dev);
}

/**
 * kvm_user_ring_drain - look at replies, and give what waited for them
 * @dev: the device, with queue.lock held and its ring active
 *
 * Return: whether there are more, for which the lock should be given up first.
 */
bool kvm_user_ring_drain(struct kvm_user_device *dev)
{
	u32 head = dev->ring.request_head;
	bool more;

	lockdep_assert_held(&dev->queue.lock);

	more = kvm_user_ring_drain_batch(dev);
	more |= kvm_user_ring_fill(dev);
	/* Who sleeps until there is a request is not who gave these replies. */
	if (head != dev->ring.request_head)
		kvm_user_wake_reader(dev);
	return more;
}

/**
 * kvm_user_ring_drain_all - look at all replies that there are now
 * @dev: the device
 *
 * As many as there is room for: a process that gives more meanwhile does not
 * keep anybody here.
 */
void kvm_user_ring_drain_all(struct kvm_user_device *dev)
{
	u32 rounds = kvm_user_ring_entries(dev) / KVM_USER_RING_BATCH + 1;
	bool more = true;

	while (more && rounds--) {
		spin_lock(&dev->queue.lock);
		more = dev->ring.active && kvm_user_ring_drain(dev);
		spin_unlock(&dev->queue.lock);
		cond_resched();
	}
}

/**
 * kvm_user_ring_sleep - a vCPU is about to sleep, and will not look at replies
 * @dev: the device
 */
void kvm_user_ring_sleep(struct kvm_user_device *dev)
{
	atomic_inc(&dev->nr_sleepers);
	/* pairs with the one in kvm_user_ring_make() */
	smp_mb__after_atomic();
	if (!READ_ONCE(dev->ring.active))
		return;
	/* The first of these sets the flag, and what came before that is looked at. */
	kvm_user_ring_drain_all(dev);
}

/**
 * kvm_user_ring_wake - it does not sleep any more
 * @dev: the device
 */
void kvm_user_ring_wake(struct kvm_user_device *dev)
{
	atomic_dec(&dev->nr_sleepers);
	if (!READ_ONCE(dev->ring.active))
		return;
	spin_lock(&dev->queue.lock);
	if (dev->ring.active)
		kvm_user_ring_set_flags(dev);
	spin_unlock(&dev->queue.lock);
}

/**
 * kvm_user_ring_make - requests go to a ring from now on (KVM_DEV_USER_RING)
 * @dev: the device
 * @args: what kvm_user_ring_layout() says
 *
 * Return: 0; -EBUSY; -ENOMEM, -ENFILE; -EINTR.
 */
int kvm_user_ring_make(struct kvm_user_device *dev, const struct kvm_dev_user_ring *args)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	struct kvm_user_image *image;
	int ret = -EBUSY;

	/* Nothing is read meanwhile: requests go here or there, in order. */
	if (mutex_lock_killable(&dev->read_mutex))
		return -EINTR;
	mutex_lock(&ring->lock);
	if (ring->image)
		goto unlock;
	image = kvm_user_image_alloc("kvm-user-ring", args->size);
	if (IS_ERR(image)) {
		ret = PTR_ERR(image);
		goto unlock;
	}
	ring->image = image;
	ring->mask = args->entries - 1;

	spin_lock(&dev->queue.lock);
	WRITE_ONCE(ring->shared, image->data);
	WRITE_ONCE(ring->request_head, 0);
	WRITE_ONCE(ring->reply_tail, 0);
	ring->refused = 0;
	ring->need_enter = false;
	/* Who polls in memory would never be given anything to reply to (B3). */
	WRITE_ONCE(dev->stalled, false);
	/* pairs with the acquire in kvm_user_ring_memory() */
	smp_store_release(&ring->active, true);
	/* pairs with the one in kvm_user_ring_sleep(): it sees this, or is counted below */
	smp_mb();
	kvm_user_ring_drain(dev);
	spin_unlock(&dev->queue.lock);
	/* Who waits in read is told that there is nothing to be had any more. */
	kvm_user_wake_all(dev);
	ret = 0;
unlock:
	mutex_unlock(&ring->lock);
	mutex_unlock(&dev->read_mutex);
	return ret;
}

/**
 * kvm_user_ring_close - the emulation descriptor is closed
 * @dev: the device
 *
 * What was replied to is: requests without a reply may be given elsewhere.  The
 * process may be there still, with the ring mapped, and is not looked at any more.
 */
void kvm_user_ring_close(struct kvm_user_device *dev)
{
	struct kvm_user_ring_state *ring = &dev->ring;

	if (!ring->image)
		return;
	kvm_user_ring_drain_all(dev);
	spin_lock(&dev->queue.lock);
	WRITE_ONCE(ring->active, false);
	WRITE_ONCE(ring->shared, NULL);
	spin_unlock(&dev->queue.lock);
	/* for vCPUs that wait awake */
	synchronize_rcu();
	kvm_user_image_put(ring->image);
	ring->image = NULL;
}

/**
 * kvm_user_ring_enter - look at replies now (KVM_DEV_USER_RING_ENTER)
 * @dev: the device
 * @wait: also for a request
 *
 * Return: 0; -EINVAL: there is no ring; -ERESTARTSYS: a signal came.
 */
int kvm_user_ring_enter(struct kvm_user_device *dev, bool wait)
{
	if (!READ_ONCE(dev->ring.active))
		return -EINVAL;
	kvm_user_ring_drain_all(dev);
	return wait ? kvm_user_wait_readable(dev, true) : 0;
}

/**
 * kvm_user_ring_mmap - map the ring
 * @dev: the device
 * @vma: as mmap(2) made it, its offset that in the ring
 *
 * Return: 0; -EINVAL: there is none, private, or beyond it; -EPERM: executable;
 * -EINTR.
 */
int kvm_user_ring_mmap(struct kvm_user_device *dev, struct vm_area_struct *vma)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	int ret;

	if (mutex_lock_killable(&ring->lock))
		return -EINTR;
	ret = kvm_user_image_mmap(ring->active ? ring->image : NULL, vma);
	mutex_unlock(&ring->lock);
	return ret;
}
