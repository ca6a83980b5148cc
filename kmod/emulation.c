// SPDX-License-Identifier: GPL-2.0
/*
 * The emulation descriptor: requests out by read(2), replies in by write(2).
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uio.h>

#include "device.h"
#include "trace.h"

/* Requests copied at a time, on the stack. */
#define KVM_USER_BATCH	16

#define KVM_USER_REQUEST_SIZE	sizeof(struct kvm_user_request)

/* The emulation process did something: it does not hang (B3). */
static void kvm_user_alive(struct kvm_user_device *dev)
{
	spin_lock(&dev->queue.lock);
	dev->stalled = false;
	spin_unlock(&dev->queue.lock);
}

/*
 * Whether a read has something to say now.  Asked by a thread that waits for
 * requests; it is alive, unless what it owes keeps it from being sent any.
 */
static bool kvm_user_readable(struct kvm_user_device *dev)
{
	bool readable;

	spin_lock(&dev->queue.lock);
	if (dev->queue.nr_sent < dev->queue.depth)
		dev->stalled = false;
	readable = kvm_user_queue_readable(&dev->queue) || dev->dead;
	spin_unlock(&dev->queue.lock);
	return readable;
}

static int kvm_user_wait_readable(struct kvm_user_device *dev)
{
	int ret;

	spin_lock(&dev->queue.lock);
	dev->nr_readers++;
	spin_unlock(&dev->queue.lock);

	ret = wait_event_interruptible_exclusive(dev->readable, kvm_user_readable(dev));

	spin_lock(&dev->queue.lock);
	dev->nr_readers--;
	spin_unlock(&dev->queue.lock);
	return ret;
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
static ssize_t kvm_user_deliver(struct kvm_user_device *dev, struct iov_iter *to)
{
	struct kvm_user_request batch[KVM_USER_BATCH];
	size_t done = 0;

	lockdep_assert_held(&dev->read_mutex);

	while (iov_iter_count(to) >= KVM_USER_REQUEST_SIZE) {
		size_t room = iov_iter_count(to) / KVM_USER_REQUEST_SIZE;
		u32 taken, whole;

		spin_lock(&dev->queue.lock);
		taken = kvm_user_queue_take(&dev->queue, batch,
					    min_t(size_t, room, KVM_USER_BATCH));
		spin_unlock(&dev->queue.lock);
		if (!taken)
			break;
		whole = copy_to_iter(batch, taken * KVM_USER_REQUEST_SIZE, to) /
			KVM_USER_REQUEST_SIZE;
		kvm_user_sent(dev, batch, whole, taken);
		done += whole;
		if (whole < taken)
			return done ? done * KVM_USER_REQUEST_SIZE : -EFAULT;
	}
	return done * KVM_USER_REQUEST_SIZE;
}

/* As kvm_user_deliver(), for one reader at a time: batches go out in order. */
static ssize_t kvm_user_deliver_in_turn(struct kvm_user_device *dev,
					struct iov_iter *to, bool wait)
{
	ssize_t ret;

	if (!mutex_trylock(&dev->read_mutex)) {
		if (!wait)
			return -EAGAIN;
		if (mutex_lock_interruptible(&dev->read_mutex))
			return -ERESTARTSYS;
	}
	ret = kvm_user_deliver(dev, to);
	mutex_unlock(&dev->read_mutex);
	return ret;
}

static ssize_t kvm_user_fetch(struct kvm_user_device *dev, struct iov_iter *to, bool wait)
{
	for (;;) {
		/* Before the delivery: what was queued until then is in it. */
		bool dead = READ_ONCE(dev->dead);
		ssize_t ret;

		if (!kvm_user_readable(dev)) {
			if (!wait)
				return -EAGAIN;
			ret = kvm_user_wait_readable(dev);
			if (ret)
				return ret;
		}
		ret = kvm_user_deliver_in_turn(dev, to, wait);
		if (ret || dead)
			return ret;
	}
}

static ssize_t kvm_user_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct kvm_user_device *dev = iocb->ki_filp->private_data;
	bool wait = !(iocb->ki_filp->f_flags & O_NONBLOCK);
	ssize_t ret;

	if (iov_iter_count(to) < KVM_USER_REQUEST_SIZE)
		return -EINVAL;
	kvm_user_alive(dev);
	ret = kvm_user_fetch(dev, to, wait);

	/* The wake-up may have been for more than this read took. */
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
	if (i)
		return i;
	return ret;
}

/* Says that the first reply of a write is bad. */
static ssize_t kvm_user_refuse(struct kvm_user_device *dev,
			       const struct kvm_user_request *reply, int error)
{
	bool readable;

	spin_lock(&dev->queue.lock);
	kvm_user_reject(dev, reply, error);
	readable = kvm_user_queue_readable(&dev->queue);
	spin_unlock(&dev->queue.lock);
	if (readable)
		kvm_user_wake_reader(dev);
	return error;
}

static ssize_t kvm_user_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct kvm_user_device *dev = iocb->ki_filp->private_data;
	struct kvm_user_request batch[KVM_USER_BATCH];
	size_t done = 0;

	if (iov_iter_count(from) % KVM_USER_REQUEST_SIZE)
		return -EINVAL;
	if (READ_ONCE(dev->dead))
		return -ENODEV;
	kvm_user_alive(dev);

	while (iov_iter_count(from)) {
		u32 want = min_t(size_t, KVM_USER_BATCH,
				 iov_iter_count(from) / KVM_USER_REQUEST_SIZE);
		u32 whole = copy_from_iter(batch, want * KVM_USER_REQUEST_SIZE, from) /
			    KVM_USER_REQUEST_SIZE;
		ssize_t accepted = whole ? kvm_user_accept(dev, batch, whole) : -EFAULT;

		if (accepted > 0)
			done += accepted;
		else if (!done)
			return whole ? kvm_user_refuse(dev, batch, accepted) : accepted;
		if (accepted != want)
			break;
	}
	return done * KVM_USER_REQUEST_SIZE;
}

static __poll_t kvm_user_poll(struct file *file, poll_table *wait)
{
	struct kvm_user_device *dev = file->private_data;
	__poll_t events = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &dev->readable, wait);

	spin_lock(&dev->queue.lock);
	if (dev->queue.nr_sent < dev->queue.depth)
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
	.read_iter = kvm_user_read,
	.write_iter = kvm_user_write,
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
