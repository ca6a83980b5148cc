// SPDX-License-Identifier: GPL-2.0
/*
 * The emulation descriptor: requests out by read(2), replies in by write(2), both
 * by KVM_DEV_USER_EXCHANGE; the shadow image by mmap(2).
 */
#include <linux/anon_inodes.h>
#include <linux/fault-inject-usercopy.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "device.h"
#include "trace.h"

#define KVM_USER_REQUEST_SIZE	sizeof(struct kvm_user_request)

/* The emulation process did something: it does not hang (B3). */
static void kvm_user_alive(struct kvm_user_device *dev)
{
	if (!READ_ONCE(dev->stalled))
		return;
	spin_lock(&dev->queue.lock);
	WRITE_ONCE(dev->stalled, false);
	spin_unlock(&dev->queue.lock);
}

/*
 * Whether a read has something to say now.  Asked by a thread that waits for
 * requests; it is alive, unless what it owes keeps it from being sent any.
 */
static bool kvm_user_readable(struct kvm_user_device *dev)
{
	if (READ_ONCE(dev->queue.nr_sent) < READ_ONCE(dev->queue.sent_limit))
		kvm_user_alive(dev);
	return kvm_user_ready(dev) || READ_ONCE(dev->dead);
}

/* The same; or a ring was made, and this thread does not wait for that to be filled. */
static bool kvm_user_wait_is_over(struct kvm_user_device *dev, bool in_ring)
{
	return kvm_user_readable(dev) || READ_ONCE(dev->ring.active) != in_ring;
}

/* The first thread that waits has a place of its own, which costs less than the queue. */
static int kvm_user_sleep_readable(struct kvm_user_device *dev, bool in_ring)
{
	int ret;

	if (atomic_xchg(&dev->reader_claimed, 1))
		return wait_event_interruptible_exclusive(dev->readable,
							  kvm_user_wait_is_over(dev, in_ring));
	ret = rcuwait_wait_event(&dev->reader, kvm_user_wait_is_over(dev, in_ring),
				 TASK_INTERRUPTIBLE);
	atomic_set_release(&dev->reader_claimed, 0);
	return ret ? -ERESTARTSYS : 0;
}

/**
 * kvm_user_wait_readable - wait for a request, or for the VM's end
 * @dev: the device
 * @in_ring: in the ring, else for read
 *
 * Return: 0, also if a ring was made meanwhile, or -ERESTARTSYS.
 */
int kvm_user_wait_readable(struct kvm_user_device *dev, bool in_ring)
{
	u64 begin;
	int ret = 0;

	atomic_inc(&dev->nr_readers);
	if (!kvm_user_spin_reader(dev)) {
		begin = kvm_user_spin_begin();
		ret = kvm_user_sleep_readable(dev, in_ring);
		kvm_user_spin_adapt(&dev->reader_spin, begin);
	}
	atomic_dec(&dev->nr_readers);
	return ret;
}

/*
 * Copies of single requests, by words: a string instruction costs more than that.
 * An iterator over one buffer, as read(2) and KVM_DEV_USER_EXCHANGE have, tells where
 * it is.
 */
struct kvm_user_words {
	u64 word[KVM_USER_REQUEST_SIZE / sizeof(u64)];
};

static bool kvm_user_copy_out(const struct kvm_user_request *request, struct iov_iter *to)
{
	const struct kvm_user_words *from = (const void *)request;
	struct kvm_user_words __user *user;

	if (!iter_is_ubuf(to))
		return copy_to_iter(request, sizeof(*request), to) == sizeof(*request);
	user = to->ubuf + to->iov_offset;
	if (should_fail_usercopy() || !user_write_access_begin(user, sizeof(*user)))
		return false;
	unsafe_put_user(from->word[0], &user->word[0], fault);
	unsafe_put_user(from->word[1], &user->word[1], fault);
	unsafe_put_user(from->word[2], &user->word[2], fault);
	unsafe_put_user(from->word[3], &user->word[3], fault);
	unsafe_put_user(from->word[4], &user->word[4], fault);
	user_write_access_end();
	iov_iter_advance(to, sizeof(*request));
	return true;
fault:
	user_write_access_end();
	return false;
}

static bool kvm_user_copy_in(struct kvm_user_request *reply, struct iov_iter *from)
{
	struct kvm_user_words *to = (void *)reply;
	const struct kvm_user_words __user *user;

	if (!iter_is_ubuf(from))
		return copy_from_iter(reply, sizeof(*reply), from) == sizeof(*reply);
	user = from->ubuf + from->iov_offset;
	if (should_fail_usercopy() || !user_read_access_begin(user, sizeof(*user)))
		return false;
	unsafe_get_user(to->word[0], &user->word[0], fault);
	unsafe_get_user(to->word[1], &user->word[1], fault);
	unsafe_get_user(to->word[2], &user->word[2], fault);
	unsafe_get_user(to->word[3], &user->word[3], fault);
	unsafe_get_user(to->word[4], &user->word[4], fault);
	user_read_access_end();
	iov_iter_advance(from, sizeof(*reply));
	return true;
fault:
	user_read_access_end();
	return false;
}

/* Of a batch that was taken the first @count were copied: the rest is put back. */
static void kvm_user_sent(struct kvm_user_device *dev, u32 count, u32 taken)
{
	u32 i;

	for (i = 0; i < count; i++)
		trace_kvm_user_read(dev->id, &dev->batch[i]);
	/* Stores that wait are admitted here: what is put back has its space. */
	if (count == taken && list_empty_careful(&dev->queue.waiting))
		return;
	spin_lock(&dev->queue.lock);
	kvm_user_queue_put_back(&dev->queue, dev->batch + count, taken - count);
	kvm_user_admit(dev);
	spin_unlock(&dev->queue.lock);
}

/* Takes and copies up to @room; returns how many, -EFAULT if none could be, or -EBUSY. */
static int kvm_user_deliver_batch(struct kvm_user_device *dev, struct iov_iter *to, u32 room)
{
	u32 taken = 0, count = 0;
	bool in_ring;

	spin_lock(&dev->queue.lock);
	/* Once there is a ring nothing is taken here, or it would come out of order. */
	in_ring = dev->ring.active && !dev->dead;
	if (!in_ring) {
		WRITE_ONCE(dev->stalled, false);
		taken = kvm_user_queue_take(&dev->queue, dev->batch, room);
	}
	spin_unlock(&dev->queue.lock);
	if (in_ring)
		return -EBUSY;
	if (!taken)
		return 0;
	while (count < taken && kvm_user_copy_out(&dev->batch[count], to))
		count++;
	kvm_user_sent(dev, count, taken);
	return count ?: -EFAULT;
}

/* Copies what is pending.  Returns bytes, 0 if nothing was, or as above. */
static ssize_t kvm_user_deliver(struct kvm_user_device *dev, struct iov_iter *to)
{
	size_t done = 0;

	lockdep_assert_held(&dev->read_mutex);

	while (iov_iter_count(to) >= KVM_USER_REQUEST_SIZE) {
		u32 room = min_t(size_t, iov_iter_count(to) / KVM_USER_REQUEST_SIZE,
				 KVM_USER_BATCH);
		int count = kvm_user_deliver_batch(dev, to, room);

		if (count < 0)
			return done ? done * KVM_USER_REQUEST_SIZE : count;
		done += count;
		/* Guests may fill the queue as fast as it is emptied. */
		if (count < room || signal_pending(current))
			break;
		cond_resched();
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

		if (!kvm_user_wait_is_over(dev, false)) {
			if (!wait)
				return -EAGAIN;
			ret = kvm_user_wait_readable(dev, false);
			if (ret)
				return ret;
		}
		ret = kvm_user_deliver_in_turn(dev, to, wait);
		if (ret || dead)
			return ret;
	}
}

/* Gives requests: bytes, 0 if the VM is gone, or an error. */
static ssize_t kvm_user_give(struct kvm_user_device *dev, struct iov_iter *to, bool wait)
{
	ssize_t ret = kvm_user_fetch(dev, to, wait);

	/* The wake-up may have been for more than this reader took. */
	if (kvm_user_ready(dev))
		kvm_user_wake_reader(dev);
	return ret;
}

static ssize_t kvm_user_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct kvm_user_device *dev = iocb->ki_filp->private_data;

	if (iov_iter_count(to) < KVM_USER_REQUEST_SIZE)
		return -EINVAL;
	kvm_user_alive(dev);
	return kvm_user_give(dev, to, !(iocb->ki_filp->f_flags & O_NONBLOCK));
}

/* Applies a reply.  User space is told of an error if it is the @first of all. */
static int kvm_user_accept(struct kvm_user_device *dev, const struct kvm_user_request *reply,
			   bool first)
{
	bool owed, readable;
	int ret;

	spin_lock(&dev->queue.lock);
	owed = dev->queue.nr_sent >= dev->queue.sent_limit;
	ret = kvm_user_reply(dev, reply);
	if (ret && first)
		kvm_user_reject(dev, reply, ret);
	if (dev->ring.active)
		kvm_user_ring_fill(dev);
	readable = owed && kvm_user_ready(dev);
	spin_unlock(&dev->queue.lock);

	/* Requests waited for this reply (F3). */
	if (readable)
		kvm_user_wake_reader(dev);
	return ret;
}

/* Takes whole replies: how many bytes were accepted, or the first one's error. */
static ssize_t kvm_user_take(struct kvm_user_device *dev, struct iov_iter *from)
{
	struct kvm_user_request reply;
	size_t done = 0;

	while (iov_iter_count(from)) {
		int ret = kvm_user_copy_in(&reply, from) ?
			kvm_user_accept(dev, &reply, !done) : -EFAULT;

		if (ret && !done)
			return ret;
		if (ret)
			break;
		done++;
		if (signal_pending(current))
			break;
		if (done % KVM_USER_BATCH == 0)
			cond_resched();
	}
	return done * KVM_USER_REQUEST_SIZE;
}

static ssize_t kvm_user_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct kvm_user_device *dev = iocb->ki_filp->private_data;

	if (iov_iter_count(from) % KVM_USER_REQUEST_SIZE)
		return -EINVAL;
	if (READ_ONCE(dev->dead))
		return -ENODEV;
	kvm_user_alive(dev);
	return kvm_user_take(dev, from);
}

/*
 * Replies in, requests out.  Once a reply is accepted the call succeeds, whatever
 * comes after it: what was done must be told.
 */
static int kvm_user_exchange_all(struct kvm_user_device *dev,
				 struct kvm_dev_user_exchange *args, bool wait)
{
	u32 replies = args->nr_replies, room = args->nr_requests;
	struct iov_iter iter;
	ssize_t ret;

	iov_iter_ubuf(&iter, ITER_SOURCE, u64_to_user_ptr(args->replies),
		      replies * KVM_USER_REQUEST_SIZE);
	ret = kvm_user_take(dev, &iter);
	if (ret < 0)
		return ret;
	args->nr_replies = ret / KVM_USER_REQUEST_SIZE;
	args->nr_requests = 0;
	/* A bad reply is to be seen to before more comes. */
	if (args->nr_replies < replies || !room)
		return 0;
	iov_iter_ubuf(&iter, ITER_DEST, u64_to_user_ptr(args->requests),
		      room * KVM_USER_REQUEST_SIZE);
	ret = kvm_user_give(dev, &iter, wait);
	if (ret > 0)
		args->nr_requests = ret / KVM_USER_REQUEST_SIZE;
	if (ret > 0 || args->nr_replies || ret == -EAGAIN)
		return 0;
	return ret ?: -ENODEV;
}

/* The arguments; that the counts can be told is found out before anything is done. */
static bool kvm_user_get_exchange(struct kvm_dev_user_exchange *args,
				  struct kvm_dev_user_exchange __user *user)
{
	if (should_fail_usercopy() || !user_access_begin(user, sizeof(*user)))
		return false;
	unsafe_get_user(args->replies, &user->replies, fault);
	unsafe_get_user(args->requests, &user->requests, fault);
	unsafe_get_user(args->nr_replies, &user->nr_replies, fault);
	unsafe_get_user(args->nr_requests, &user->nr_requests, fault);
	unsafe_get_user(args->flags, &user->flags, fault);
	unsafe_get_user(args->pad, &user->pad, fault);
	unsafe_put_user(args->nr_replies, &user->nr_replies, fault);
	unsafe_put_user(args->nr_requests, &user->nr_requests, fault);
	user_access_end();
	return true;
fault:
	user_access_end();
	return false;
}

static bool kvm_user_put_counts(const struct kvm_dev_user_exchange *args,
				struct kvm_dev_user_exchange __user *user)
{
	if (!user_write_access_begin(user, sizeof(*user)))
		return false;
	unsafe_put_user(args->nr_replies, &user->nr_replies, fault);
	unsafe_put_user(args->nr_requests, &user->nr_requests, fault);
	user_write_access_end();
	return true;
fault:
	user_write_access_end();
	return false;
}

static int kvm_user_exchange(struct file *file, struct kvm_dev_user_exchange __user *user)
{
	struct kvm_dev_user_exchange args;
	bool wait;
	int ret;

	if (!kvm_user_get_exchange(&args, user))
		return -EFAULT;
	if (args.pad || args.flags & ~KVM_USER_EXCHANGE_WAIT)
		return -EINVAL;

	kvm_user_alive(file->private_data);
	wait = args.flags & KVM_USER_EXCHANGE_WAIT && !(file->f_flags & O_NONBLOCK);
	ret = kvm_user_exchange_all(file->private_data, &args, wait);
	if (ret)
		return ret;
	return kvm_user_put_counts(&args, user) ? 0 : -EFAULT;
}

static int kvm_user_set_shadow_size(struct kvm_user_device *dev, void __user *arg)
{
	u64 size;

	if (copy_from_user(&size, arg, sizeof(size)))
		return -EFAULT;
	return kvm_user_shadow_resize(&dev->shadow, size);
}

static int kvm_user_set_shadow_map(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_shadow_ctrl args;
	struct kvm_user_map *map;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.pad)
		return -EINVAL;
	if (args.nr_entries > KVM_USER_MAX_SHADOW_ENTRIES)
		return -E2BIG;
	if (!args.nr_entries)
		return kvm_user_shadow_set_map(&dev->shadow, NULL);
	map = kvm_user_map_alloc(args.nr_entries);
	if (!map)
		return -ENOMEM;
	if (copy_from_user(map->entries, u64_to_user_ptr(args.entries),
			   array_size(args.nr_entries, sizeof(*map->entries)))) {
		kvfree(map);
		return -EFAULT;
	}
	return kvm_user_shadow_set_map(&dev->shadow, map);
}

static int kvm_user_set_coalesce(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_coalesce args;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.pad)
		return -EINVAL;
	return kvm_user_coalesce(dev, args.ns, args.stores);
}

static int kvm_user_make_ring(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_ring args;

	kvm_user_ring_layout(dev, &args);
	/* A ring that the process was not told of would take its requests. */
	if (copy_to_user(arg, &args, sizeof(args)))
		return -EFAULT;
	return kvm_user_ring_make(dev, &args);
}

static int kvm_user_enter_ring(struct file *file, void __user *arg)
{
	struct kvm_dev_user_ring_enter args;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.pad || args.flags & ~KVM_USER_RING_ENTER_WAIT)
		return -EINVAL;
	kvm_user_alive(file->private_data);
	return kvm_user_ring_enter(file->private_data, args.flags & KVM_USER_RING_ENTER_WAIT &&
						       !(file->f_flags & O_NONBLOCK));
}

static int kvm_user_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct kvm_user_device *dev = file->private_data;

	if (READ_ONCE(dev->dead))
		return -ENODEV;
	if (vma->vm_pgoff < KVM_USER_RING_OFFSET >> PAGE_SHIFT)
		return kvm_user_shadow_mmap(&dev->shadow, vma);
	vma->vm_pgoff -= KVM_USER_RING_OFFSET >> PAGE_SHIFT;
	return kvm_user_ring_mmap(dev, vma);
}

static __poll_t kvm_user_poll(struct file *file, poll_table *wait)
{
	struct kvm_user_device *dev = file->private_data;
	__poll_t events = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &dev->readable, wait);

	spin_lock(&dev->queue.lock);
	if (dev->queue.nr_sent < dev->queue.sent_limit)
		WRITE_ONCE(dev->stalled, false);
	if (kvm_user_ready(dev))
		events |= EPOLLIN | EPOLLRDNORM;
	if (dev->dead)
		events |= EPOLLHUP;
	spin_unlock(&dev->queue.lock);
	return events;
}

static long kvm_user_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct kvm_user_device *dev = file->private_data;
	void __user *user = (void __user *)arg;

	if (READ_ONCE(dev->dead))
		return -ENODEV;
	switch (command) {
	case KVM_DEV_USER_INFO:
		return kvm_user_info(dev, user);
	case KVM_DEV_USER_EXCHANGE:
		return kvm_user_exchange(file, user);
	case KVM_DEV_USER_SHADOW_SIZE:
		return kvm_user_set_shadow_size(dev, user);
	case KVM_DEV_USER_SHADOW_CTRL:
		return kvm_user_set_shadow_map(dev, user);
	case KVM_DEV_USER_COALESCE:
		return kvm_user_set_coalesce(dev, user);
	case KVM_DEV_USER_RING:
		return kvm_user_make_ring(dev, user);
	case KVM_DEV_USER_RING_ENTER:
		return kvm_user_enter_ring(file, user);
	default:
		return -ENOTTY;
	}
}

static void kvm_user_close(struct kvm_user_device *dev)
{
	u32 redelivered = 0, aborted = 0, on_close;

	/* What the process put into the image is not kept up any more. */
	kvm_user_shadow_clear_map(&dev->shadow);
	kvm_user_wake_reset(dev);
	kvm_user_ring_close(dev);

	spin_lock(&dev->queue.lock);
	dev->open = false;
	WRITE_ONCE(dev->stalled, false);
	on_close = dev->on_close;
	if (on_close == KVM_USER_ON_CLOSE_HOLD)
		redelivered = kvm_user_queue_redeliver(&dev->queue);
	else
		aborted = kvm_user_abort(dev);
	dev->counters[KVM_USER_REDELIVERED] += redelivered;
	spin_unlock(&dev->queue.lock);

	trace_kvm_user_closed(dev->id, on_close, redelivered, aborted);
	kvm_user_device_put(dev);
}

static int kvm_user_release(struct inode *inode, struct file *file)
{
	/* There is none if the device was busy. */
	if (file->private_data)
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
	.mmap = kvm_user_mmap,
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
	struct file *file;
	bool busy;
	int fd;

	fd = get_unused_fd_flags(flags);
	if (fd < 0)
		return fd;
	file = anon_inode_getfile("kvm-user-emulation", &kvm_user_emulation_fops, NULL,
				  O_RDWR | flags);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}

	spin_lock(&dev->queue.lock);
	busy = dev->open;
	if (!busy) {
		dev->open = true;
		WRITE_ONCE(dev->stalled, false);
	}
	spin_unlock(&dev->queue.lock);
	if (busy) {
		fput(file);
		put_unused_fd(fd);
		return -EBUSY;
	}

	kref_get(&dev->ref);
	file->private_data = dev;
	fd_install(fd, file);
	return fd;
}
