/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests and replies in memory that the emulation process maps: a reader and
 * writer of its own beside read(2) and write(2), for a process that is awake.
 *
 * The queue stays the kernel's own.  What is in the ring is a copy of a request, or
 * is copied before it is looked at; the counts are the kernel's own too, and those
 * of the process say only how much there may be.
 */
#ifndef KVM_USER_RING_H
#define KVM_USER_RING_H

#include <linux/mutex.h>

struct kvm_dev_user_ring;
struct kvm_user_device;
struct kvm_user_image;
struct kvm_user_ring;
struct vm_area_struct;

/* The ring of a device, under queue.lock where nothing else is said. */
struct kvm_user_ring_state {
	struct kvm_user_ring *shared;	/* NULL without a ring; read with RCU, too */
	struct kvm_user_image *image;	/* under @lock */
	struct mutex lock;		/* covers @image, and @active becoming true */
	u32 mask;			/* entries - 1, as @shared */
	u32 request_head;
	u32 reply_tail;
	u32 refused;
	bool need_enter;		/* as the process sees it */
	bool active;			/* read without the lock, too */
};

void kvm_user_ring_init(struct kvm_user_device *dev);
void kvm_user_ring_layout(const struct kvm_user_device *dev, struct kvm_dev_user_ring *args);
int kvm_user_ring_make(struct kvm_user_device *dev, const struct kvm_dev_user_ring *args);
int kvm_user_ring_enter(struct kvm_user_device *dev, bool wait);
void kvm_user_ring_close(struct kvm_user_device *dev);
int kvm_user_ring_mmap(struct kvm_user_device *dev, struct vm_area_struct *vma);

u32 kvm_user_ring_unread(const struct kvm_user_device *dev);
bool kvm_user_ring_answered(const struct kvm_user_device *dev);
bool kvm_user_ring_fill(struct kvm_user_device *dev);
void kvm_user_ring_catch_up(struct kvm_user_device *dev);
bool kvm_user_ring_drain(struct kvm_user_device *dev);
void kvm_user_ring_drain_all(struct kvm_user_device *dev);
void kvm_user_ring_sleep(struct kvm_user_device *dev);
void kvm_user_ring_wake(struct kvm_user_device *dev);

#endif /* KVM_USER_RING_H */
