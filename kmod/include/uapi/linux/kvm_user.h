/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/*
 * KVM_DEV_TYPE_USER: a KVM device whose guest accesses are answered by a
 * process, through a file descriptor.
 *
 * The VMM makes the device with KVM_CREATE_DEVICE and configures it through
 * the *control descriptor* which that returns (the proposal's "master
 * descriptor").  KVM_DEV_USER_EMULATION_FD makes the *emulation descriptor*
 * (the proposal's "slave descriptor"), which the VMM hands to the emulation
 * process: read(2) takes requests from it, write(2) gives replies.
 *
 * The type for KVM_CREATE_DEVICE is KVM_DEV_TYPE_USER where <linux/kvm.h> has
 * it, else what /sys/module/kvm_user/parameters/device_type says.
 *
 * On the emulation descriptor:
 *
 * read(2) takes as many pending requests as fit, oldest first.  If there is none
 * it waits, or fails with EAGAIN on a non-blocking descriptor, or with EINTR at
 * a signal; EBUSY: KVM_DEV_USER_RING has requests go elsewhere.  It gives none either
 * to a process that owes &kvm_dev_user_info's queue_depth replies.  EINVAL: no room
 * for a request.  EFAULT: nothing is lost.  After the VM is gone it gives what was
 * still pending, and then 0.
 *
 * write(2) takes replies in order up to the first bad one, and says how many
 * bytes it took.  If that is the very first one, the error is EINVAL (it answers
 * no request that was read, or differs from it), or ESTALE: nobody waits for it
 * any more, it counts as replied to, and the next reply is the one to go on with.
 * EINVAL: a size that is no multiple of a reply.  ENODEV: the VM is gone.
 *
 * poll(2): EPOLLIN while a read would give a request, EPOLLOUT always, EPOLLHUP
 * once the VM is gone.
 *
 * mmap(2), MAP_SHARED only: the shadow image or a page-aligned part of it, and from
 * KVM_USER_RING_OFFSET on the ring.  EINVAL: private, or beyond that.  EPERM:
 * executable.  ENODEV: the VM is gone.  A mapping outlives descriptor and VM, and does
 * not keep the descriptor open.
 *
 * An access that waits beyond the time limit is given up (each piece of one, if KVM
 * makes it in pieces, has the whole limit): a load reads all-ones,
 * a store that found the queue full is dropped, and so is every further one, at
 * once, until the process shows that it lives: it reads, writes, polls or uses its
 * ring.  While
 * no emulation descriptor is open, KVM_DEV_USER_ON_CLOSE says what accesses get.
 */
#ifndef _UAPI_LINUX_KVM_USER_H
#define _UAPI_LINUX_KVM_USER_H

#include <linux/ioctl.h>
#include <linux/kvm.h>
#include <linux/types.h>

/**
 * define KVM_USER_ABI_VERSION - value of &kvm_dev_user_info.abi_version
 */
#define KVM_USER_ABI_VERSION	1

/**
 * define KVM_USER_FEATURE_ON_CLOSE - KVM_DEV_USER_ON_CLOSE is there
 */
#define KVM_USER_FEATURE_ON_CLOSE	(1ULL << 0)
/**
 * define KVM_USER_FEATURE_PARK - KVM_DEV_USER_PARK and _RESUME are there
 */
#define KVM_USER_FEATURE_PARK		(1ULL << 1)
/**
 * define KVM_USER_FEATURE_EXCHANGE - KVM_DEV_USER_EXCHANGE is there
 */
#define KVM_USER_FEATURE_EXCHANGE	(1ULL << 2)
/**
 * define KVM_USER_FEATURE_SHADOW - KVM_DEV_USER_SHADOW_SIZE and _CTRL are there
 */
#define KVM_USER_FEATURE_SHADOW		(1ULL << 3)
/**
 * define KVM_USER_FEATURE_CUMULATIVE - KVM_USER_REPLY_CUMULATIVE is there
 */
#define KVM_USER_FEATURE_CUMULATIVE	(1ULL << 4)
/**
 * define KVM_USER_FEATURE_COALESCE - KVM_DEV_USER_COALESCE is there
 */
#define KVM_USER_FEATURE_COALESCE	(1ULL << 5)
/**
 * define KVM_USER_FEATURE_RING - KVM_DEV_USER_RING and _RING_ENTER are there
 */
#define KVM_USER_FEATURE_RING		(1ULL << 6)

/**
 * struct kvm_dev_user_info - what this device offers (KVM_DEV_USER_INFO)
 * @abi_version: KVM_USER_ABI_VERSION of the kernel side
 * @queue_depth: posted stores that may be pending, and, separately, requests
 *	that may be read and not yet replied to
 * @max_ranges: a range id is below this
 * @max_vcpus: a vCPU index is below this
 * @features: KVM_USER_FEATURE_* that are present
 * @max_shadow_size: largest shadow image in bytes, 0 where there is none
 * @shadow_size: the present shadow image in bytes, 0 while there is none
 */
struct kvm_dev_user_info {
	__u32 abi_version;
	__u32 queue_depth;
	__u32 max_ranges;
	__u32 max_vcpus;
	__u64 features;
	__u64 max_shadow_size;
	__u64 shadow_size;
};

/**
 * struct kvm_dev_user_emulation_fd - for KVM_DEV_USER_EMULATION_FD
 * @flags: O_CLOEXEC, O_NONBLOCK or both; anything else is EINVAL
 * @pad: must be 0
 */
struct kvm_dev_user_emulation_fd {
	__u32 flags;
	__u32 pad;
};

/**
 * define KVM_USER_BUS_MMIO - bus of a range in guest physical memory.
 */
#define KVM_USER_BUS_MMIO	0
/**
 * define KVM_USER_BUS_PIO - bus of a range of I/O ports.
 */
#define KVM_USER_BUS_PIO	1

/**
 * define KVM_USER_PIO_SIZE - the port bus ends here.
 */
#define KVM_USER_PIO_SIZE	0x10000

/**
 * define KVM_USER_MAX_RANGE_LEN - longest range; KVM's bus keeps an int.
 */
#define KVM_USER_MAX_RANGE_LEN	0x7fffffff

/**
 * struct kvm_dev_user_pa_range - for KVM_DEV_USER_PA_RANGE
 * @addr: first guest physical address or port
 * @len: length in bytes; 0 removes the range, and @addr is then ignored
 * @bus: KVM_USER_BUS_MMIO or KVM_USER_BUS_PIO
 * @id: the caller's name for the range, below &kvm_dev_user_info.max_ranges;
 *	a known id moves to the new place
 * @flags: must be 0
 * @pad: must be 0
 */
struct kvm_dev_user_pa_range {
	__u64 addr;
	__u64 len;
	__u32 bus;
	__u32 id;
	__u32 flags;
	__u32 pad;
};

/**
 * define KVM_USER_DEFAULT_TIMEOUT_NS - time limit of a new device, 5 s
 */
#define KVM_USER_DEFAULT_TIMEOUT_NS	5000000000ULL

/**
 * define KVM_USER_ON_CLOSE_ABORT - loads read all-ones, stores are dropped.
 */
#define KVM_USER_ON_CLOSE_ABORT	0
/**
 * define KVM_USER_ON_CLOSE_HOLD - accesses wait for a new emulation descriptor
 *
 * Stores that the queue has space for are taken, all else waits up to the time
 * limit; once that has passed, nothing more waits until there is a descriptor.
 * Requests that were read and not replied to are delivered again.
 */
#define KVM_USER_ON_CLOSE_HOLD	1
/**
 * define KVM_USER_ON_CLOSE_EXIT - accesses go to the VMM
 *
 * As KVM_EXIT_MMIO or KVM_EXIT_IO.  What was under way at the close is aborted.
 */
#define KVM_USER_ON_CLOSE_EXIT	2

/**
 * struct kvm_dev_user_on_close - for KVM_DEV_USER_ON_CLOSE
 * @policy: KVM_USER_ON_CLOSE_*
 * @pad: must be 0
 */
struct kvm_dev_user_on_close {
	__u32 policy;
	__u32 pad;
};

/**
 * struct kvm_dev_user_park - for KVM_DEV_USER_PARK
 * @enable: 1 to have waiting accesses parked by signals, 0 (default) to not
 * @pad: must be 0
 */
struct kvm_dev_user_park {
	__u32 enable;
	__u32 pad;
};

/**
 * struct kvm_dev_user_resume - for KVM_DEV_USER_RESUME
 * @addr: in: run->mmio.phys_addr of the exit
 * @data: out: what the load gave; of less than 8 bytes the upper ones, and the
 *	whole of a store, mean nothing
 * @vcpu: in: index of the vCPU, in the order of creation
 * @pad: must be 0
 */
struct kvm_dev_user_resume {
	__u64 addr;
	__u64 data;
	__u32 vcpu;
	__u32 pad;
};

/**
 * define KVM_USER_LOAD - type of a request that wants data back.
 */
#define KVM_USER_LOAD	0
/**
 * define KVM_USER_STORE - type of a request that carries data.
 */
#define KVM_USER_STORE	1

/**
 * define KVM_USER_REQUEST_REDELIVERED - flag of a request that was read before
 *
 * It was so through an emulation descriptor that was closed without a reply to
 * it, under KVM_USER_ON_CLOSE_HOLD.  Allowed in a reply, and ignored there.
 */
#define KVM_USER_REQUEST_REDELIVERED	(1U << 0)

/**
 * define KVM_USER_REQUEST_FLAGS - all flags of a request.
 */
#define KVM_USER_REQUEST_FLAGS	KVM_USER_REQUEST_REDELIVERED

/**
 * define KVM_USER_REPLY_CUMULATIVE - flag of a reply for more than its request
 *
 * It acknowledges every store as well that was read before its request, also if the
 * reply itself is ESTALE.
 */
#define KVM_USER_REPLY_CUMULATIVE	(1U << 1)

/**
 * define KVM_USER_REPLY_FLAGS - all flags of a reply.
 */
#define KVM_USER_REPLY_FLAGS	(KVM_USER_REQUEST_FLAGS | KVM_USER_REPLY_CUMULATIVE)

/**
 * struct kvm_user_request - a guest access, and the reply to it
 * @seq: names the request; unique in the device's life and never 0.  Nothing
 *	else may be concluded from it
 * @offset: bytes from the start of the range; in a reply ignored
 * @data: value, little endian, unused bytes zero.  In a request for a load 0;
 *	in a reply to a store ignored, in a reply to a load the upper bytes are
 * @range_id: the id that KVM_DEV_USER_PA_RANGE gave
 * @cpu: index of the vCPU, in the order of creation; in a reply ignored
 * @type: KVM_USER_LOAD or KVM_USER_STORE
 * @len: bytes, 1 to 8.  A 16-byte access comes as two requests, and one that
 *	crosses a page comes in two parts of whatever size, 3 + 5 say
 * @flags: KVM_USER_REQUEST_FLAGS; in a reply KVM_USER_REPLY_FLAGS
 *
 * read(2) gives an array of requests, write(2) takes an array of replies: the
 * request with @data filled in.  A store must be replied to as well, if a later
 * KVM_USER_REPLY_CUMULATIVE does not stand for that; the reply acknowledges it, and
 * loads of the same vCPU wait for that.
 */
struct kvm_user_request {
	__u64 seq;
	__u64 offset;
	__u64 data;
	__u32 range_id;
	__u32 cpu;
	__u16 type;
	__u16 len;
	__u32 flags;
};

/**
 * define KVM_USER_EXCHANGE_WAIT - flag: wait for a request
 */
#define KVM_USER_EXCHANGE_WAIT	(1U << 0)

/**
 * struct kvm_dev_user_exchange - for KVM_DEV_USER_EXCHANGE
 * @replies: address of an array of &struct kvm_user_request
 * @requests: address of room for such an array; may be that of @replies
 * @nr_replies: in: replies in @replies; out: how many were accepted
 * @nr_requests: in: room in @requests; out: how many were given
 * @flags: KVM_USER_EXCHANGE_WAIT or 0
 * @pad: must be 0
 */
struct kvm_dev_user_exchange {
	__u64 replies;
	__u64 requests;
	__u32 nr_replies;
	__u32 nr_requests;
	__u32 flags;
	__u32 pad;
};

/**
 * define KVM_USER_MAX_COALESCE_NS - longest that stores are held back, 1 s
 */
#define KVM_USER_MAX_COALESCE_NS	1000000000ULL

/**
 * struct kvm_dev_user_coalesce - for KVM_DEV_USER_COALESCE
 * @ns: how long a store may be held back, 1 to KVM_USER_MAX_COALESCE_NS
 * @stores: how many wake a thread at once, at least 1; 0, with @ns 0 (default):
 *	every one does
 * @pad: must be 0
 */
struct kvm_dev_user_coalesce {
	__u64 ns;
	__u32 stores;
	__u32 pad;
};

/**
 * define KVM_USER_RING_OFFSET - where mmap(2) of the emulation descriptor has the ring.
 */
#define KVM_USER_RING_OFFSET	(1ULL << 32)

/**
 * define KVM_USER_RING_STRIDE - bytes from one entry of the ring to the next.
 */
#define KVM_USER_RING_STRIDE	64

/**
 * define KVM_USER_RING_NEED_ENTER - flag: replies need KVM_DEV_USER_RING_ENTER
 *
 * A vCPU sleeps, or requests are not given as long as queue_depth others are owed; or
 * it was so, and the kernel has not looked since.
 */
#define KVM_USER_RING_NEED_ENTER	(1U << 0)

/**
 * struct kvm_user_ring - the beginning of the ring's memory
 * @request_head: requests given since the ring was made; the kernel counts
 * @reply_tail: replies that the kernel has looked at
 * @refused: how many of them it did not take, for what write(2) says EINVAL or
 *	ESTALE to
 * @flags: KVM_USER_RING_NEED_ENTER
 * @kernel_pad: 0
 * @request_tail: requests that the process has taken; the process counts
 * @reply_head: replies that it has given
 * @process_pad: not looked at
 *
 * The counts wrap at 2^32.  Request n is &struct kvm_user_request number
 * n modulo @entries, KVM_USER_RING_STRIDE bytes each, at @requests_offset, and so are
 * replies at @replies_offset; &struct kvm_dev_user_ring tells these three.  Who
 * counts stores the entry first, then the count, as a release; who reads
 * the count does so as an acquire.
 *
 * Request n's place is request n + @entries's as soon as fewer than queue_depth are
 * owed a reply, whatever @request_tail says: copy a request out before you reply to
 * a later one.  No request that nothing later was replied to is ever written over.
 */
struct kvm_user_ring {
	__u32 request_head;
	__u32 reply_tail;
	__u32 refused;
	__u32 flags;
	__u32 kernel_pad[12];
	__u32 request_tail;
	__u32 reply_head;
	__u32 process_pad[14];
};

/**
 * struct kvm_dev_user_ring - for KVM_DEV_USER_RING, which fills it in
 * @size: bytes to map at KVM_USER_RING_OFFSET
 * @entries: how many requests the ring has room for, and how many replies
 * @requests_offset: where the requests begin, in bytes
 * @replies_offset: where the replies begin, in bytes
 * @pad: 0
 */
struct kvm_dev_user_ring {
	__u64 size;
	__u32 entries;
	__u32 requests_offset;
	__u32 replies_offset;
	__u32 pad;
};

/**
 * define KVM_USER_RING_ENTER_WAIT - flag: wait until there is a request
 */
#define KVM_USER_RING_ENTER_WAIT	(1U << 0)

/**
 * struct kvm_dev_user_ring_enter - for KVM_DEV_USER_RING_ENTER
 * @flags: KVM_USER_RING_ENTER_WAIT or 0
 * @pad: must be 0
 */
struct kvm_dev_user_ring_enter {
	__u32 flags;
	__u32 pad;
};

/**
 * define KVM_USER_MAX_SHADOW_ENTRIES - most entries of an access map.
 */
#define KVM_USER_MAX_SHADOW_ENTRIES	4096

/**
 * struct kvm_user_shadow_entry - part of a range that the shadow image answers
 * @offset: first byte, from the start of the range
 * @len: bytes, at least 1
 * @image_offset: where they lie in the image
 * @range_id: the range, which may be placed later
 * @sizes: widths of loads that are served: any of 1, 2, 4 and 8, or-ed
 *
 * A load is served if it lies within one entry, is of one of its @sizes, and is
 * aligned to its width both in the range and in the image.
 */
struct kvm_user_shadow_entry {
	__u64 offset;
	__u64 len;
	__u64 image_offset;
	__u32 range_id;
	__u32 sizes;
};

/**
 * struct kvm_dev_user_shadow_ctrl - for KVM_DEV_USER_SHADOW_CTRL
 * @entries: address of an array of &struct kvm_user_shadow_entry, in any order
 * @nr_entries: how many, up to KVM_USER_MAX_SHADOW_ENTRIES; 0 empties the map
 * @pad: must be 0
 */
struct kvm_dev_user_shadow_ctrl {
	__u64 entries;
	__u32 nr_entries;
	__u32 pad;
};

/*
 * Control descriptor.  KVM itself answers EIO to a process that is not the
 * VM's owner, and for a VM that is dead.
 */

/**
 * define KVM_DEV_USER_INFO - fill in a &struct kvm_dev_user_info
 *
 * Also on the emulation descriptor, whose holder cannot ask the control one.
 */
#define KVM_DEV_USER_INFO		_IOR(KVMIO, 0xf0, struct kvm_dev_user_info)

/**
 * define KVM_DEV_USER_EMULATION_FD - make the emulation descriptor
 *
 * Takes a &struct kvm_dev_user_emulation_fd and returns the descriptor; EBUSY
 * while the device has one.
 */
#define KVM_DEV_USER_EMULATION_FD	_IOW(KVMIO, 0xf1, struct kvm_dev_user_emulation_fd)

/**
 * define KVM_DEV_USER_PA_RANGE - place, move or remove a range
 *
 * Takes a &struct kvm_dev_user_pa_range.  EINVAL for a bad field, EEXIST if it
 * overlaps another range of the device, ENOENT if there is none to remove,
 * ENOSPC if KVM's bus is full.  A move needs room for both places.
 */
#define KVM_DEV_USER_PA_RANGE		_IOW(KVMIO, 0xf2, struct kvm_dev_user_pa_range)

/**
 * define KVM_DEV_USER_TIMEOUT - how long an access may wait
 *
 * Takes a __u64: nanoseconds to wait for a reply or for space, 0 for no limit.  Up to
 * two of the kernel's clock ticks are added.
 */
#define KVM_DEV_USER_TIMEOUT		_IOW(KVMIO, 0xf3, __u64)

/**
 * define KVM_DEV_USER_ON_CLOSE - what accesses get with no emulation descriptor
 *
 * Takes a &struct kvm_dev_user_on_close; KVM_USER_ON_CLOSE_ABORT is the default.
 * Leaving KVM_USER_ON_CLOSE_HOLD while accesses are held aborts them.
 */
#define KVM_DEV_USER_ON_CLOSE		_IOW(KVMIO, 0xf4, struct kvm_dev_user_on_close)

/**
 * define KVM_DEV_USER_PARK - let signals end a vCPU's wait
 *
 * Takes a &struct kvm_dev_user_park.  While enabled, a signal that a thread does
 * not block, and whose vCPU waits here, makes KVM_RUN return as KVM_EXIT_MMIO for
 * that access, while the request stays where it is; so does run->immediate_exit, if
 * it is set when the wait would begin.  KVM_DEV_USER_RESUME is then
 * owed before the next KVM_RUN of that vCPU, else the request is given up at the
 * vCPU's next access to the device: a load's reply is ESTALE, if it was read, and a
 * store without space is dropped.
 *
 * Some accesses are not parked, but wait as ever: to ports; those of guests with
 * encrypted state; what follows, in its instruction, an access that is parked or
 * left to the VMM; 8 bytes, where KVM could run out of fragments if they
 * began a longer access: a load that ends less than 24, a store that ends less than
 * 1016 bytes before the end of a page, but not at it.  A load that the shadow image
 * would have answered after older stores becomes a request, in order to be parked.
 */
#define KVM_DEV_USER_PARK		_IOW(KVMIO, 0xf5, struct kvm_dev_user_park)

/**
 * define KVM_DEV_USER_RESUME - wait for a parked access to complete
 *
 * Takes a &struct kvm_dev_user_resume and waits for the load's reply, as KVM_RUN
 * would have done, or for the store to be queued.  With @data in run->mmio.data
 * the vCPU can then be run.  ENOENT: nothing is parked, or at another address: the
 * exit is the VMM's.  EINTR: a signal that the calling thread does not block, or
 * run->immediate_exit was set and the access had not completed; it stays parked.
 * EBUSY: another thread waits for it.  EINVAL: no such vCPU.  The time limit goes
 * on with what the access has left of it.
 */
#define KVM_DEV_USER_RESUME		_IOWR(KVMIO, 0xf6, struct kvm_dev_user_resume)

/* Emulation descriptor.  ENODEV once the VM is gone. */

/**
 * define KVM_DEV_USER_EXCHANGE - write(2) and read(2) in one call
 *
 * Takes a &struct kvm_dev_user_exchange: the replies first, and if all of them
 * were accepted, then requests.  Fails as write(2) does where the first reply is
 * bad.  Without KVM_USER_EXCHANGE_WAIT, on a non-blocking descriptor, or where a
 * signal or the end of the VM ends the wait after replies were accepted, it
 * succeeds with no request; with none accepted a signal is EINTR, as for read(2).
 */
#define KVM_DEV_USER_EXCHANGE		_IOWR(KVMIO, 0xf8, struct kvm_dev_user_exchange)

/**
 * define KVM_DEV_USER_SHADOW_SIZE - make the shadow image
 *
 * Takes a __u64: bytes, a multiple of the page size, not 0 (EINVAL); the image is
 * zeroed.  EBUSY if there is one with a map that is not empty, or mapped somewhere.
 * E2BIG: more than &kvm_dev_user_info.max_shadow_size.
 */
#define KVM_DEV_USER_SHADOW_SIZE	_IOW(KVMIO, 0xf9, __u64)

/**
 * define KVM_DEV_USER_SHADOW_CTRL - say which loads the shadow image answers
 *
 * Takes a &struct kvm_dev_user_shadow_ctrl, which replaces the whole map; once it
 * returns, no load uses the old one.  EINVAL: entries of a range overlap, or one
 * leaves the image.  E2BIG: too many.  The last close of the emulation descriptor
 * empties the map; the image stays.
 */
#define KVM_DEV_USER_SHADOW_CTRL	_IOW(KVMIO, 0xfa, struct kvm_dev_user_shadow_ctrl)

/**
 * define KVM_DEV_USER_COALESCE - wake a thread once for several stores
 *
 * Takes a &struct kvm_dev_user_coalesce.  A thread that waits in read(2), poll(2) or
 * KVM_DEV_USER_EXCHANGE is woken when so many posted stores are pending, or when
 * one of them has been for so long; at once for a load, for a store without space
 * and for a shadow load that waits for stores.  A call that need not wait gets all
 * that is pending, as ever.  The last close switches it off.
 */
#define KVM_DEV_USER_COALESCE		_IOW(KVMIO, 0xfb, struct kvm_dev_user_coalesce)

/**
 * define KVM_DEV_USER_RING - have requests and replies in shared memory
 *
 * Fills in a &struct kvm_dev_user_ring.  Until the last close, requests are then
 * given in a &struct kvm_user_ring, as soon as they are queued, and read(2) is EBUSY;
 * replies are taken from there, by write(2) and by KVM_DEV_USER_EXCHANGE, which gives
 * no requests, and is EBUSY without replies.  The kernel looks at replies when a vCPU
 * accesses the device or waits awake; while KVM_USER_RING_NEED_ENTER is set that is
 * not enough, and KVM_DEV_USER_RING_ENTER is needed: it has to be looked at, after a
 * full barrier, when replies were given.  EBUSY: there is a ring.  ENOMEM, ENFILE;
 * EINTR: a fatal signal.
 */
#define KVM_DEV_USER_RING		_IOR(KVMIO, 0xfc, struct kvm_dev_user_ring)

/**
 * define KVM_DEV_USER_RING_ENTER - have replies looked at, and wait for requests
 *
 * Takes a &struct kvm_dev_user_ring_enter.  With KVM_USER_RING_ENTER_WAIT, and if the
 * descriptor is not non-blocking, it returns when request_head is not what the
 * process has in request_tail, or the VM is gone, which only those counts and the next
 * call tell.  EINVAL: there is no ring, or an unknown flag.  EINTR: a signal.
 */
#define KVM_DEV_USER_RING_ENTER		_IOW(KVMIO, 0xfd, struct kvm_dev_user_ring_enter)

#endif /* _UAPI_LINUX_KVM_USER_H */
