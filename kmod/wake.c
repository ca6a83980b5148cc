// SPDX-License-Identifier: GPL-2.0
/*
 * When a thread that waits for requests is woken: at once, or once for several
 * stores, as network cards raise interrupts (KVM_DEV_USER_COALESCE).
 */
#include <linux/poll.h>

#include "device.h"

/**
 * kvm_user_wake_reader - wake a thread that waits for requests
 * @dev: the device; what the thread waits for has been done under queue.lock
 */
void kvm_user_wake_reader(struct kvm_user_device *dev)
{
	/* pairs with the one of a thread that is about to wait, and looks once more */
	smp_mb();
	/* Mostly nobody waits where there is a ring. */
	if (rcuwait_active(&dev->reader))
		rcuwait_wake_up(&dev->reader);
	/* After the same barrier. */
	if (waitqueue_active(&dev->readable))
		wake_up_interruptible_poll(&dev->readable, EPOLLIN | EPOLLRDNORM);
}

static enum hrtimer_restart kvm_user_coalesce_expired(struct hrtimer *timer)
{
	struct kvm_user_device *dev =
		container_of(timer, struct kvm_user_device, coalesce_timer);

	/*
	 * A store that finds the timer armed came before this: the thread sees it.
	 * The barrier in kvm_user_wake_reader() pairs with the one in kvm_user_is_waited_for().
	 */
	WRITE_ONCE(dev->coalesce_armed, false);
	kvm_user_wake_reader(dev);
	return HRTIMER_NORESTART;
}

/**
 * kvm_user_wake_init - nobody waits for requests yet
 * @dev: a new device
 */
void kvm_user_wake_init(struct kvm_user_device *dev)
{
	rcuwait_init(&dev->reader);
	init_waitqueue_head(&dev->readable);
	hrtimer_init(&dev->coalesce_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	dev->coalesce_timer.function = kvm_user_coalesce_expired;
}

static void kvm_user_coalesce_disarm(struct kvm_user_device *dev)
{
	if (READ_ONCE(dev->coalesce_armed)) {
		WRITE_ONCE(dev->coalesce_armed, false);
		hrtimer_try_to_cancel(&dev->coalesce_timer);
	}
}

/**
 * kvm_user_wake_all - wake all threads that wait for requests
 * @dev: the device, of which they shall learn something
 */
void kvm_user_wake_all(struct kvm_user_device *dev)
{
	rcuwait_wake_up(&dev->reader);
	wake_up_all(&dev->readable);
}

static bool kvm_user_is_waited_for(struct kvm_user_device *dev)
{
	/* pairs with the one of a thread that is about to wait, and looks once more */
	smp_mb();
	if (rcuwait_active(&dev->reader))
		return true;
	/* After the same barrier. */
	return waitqueue_active(&dev->readable);
}

/**
 * kvm_user_hold_back - may a store that was just posted wait for more of them?
 * @dev: the device, with queue.lock held; its coalesce_stores are not 0
 *
 * Return: true if no thread is to be woken for it now; in time one will be.
 */
bool kvm_user_hold_back(struct kvm_user_device *dev)
{
	u32 count = dev->queue.posted + kvm_user_ring_unread(dev);

	lockdep_assert_held(&dev->queue.lock);

	if (count >= dev->coalesce_stores) {
		kvm_user_coalesce_disarm(dev);
		return false;
	}
	/* The store is in the queue before @coalesce_armed is read. */
	if (kvm_user_is_waited_for(dev) && !READ_ONCE(dev->coalesce_armed)) {
		WRITE_ONCE(dev->coalesce_armed, true);
		hrtimer_start(&dev->coalesce_timer, ns_to_ktime(dev->coalesce_ns),
			      HRTIMER_MODE_REL);
	}
	return true;
}

/**
 * kvm_user_coalesce - set when stores wake a thread (KVM_DEV_USER_COALESCE)
 * @dev: the device
 * @ns: longest time that one is held back
 * @stores: how many wake at once; 0, with @ns 0: each
 *
 * Return: 0 or -EINVAL.
 */
int kvm_user_coalesce(struct kvm_user_device *dev, u64 ns, u32 stores)
{
	if (!ns != !stores || ns > KVM_USER_MAX_COALESCE_NS)
		return -EINVAL;
	spin_lock(&dev->queue.lock);
	dev->coalesce_ns = ns;
	dev->coalesce_stores = stores;
	kvm_user_coalesce_disarm(dev);
	spin_unlock(&dev->queue.lock);
	/* What was held back was so by the old rule. */
	kvm_user_wake_reader(dev);
	return 0;
}

/**
 * kvm_user_wake_reset - the emulation descriptor is closed
 * @dev: the device, which nobody reads
 */
void kvm_user_wake_reset(struct kvm_user_device *dev)
{
	kvm_user_coalesce(dev, 0, 0);
	hrtimer_cancel(&dev->coalesce_timer);
}
