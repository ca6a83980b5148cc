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
	/* No more are sent and not replied to: what is not read is not overwritten. */
	return roundup_pow_of_two(dev->queue.depth);
}

static void kvm_user_ring_layout(const struct kvm_user_device *dev,
				 struct kvm_dev_user_ring *args)
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

/**
 * kvm_user_ring_unread - how many requests the process has not taken yet
 * @dev: the device, whose ring is active
 *
 * Return: a number, of no meaning if the process counts wrong.
 */
u32 kvm_user_ring_unread(const struct kvm_user_device *dev)
{
	return READ_ONCE(dev->ring.request_head) - READ_ONCE(dev->ring.shared->request_tail);
}

/**
 * kvm_user_ring_answered - are there replies that were not looked at?
 * @dev: the device; queue.lock need not be held
 *
 * Return: whether kvm_user_ring_drain() has something to do.
 */
bool kvm_user_ring_answered(const struct kvm_user_device *dev)
{
	/* @shared is set before @active, and stays. */
	return smp_load_acquire(&dev->ring.active) &&
	       READ_ONCE(dev->ring.shared->reply_head) != READ_ONCE(dev->ring.reply_tail);
}

/* The process may have changed what it was given: the queue's own is traced. */
static void kvm_user_ring_trace(struct kvm_user_device *dev)
{
	trace_kvm_user_read(dev->id, &list_last_entry(&dev->queue.sent, struct kvm_user_entry,
						      node)->request);
}

/**
 * kvm_user_ring_fill - give the process what is pending
 * @dev: the device, with queue.lock held
 */
void kvm_user_ring_fill(struct kvm_user_device *dev)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	u32 head = ring->request_head;

	lockdep_assert_held(&dev->queue.lock);

	/* After the VM's end there is no bound of what is sent, but read(2) is there. */
	while (!dev->dead &&
	       kvm_user_queue_take(&dev->queue, kvm_user_ring_request(ring, head), 1)) {
		kvm_user_ring_trace(dev);
		head++;
		kvm_user_admit(dev);
	}
	if (head != ring->request_head) {
		WRITE_ONCE(ring->request_head, head);
		/* Publishes the entries. */
		smp_store_release(&ring->shared->request_head, head);
	}
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

/**
 * kvm_user_ring_drain - look at replies, and give what waited for them
 * @dev: the device, with queue.lock held and its ring active
 *
 * Return: whether there are more, for which the lock should be given up first.
 */
bool kvm_user_ring_drain(struct kvm_user_device *dev)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	/* pairs with the release that publishes the replies */
	u32 count = smp_load_acquire(&ring->shared->reply_head) - ring->reply_tail;

	lockdep_assert_held(&dev->queue.lock);

	if (!count)
		return false;
	/* The process does something: it does not hang (B3). */
	dev->stalled = false;
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
	kvm_user_ring_fill(dev);
	return count > KVM_USER_RING_BATCH;
}

/* Looks at all replies that there are now. */
static void kvm_user_ring_drain_all(struct kvm_user_device *dev)
{
	bool more;

	do {
		spin_lock(&dev->queue.lock);
		more = dev->ring.active && kvm_user_ring_drain(dev);
		spin_unlock(&dev->queue.lock);
		cond_resched();
	} while (more && !signal_pending(current));
}

static void kvm_user_ring_set_flags(struct kvm_user_device *dev)
{
	WRITE_ONCE(dev->ring.shared->flags,
		   atomic_read(&dev->nr_sleepers) ? KVM_USER_RING_NEED_ENTER : 0);
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
	spin_lock(&dev->queue.lock);
	if (dev->ring.active) {
		kvm_user_ring_set_flags(dev);
		/* A reply that comes too early to see the flag is looked at below. */
		smp_mb();
	}
	spin_unlock(&dev->queue.lock);
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

/* A new ring, or the old one as if it were new. */
static int kvm_user_ring_prepare(struct kvm_user_device *dev, u64 size)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	struct kvm_user_image *image;

	lockdep_assert_held(&ring->lock);

	if (ring->active || kvm_user_image_mapped(ring->image))
		return -EBUSY;
	if (ring->image) {
		memset(ring->image->data, 0, size);
		return 0;
	}
	image = kvm_user_image_alloc("kvm-user-ring", size);
	if (IS_ERR(image))
		return PTR_ERR(image);
	ring->image = image;
	ring->shared = image->data;
	ring->mask = kvm_user_ring_entries(dev) - 1;
	return 0;
}

/**
 * kvm_user_ring_make - requests go to a ring from now on (KVM_DEV_USER_RING)
 * @dev: the device
 * @args: is filled in
 *
 * The memory stays with the device: who looks at it needs no lock.
 *
 * Return: 0; -EBUSY; -ENOMEM, -ENFILE; -EINTR.
 */
int kvm_user_ring_make(struct kvm_user_device *dev, struct kvm_dev_user_ring *args)
{
	struct kvm_user_ring_state *ring = &dev->ring;
	int ret;

	kvm_user_ring_layout(dev, args);
	/* Nothing is read meanwhile: requests go here or there, in order. */
	if (mutex_lock_killable(&dev->read_mutex))
		return -EINTR;
	mutex_lock(&ring->lock);
	ret = kvm_user_ring_prepare(dev, args->size);
	if (ret)
		goto unlock;

	spin_lock(&dev->queue.lock);
	ring->request_head = 0;
	WRITE_ONCE(ring->reply_tail, 0);
	ring->refused = 0;
	/* pairs with the acquire in kvm_user_ring_answered() */
	smp_store_release(&ring->active, true);
	/* pairs with the one in kvm_user_ring_sleep(): it sees this, or is counted here */
	smp_mb();
	kvm_user_ring_set_flags(dev);
	kvm_user_ring_fill(dev);
	spin_unlock(&dev->queue.lock);
	/* Who waits in read is told that there is nothing to be had any more. */
	kvm_user_wake_all(dev);
unlock:
	mutex_unlock(&ring->lock);
	mutex_unlock(&dev->read_mutex);
	return ret;
}

/**
 * kvm_user_ring_close - the emulation descriptor is closed
 * @dev: the device
 *
 * What was replied to is: requests without a reply may be given elsewhere.
 */
void kvm_user_ring_close(struct kvm_user_device *dev)
{
	bool more;

	do {
		spin_lock(&dev->queue.lock);
		more = dev->ring.active && kvm_user_ring_drain(dev);
		if (!more)
			WRITE_ONCE(dev->ring.active, false);
		spin_unlock(&dev->queue.lock);
	} while (more);
}

/**
 * kvm_user_ring_destroy - let go of the memory
 * @dev: the device, which is going; mappings may stay
 */
void kvm_user_ring_destroy(struct kvm_user_device *dev)
{
	kvm_user_image_put(dev->ring.image);
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
