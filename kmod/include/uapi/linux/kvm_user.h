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
 * a signal.  It gives none either to a process that owes &kvm_dev_user_info's
 * queue_depth replies.  EINVAL: no room for a request.  EFAULT: nothing is lost.
 * After the VM is gone it gives what was still pending, and then 0.
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
 * An access that waits beyond the time limit is given up: a load reads all-ones,
 * a store that found the queue full is dropped, and so is every further one, at
 * once, until the process shows that it lives: it reads, writes or polls.  While
 * no emulation descriptor is open, loads read all-ones and stores are dropped.
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
 * struct kvm_dev_user_info - what this device offers (KVM_DEV_USER_INFO)
 * @abi_version: KVM_USER_ABI_VERSION of the kernel side
 * @queue_depth: posted stores that may be pending, and, separately, requests
 *	that may be read and not yet replied to
 * @max_ranges: a range id is below this
 * @max_vcpus: a vCPU index is below this
 * @features: optional parts that are present, as a mask; none is defined yet
 * @max_shadow_size: largest shadow image in bytes, 0 where there is none
 */
struct kvm_dev_user_info {
	__u32 abi_version;
	__u32 queue_depth;
	__u32 max_ranges;
	__u32 max_vcpus;
	__u64 features;
	__u64 max_shadow_size;
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
 * it.  Allowed in a reply; this version never sets it.
 */
#define KVM_USER_REQUEST_REDELIVERED	(1U << 0)

/**
 * define KVM_USER_REQUEST_FLAGS - all flags of a request.
 */
#define KVM_USER_REQUEST_FLAGS	KVM_USER_REQUEST_REDELIVERED

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
 * @flags: KVM_USER_REQUEST_FLAGS
 *
 * read(2) gives an array of requests, write(2) takes an array of replies: the
 * request with @data filled in.  A store must be replied to as well; the reply
 * acknowledges it, and loads of the same vCPU wait for that.
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

/*
 * Control descriptor.  KVM itself answers EIO to a process that is not the
 * VM's owner, and for a VM that is dead.
 */

/**
 * define KVM_DEV_USER_INFO - fill in a &struct kvm_dev_user_info
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
 * Takes a __u64: nanoseconds to wait for a reply or for space, 0 for no limit.
 */
#define KVM_DEV_USER_TIMEOUT		_IOW(KVMIO, 0xf3, __u64)

#endif /* _UAPI_LINUX_KVM_USER_H */
