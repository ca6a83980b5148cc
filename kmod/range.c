// SPDX-License-Identifier: GPL-2.0
/*
 * Guest physical ranges: where a device answers, and moving that while the
 * guest runs.
 *
 * Each placement of a range is a kvm_io_device of its own, with its address
 * fixed for life: a move puts the new one on the bus before it takes the old
 * one off, and an access finds one of them, whole.
 */
#include <kvm/iodev.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "device.h"
#include "glue.h"
#include "trace.h"

struct kvm_user_placement {
	struct kvm_io_device io;
	struct kvm_user_device *dev;
	u64 addr;
	u64 len;
	u32 bus;
	u32 id;
	bool *destroyed;	/* set, if there, by the destructor */
};

static struct kvm_user_placement *to_placement(struct kvm_io_device *io)
{
	return container_of(io, struct kvm_user_placement, io);
}

static struct kvm_user_target kvm_user_target(const struct kvm_user_placement *place,
					      gpa_t addr)
{
	return (struct kvm_user_target) {
		.dev = place->dev,
		.addr = addr,
		.offset = addr - place->addr,
		.range_id = place->id,
		.bus = place->bus,
	};
}

static int kvm_user_io_read(struct kvm_vcpu *vcpu, struct kvm_io_device *io,
			    gpa_t addr, int len, void *val)
{
	struct kvm_user_target target = kvm_user_target(to_placement(io), addr);

	return kvm_user_load(vcpu, &target, len, val);
}

static int kvm_user_io_write(struct kvm_vcpu *vcpu, struct kvm_io_device *io,
			     gpa_t addr, int len, const void *val)
{
	struct kvm_user_target target = kvm_user_target(to_placement(io), addr);

	return kvm_user_store(vcpu, &target, len, val);
}

/*
 * KVM calls this when the VM goes, when it lost a whole bus for lack of memory,
 * and, in later kernels, from kvm_io_bus_unregister_dev().
 */
static void kvm_user_io_destructor(struct kvm_io_device *io)
{
	struct kvm_user_placement *place = to_placement(io);

	if (place->destroyed)
		*place->destroyed = true;
	if (place->dev->ranges[place->id] == place)
		place->dev->ranges[place->id] = NULL;
	kfree(place);
}

static const struct kvm_io_device_ops kvm_user_io_ops = {
	.read = kvm_user_io_read,
	.write = kvm_user_io_write,
	.destructor = kvm_user_io_destructor,
};

static enum kvm_bus kvm_user_kvm_bus(u32 bus)
{
	return bus == KVM_USER_BUS_PIO ? KVM_PIO_BUS : KVM_MMIO_BUS;
}

static int kvm_user_placement_remove(struct kvm *kvm,
				     struct kvm_user_placement *place)
{
	bool destroyed = false;
	int ret;

	place->destroyed = &destroyed;
	ret = kvm_user_bus_remove(kvm, kvm_user_kvm_bus(place->bus), &place->io);
	if (!destroyed)
		kvm_user_io_destructor(&place->io);
	return ret;
}

static struct kvm_user_placement *
kvm_user_placement_add(struct kvm_user_device *dev, struct kvm *kvm,
		       const struct kvm_dev_user_pa_range *range)
{
	struct kvm_user_placement *place;
	int ret;

	place = kzalloc(sizeof(*place), GFP_KERNEL_ACCOUNT);
	if (!place)
		return ERR_PTR(-ENOMEM);
	kvm_iodevice_init(&place->io, &kvm_user_io_ops);
	place->dev = dev;
	place->addr = range->addr;
	place->len = range->len;
	place->bus = range->bus;
	place->id = range->id;

	ret = kvm_user_bus_add(kvm, kvm_user_kvm_bus(place->bus), place->addr,
			       place->len, &place->io);
	if (ret) {
		kfree(place);
		return ERR_PTR(ret);
	}
	return place;
}

static int kvm_user_range_check(const struct kvm_dev_user_pa_range *range)
{
	u64 end;

	if (range->flags || range->pad)
		return -EINVAL;
	if (range->id >= KVM_USER_MAX_RANGES)
		return -EINVAL;
	if (range->bus != KVM_USER_BUS_MMIO && range->bus != KVM_USER_BUS_PIO)
		return -EINVAL;
	/* Removing takes no address. */
	if (!range->len)
		return 0;
	if (range->len > KVM_USER_MAX_RANGE_LEN)
		return -EINVAL;
	if (check_add_overflow(range->addr, range->len, &end))
		return -EINVAL;
	if (range->bus == KVM_USER_BUS_PIO && end > KVM_USER_PIO_SIZE)
		return -EINVAL;
	return 0;
}

static bool kvm_user_range_overlaps(struct kvm_user_device *dev,
				    const struct kvm_dev_user_pa_range *range)
{
	u32 id;

	for (id = 0; id < KVM_USER_MAX_RANGES; id++) {
		struct kvm_user_placement *other = dev->ranges[id];

		if (other && id != range->id && other->bus == range->bus &&
		    other->addr < range->addr + range->len &&
		    range->addr < other->addr + other->len)
			return true;
	}
	return false;
}

static int kvm_user_range_replace(struct kvm_user_device *dev, struct kvm *kvm,
				  const struct kvm_dev_user_pa_range *range)
{
	u32 id = array_index_nospec(range->id, KVM_USER_MAX_RANGES);
	struct kvm_user_placement *new = NULL, *old = dev->ranges[id];

	lockdep_assert_held(&kvm->slots_lock);

	if (range->len) {
		if (kvm_user_range_overlaps(dev, range))
			return -EEXIST;
		new = kvm_user_placement_add(dev, kvm, range);
		if (IS_ERR(new))
			return PTR_ERR(new);
	} else if (!old) {
		return -ENOENT;
	}
	dev->ranges[id] = new;
	return old ? kvm_user_placement_remove(kvm, old) : 0;
}

/**
 * kvm_user_range_set - place, move or remove a range (KVM_DEV_USER_PA_RANGE)
 * @dev: the device
 * @kvm: its VM
 * @range: as user space gave it
 *
 * Return: 0; -EINVAL for a bad field; -EEXIST if it overlaps
 * another range of @dev; -ENOENT if there is none to remove; -ENOSPC if KVM's
 * bus is full; -ENOMEM.  An error changes nothing, unless KVM had no memory to
 * take a range off its bus and so lost the whole bus, which is -ENOMEM too.
 */
int kvm_user_range_set(struct kvm_user_device *dev, struct kvm *kvm,
		       const struct kvm_dev_user_pa_range *range)
{
	int ret = kvm_user_range_check(range);

	if (ret)
		return ret;
	mutex_lock(&kvm->slots_lock);
	ret = kvm_user_range_replace(dev, kvm, range);
	mutex_unlock(&kvm->slots_lock);
	if (!ret)
		trace_kvm_user_range(dev->id, range);
	return ret;
}
