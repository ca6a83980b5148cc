// SPDX-License-Identifier: GPL-2.0
/*
 * The KVM device: created and configured by the VMM, destroyed with its VM.
 */
#include <linux/fcntl.h>
#include <linux/jiffies.h>
#include <linux/kvm_user.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "device.h"
#include "trace.h"

static_assert(sizeof(struct kvm_dev_user_info) == 40);
static_assert(sizeof(struct kvm_dev_user_emulation_fd) == 8);
static_assert(sizeof(struct kvm_dev_user_pa_range) == 32);
static_assert(sizeof(struct kvm_dev_user_on_close) == 8);
static_assert(sizeof(struct kvm_dev_user_park) == 8);
static_assert(sizeof(struct kvm_dev_user_resume) == 24);
static_assert(sizeof(struct kvm_dev_user_exchange) == 32);
static_assert(sizeof(struct kvm_user_shadow_entry) == 32);
static_assert(sizeof(struct kvm_dev_user_shadow_ctrl) == 16);
static_assert(sizeof(struct kvm_dev_user_coalesce) == 16);
static_assert(sizeof(struct kvm_dev_user_ring) == 24);
static_assert(sizeof(struct kvm_dev_user_ring_enter) == 8);
static_assert(sizeof(struct kvm_user_ring) == 128);
static_assert(sizeof(struct kvm_user_request) == 40);

static unsigned int queue_depth = 256;

static int kvm_user_set_depth(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, KVM_USER_MIN_DEPTH, KVM_USER_MAX_DEPTH);
}

static const struct kernel_param_ops kvm_user_depth_ops = {
	.set = kvm_user_set_depth,
	.get = param_get_uint,
};

module_param_cb(queue_depth, &kvm_user_depth_ops, &queue_depth, 0644);
MODULE_PARM_DESC(queue_depth, "posted stores, and sent requests, that a new device holds");

static long kvm_user_jiffies(u64 ns)
{
	/* Two more: one for the part that is cut off, one for the jiffy that has begun. */
	return ns ? div_u64(ns, TICK_NSEC) + 2 : MAX_SCHEDULE_TIMEOUT;
}

static void kvm_user_device_free(struct kvm_user_device *dev)
{
	kvm_user_shadow_destroy(&dev->shadow);
	kvfree(dev->scores);
	kvm_user_queue_destroy(&dev->queue);
	kfree(dev);
}

static void kvm_user_device_release(struct kref *ref)
{
	kvm_user_device_free(container_of(ref, struct kvm_user_device, ref));
}

/**
 * kvm_user_device_put - give up a reference
 * @dev: the device, which may be gone after this
 */
void kvm_user_device_put(struct kvm_user_device *dev)
{
	kref_put(&dev->ref, kvm_user_device_release);
}

static struct kvm_user_device *kvm_user_device_alloc(u32 nr_vcpus)
{
	static atomic_t last_id;
	struct kvm_user_device *dev;
	u32 cpu;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL_ACCOUNT);
	if (!dev)
		return NULL;
	dev->nr_scores = nr_vcpus;
	dev->scores = kvcalloc(nr_vcpus, sizeof(*dev->scores), GFP_KERNEL_ACCOUNT);
	if (!dev->scores ||
	    kvm_user_queue_init(&dev->queue, READ_ONCE(queue_depth), nr_vcpus)) {
		kvm_user_device_free(dev);
		return NULL;
	}
	for (cpu = 0; cpu < nr_vcpus; cpu++)
		kvm_user_score_init(&dev->scores[cpu]);
	kref_init(&dev->ref);
	mutex_init(&dev->read_mutex);
	kvm_user_wake_init(dev);
	kvm_user_ring_init(dev);
	kvm_user_shadow_init(&dev->shadow);
	dev->timeout = kvm_user_jiffies(KVM_USER_DEFAULT_TIMEOUT_NS);
	dev->id = atomic_inc_return(&last_id);
	return dev;
}

static int kvm_user_create(struct kvm_device *kvm_dev, u32 type)
{
	struct kvm_user_device *dev;

	lockdep_assert_held(&kvm_dev->kvm->lock);

	/* KVM takes no reference for a device, so the device does. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	dev = kvm_user_device_alloc(kvm_dev->kvm->max_vcpus);
	if (!dev) {
		module_put(THIS_MODULE);
		return -ENOMEM;
	}
	kvm_user_debugfs_add(dev);
	kvm_dev->private = dev;
	return 0;
}

/* The VM goes: no vCPU is left, and KVM has run the placements' destructors. */
static void kvm_user_destroy(struct kvm_device *kvm_dev)
{
	struct kvm_user_device *dev = kvm_dev->private;

	kvm_user_debugfs_remove(dev);

	spin_lock(&dev->queue.lock);
	WRITE_ONCE(dev->dead, true);
	/* No reply can come from here on: all that is pending may be read. */
	WRITE_ONCE(dev->queue.sent_limit, U32_MAX);
	spin_unlock(&dev->queue.lock);
	kvm_user_wake_all(dev);

	kvm_user_device_put(dev);
	kfree(kvm_dev);
	module_put(THIS_MODULE);
}

#define KVM_USER_FEATURES						\
	(KVM_USER_FEATURE_ON_CLOSE | KVM_USER_FEATURE_PARK |		\
	 KVM_USER_FEATURE_EXCHANGE | KVM_USER_FEATURE_SHADOW |		\
	 KVM_USER_FEATURE_CUMULATIVE | KVM_USER_FEATURE_COALESCE |	\
	 KVM_USER_FEATURE_RING)

/**
 * kvm_user_info - say what a device offers (KVM_DEV_USER_INFO)
 * @dev: the device
 * @arg: user space's struct kvm_dev_user_info
 *
 * Return: 0 or -EFAULT.
 */
int kvm_user_info(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_info info = {
		.abi_version = KVM_USER_ABI_VERSION,
		.queue_depth = dev->queue.depth,
		.max_ranges = KVM_USER_MAX_RANGES,
		.max_vcpus = dev->nr_scores,
		.features = KVM_USER_FEATURES,
		.max_shadow_size = kvm_user_shadow_max_size(),
		.shadow_size = kvm_user_shadow_size(&dev->shadow),
	};

	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static int kvm_user_get_emulation_fd(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_emulation_fd args;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.pad || args.flags & ~(O_CLOEXEC | O_NONBLOCK))
		return -EINVAL;
	return kvm_user_emulation_fd(dev, args.flags);
}

static int kvm_user_set_range(struct kvm_user_device *dev, struct kvm *kvm,
			      void __user *arg)
{
	struct kvm_dev_user_pa_range range;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	return kvm_user_range_set(dev, kvm, &range);
}

static int kvm_user_set_timeout(struct kvm_user_device *dev, void __user *arg)
{
	u64 ns;

	if (copy_from_user(&ns, arg, sizeof(ns)))
		return -EFAULT;
	WRITE_ONCE(dev->timeout, kvm_user_jiffies(ns));
	return 0;
}

static int kvm_user_set_on_close(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_on_close args;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.pad || args.policy > KVM_USER_ON_CLOSE_EXIT)
		return -EINVAL;

	spin_lock(&dev->queue.lock);
	dev->on_close = args.policy;
	if (!dev->open && dev->on_close != KVM_USER_ON_CLOSE_HOLD)
		kvm_user_abort(dev);
	spin_unlock(&dev->queue.lock);
	return 0;
}

static int kvm_user_set_park(struct kvm_user_device *dev, void __user *arg)
{
	struct kvm_dev_user_park args;

	if (copy_from_user(&args, arg, sizeof(args)))
		return -EFAULT;
	if (args.pad || args.enable > 1)
		return -EINVAL;
	WRITE_ONCE(dev->park, args.enable);
	return 0;
}

static int kvm_user_resume_vcpu(struct kvm_user_device *dev, struct kvm *kvm,
				struct kvm_dev_user_resume __user *user)
{
	struct kvm_dev_user_resume args;
	int ret;

	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;
	/* kvm_get_vcpu() takes any index for one that is there. */
	if (args.pad || args.vcpu >= atomic_read(&kvm->online_vcpus))
		return -EINVAL;
	/* What is resumed could not be given a second time. */
	if (put_user(0, &user->data))
		return -EFAULT;
	ret = kvm_user_resume(dev, kvm_get_vcpu(kvm, args.vcpu), args.addr, &args.data);
	if (ret)
		return ret;
	return put_user(args.data, &user->data);
}

static long kvm_user_control_ioctl(struct kvm_device *kvm_dev, unsigned int command,
				   unsigned long arg)
{
	struct kvm_user_device *dev = kvm_dev->private;
	void __user *user = (void __user *)arg;

	switch (command) {
	case KVM_DEV_USER_INFO:
		return kvm_user_info(dev, user);
	case KVM_DEV_USER_EMULATION_FD:
		return kvm_user_get_emulation_fd(dev, user);
	case KVM_DEV_USER_PA_RANGE:
		return kvm_user_set_range(dev, kvm_dev->kvm, user);
	case KVM_DEV_USER_TIMEOUT:
		return kvm_user_set_timeout(dev, user);
	case KVM_DEV_USER_ON_CLOSE:
		return kvm_user_set_on_close(dev, user);
	case KVM_DEV_USER_PARK:
		return kvm_user_set_park(dev, user);
	case KVM_DEV_USER_RESUME:
		return kvm_user_resume_vcpu(dev, kvm_dev->kvm, user);
	default:
		return -ENOTTY;
	}
}

const struct kvm_device_ops kvm_user_device_ops = {
	.name = "kvm-user",
	.create = kvm_user_create,
	.destroy = kvm_user_destroy,
	.ioctl = kvm_user_control_ioctl,
};
