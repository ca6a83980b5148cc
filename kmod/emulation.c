// SPDX-License-Identifier: GPL-2.0
/*
 * The emulation descriptor: requests out by read(2), replies in by write(2).
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>

#include "device.h"
#include "trace.h"

/* Requests copied at a time, on the stack. */
#define KVM_USER_BATCH	16

#define KVM_USER_REQUEST_SIZE	sizeof(struct kvm_user_request)

/* Called without a lock, with the change that it is about already made. */
void kvm_user_wake_reader(struct kvm_user_device *dev)
{
	if (wq_has_sleeper(&dev->readable))
		wake_up_interruptible_poll(&dev->readable, EPOLLIN | EPOLLRDNORM);
}

/* Whether a read has something to say now.  To ask is a sign of life (B3). */
static bool kvm_user_readable(struct kvm_user_device *dev)
{
	bool readable;

	spin_lock(&dev->queue.lock);
	dev->stalled = false;
	readable = kvm_user_queue_readable(&dev->queue) || dev->dead;
	spin_unlock(&dev->queue.lock);
	return readable;
}

/* Commits the first @count requests of a batch, and puts the rest back. */
static void kvm_user_sent(struct kvm_user_device *dev,
			  const struct kvm_user_request *batch, u32 count, u32 taken)
{
	u32 i;

	spin_lock(&dev->queue.lock);
	kvm_user_queue_put_back(&dev->queue, batch + count, taken - count);
	kvm_user_admit(dev);
	spin_unlock(&dev->queue.lock);
	for (i = 0; i < count; i++)
		trace_kvm_user_read(dev->id, &batch[i]);
}

/* Copies what is pending.  Returns bytes, 0 if nothing was, or -EFAULT. */
static ssize_t kvm_user_deliver(struct kvm_user_device *dev, char __user *buf,
				size_t room)
{
	struct kvm_user_request batch[KVM_USER_BATCH];
	size_t done = 0;

	lockdep_assert_held(&dev->read_mutex);

	while (done < room) {
		u32 taken, whole;
		size_t left;

		spin_lock(&dev->queue.lock);
		taken = kvm_user_queue_take(&dev->queue, batch,
					    min_t(size_t, room - done, KVM_USER_BATCH));
		spin_unlock(&dev->queue.lock);
		if (!taken)
			break;
		left = copy_to_user(buf + done * KVM_USER_REQUEST_SIZE, batch,
				    taken * KVM_USER_REQUEST_SIZE);
		whole = taken - DIV_ROUND_UP(left, KVM_USER_REQUEST_SIZE);
		kvm_user_sent(dev, batch, whole, taken);
		done += whole;
		if (left)
			return done ? done * KVM_USER_REQUEST_SIZE : -EFAULT;
	}
	return done * KVM_USER_REQUEST_SIZE;
}

/* As kvm_user_deliver(), for one reader at a time: batches go out in order. */
static ssize_t kvm_user_deliver_in_turn(struct kvm_user_device *dev,
					char __user *buf, size_t room)
{
	ssize_t ret;

	if (mutex_lock_interruptible(&dev->read_mutex))
		return -ERESTARTSYS;
	ret = kvm_user_deliver(dev, buf, room);
	mutex_unlock(&dev->read_mutex);
	return ret;
}

static ssize_t kvm_user_read(struct file *file, char __user *buf, size_t count,
			     loff_t *ppos)
{
	struct kvm_user_device *dev = file->private_data;
	size_t room = count / KVM_USER_REQUEST_SIZE;
	ssize_t ret;

	if (!room)
		return -EINVAL;
	do {
		if (!kvm_user_readable(dev)) {
			if (file->f_flags & O_NONBLOCK)
				return -EAGAIN;
			ret = wait_event_interruptible_exclusive(dev->readable,
								 kvm_user_readable(dev));
			if (ret)
				return ret;
		}
		ret = kvm_user_deliver_in_turn(dev, buf, room);
	} while (!ret && !READ_ONCE(dev->dead));

	/* This wake-up may have been for more than this read took. */
	if (kvm_user_readable(dev))
		kvm_user_wake_reader(dev);
	return ret;
}

/* Applies a batch.  Returns how many replies were accepted, or the first's error. */
static ssize_t kvm_user_accept(struct kvm_user_device *dev,
			       const struct kvm_user_request *batch, u32 count)
{
	bool readable;
	int ret = 0;
	u32 i;

	spin_lock(&dev->queue.lock);
	for (i = 0; i < count; i++) {
		ret = kvm_user_reply(dev, &batch[i]);
		if (ret)
			break;
	}
	readable = kvm_user_queue_readable(&dev->queue);
	spin_unlock(&dev->queue.lock);

	/* Requests may have waited for these replies (F3). */
	if (readable)
		kvm_user_wake_reader(dev);
	return i ? i : ret;
}

static ssize_t kvm_user_write(struct file *file, const char __user *buf, size_t count,
			      loff_t *ppos)
{
	struct kvm_user_device *dev = file->private_data;
	struct kvm_user_request batch[KVM_USER_BATCH];
	size_t done = 0, total = count / KVM_USER_REQUEST_SIZE;
	ssize_t ret = 0;

	if (count % KVM_USER_REQUEST_SIZE)
		return -EINVAL;
	/* A sign of life (B3). */
	kvm_user_readable(dev);
	if (READ_ONCE(dev->dead))
		return -ENODEV;

	while (done < total) {
		u32 want = min_t(size_t, total - done, KVM_USER_BATCH);
		size_t left = copy_from_user(batch, buf + done * KVM_USER_REQUEST_SIZE,
					     want * KVM_USER_REQUEST_SIZE);
		u32 whole = want - DIV_ROUND_UP(left, KVM_USER_REQUEST_SIZE);

		ret = whole ? kvm_user_accept(dev, batch, whole) : -EFAULT;
		if (ret > 0)
			done += ret;
		if (ret != want)
			break;
	}
	return done ? done * KVM_USER_REQUEST_SIZE : ret;
}

static __poll_t kvm_user_poll(struct file *file, poll_table *wait)
{
	struct kvm_user_device *dev = file->private_data;
	__poll_t events = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &dev->readable, wait);

	spin_lock(&dev->queue.lock);
	dev->stalled = false;
	if (kvm_user_queue_readable(&dev->queue))
		events |= EPOLLIN | EPOLLRDNORM;
	if (dev->dead)
		events |= EPOLLHUP;
	spin_unlock(&dev->queue.lock);
	return events;
}

static long kvm_user_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct kvm_user_device *dev = file->private_data;

	return READ_ONCE(dev->dead) ? -ENODEV : -ENOTTY;
}

static void kvm_user_close(struct kvm_user_device *dev)
{
	spin_lock(&dev->queue.lock);
	dev->open = false;
	dev->stalled = false;
	kvm_user_abort(dev);
	spin_unlock(&dev->queue.lock);
	trace_kvm_user_closed(dev->id);
	kvm_user_device_put(dev);
}

static int kvm_user_release(struct inode *inode, struct file *file)
{
	kvm_user_close(file->private_data);
	return 0;
}

static const struct file_operations kvm_user_emulation_fops = {
	.owner = THIS_MODULE,
	.read = kvm_user_read,
	.write = kvm_user_write,
	.poll = kvm_user_poll,
	.unlocked_ioctl = kvm_user_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = kvm_user_release,
	.llseek = noop_llseek,
};

/**
 * kvm_user_emulation_fd - make the emulation descriptor
 * @dev: the device
 * @flags: O_CLOEXEC, O_NONBLOCK
 *
 * Return: the descriptor; -EBUSY if there is one; -EMFILE and the like.
 */
int kvm_user_emulation_fd(struct kvm_user_device *dev, u32 flags)
{
	bool busy;
	int fd;

	spin_lock(&dev->queue.lock);
	busy = dev->open;
	dev->open = true;
	spin_unlock(&dev->queue.lock);
	if (busy)
		return -EBUSY;

	kref_get(&dev->ref);
	fd = anon_inode_getfd("kvm-user-emulation", &kvm_user_emulation_fops, dev,
			      O_RDWR | flags);
	/* The guest may have queued something meanwhile. */
	if (fd < 0)
		kvm_user_close(dev);
	return fd;
}
