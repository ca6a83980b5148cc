// SPDX-License-Identifier: GPL-2.0
/*
 * Shadow image and access map: see shadow.h.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sort.h>

#include "device.h"
#include "image.h"

#define KVM_USER_SHADOW_WIDTHS	(1 | 2 | 4 | 8)

static unsigned int max_shadow_size = SZ_1M;

static int kvm_user_set_max_shadow_size(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 0, SZ_1G);
}

static const struct kernel_param_ops kvm_user_max_shadow_size_ops = {
	.set = kvm_user_set_max_shadow_size,
	.get = param_get_uint,
};

module_param_cb(max_shadow_size, &kvm_user_max_shadow_size_ops, &max_shadow_size, 0644);
MODULE_PARM_DESC(max_shadow_size, "largest shadow image of a device, in bytes");

/**
 * kvm_user_shadow_init - a device without an image
 * @shadow: zeroed memory
 */
void kvm_user_shadow_init(struct kvm_user_shadow *shadow)
{
	mutex_init(&shadow->lock);
}

/**
 * kvm_user_shadow_destroy - let go of image and map
 * @shadow: nobody uses it any more; mappings of the image may
 */
void kvm_user_shadow_destroy(struct kvm_user_shadow *shadow)
{
	kvfree(rcu_dereference_protected(shadow->map, true));
	kvm_user_image_put(shadow->image);
}

/**
 * kvm_user_shadow_max_size - bound of an image
 *
 * Return: bytes.
 */
u64 kvm_user_shadow_max_size(void)
{
	return READ_ONCE(max_shadow_size);
}

/**
 * kvm_user_shadow_size - size of the present image
 * @shadow: of a device
 *
 * Return: bytes, 0 if there is none.
 */
u64 kvm_user_shadow_size(const struct kvm_user_shadow *shadow)
{
	/* The VMM asks too, and must not wait for the emulation process. */
	return READ_ONCE(shadow->size);
}

/**
 * kvm_user_shadow_resize - have a new image (KVM_DEV_USER_SHADOW_SIZE)
 * @shadow: of a device
 * @size: bytes
 *
 * Return: 0; -EINVAL: not a multiple of pages, or 0; -E2BIG: above the bound;
 * -EBUSY: the old image is mapped or has a map; -ENOMEM, -ENFILE; -EINTR.
 */
int kvm_user_shadow_resize(struct kvm_user_shadow *shadow, u64 size)
{
	struct kvm_user_image *new;
	int ret = 0;

	if (!size || !PAGE_ALIGNED(size))
		return -EINVAL;
	if (size > kvm_user_shadow_max_size())
		return -E2BIG;

	if (mutex_lock_killable(&shadow->lock))
		return -EINTR;
	if (rcu_access_pointer(shadow->map) || kvm_user_image_mapped(shadow->image)) {
		ret = -EBUSY;
		goto unlock;
	}
	new = kvm_user_image_alloc("kvm-user-shadow", size);
	if (IS_ERR(new)) {
		ret = PTR_ERR(new);
		goto unlock;
	}
	kvm_user_image_put(shadow->image);
	shadow->image = new;
	WRITE_ONCE(shadow->size, size);
unlock:
	mutex_unlock(&shadow->lock);
	return ret;
}

/**
 * kvm_user_shadow_mmap - map the image, or a part of it
 * @shadow: of a device
 * @vma: as mmap(2) made it
 *
 * Return: 0; -EINVAL: private, or beyond the image; -EPERM: executable; -EINTR.
 */
int kvm_user_shadow_mmap(struct kvm_user_shadow *shadow, struct vm_area_struct *vma)
{
	int ret;

	if (mutex_lock_killable(&shadow->lock))
		return -EINTR;
	ret = kvm_user_image_mmap(shadow->image, vma);
	mutex_unlock(&shadow->lock);
	return ret;
}

/**
 * kvm_user_map_alloc - room for an access map
 * @nr_entries: 1 to KVM_USER_MAX_SHADOW_ENTRIES
 *
 * Return: a map whose entries are to be filled in, or NULL.
 */
struct kvm_user_map *kvm_user_map_alloc(u32 nr_entries)
{
	struct kvm_user_map *map;

	map = kvmalloc(struct_size(map, entries, nr_entries),
		       GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (map)
		map->nr_entries = nr_entries;
	return map;
}

static int kvm_user_map_compare(const void *a, const void *b)
{
	const struct kvm_user_shadow_entry *x = a, *y = b;

	if (x->range_id != y->range_id)
		return x->range_id < y->range_id ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return 0;
}

static bool kvm_user_map_entry_valid(const struct kvm_user_shadow_entry *entry,
				     u64 image_size)
{
	u64 end;

	return entry->range_id < KVM_USER_MAX_RANGES &&
	       entry->sizes && !(entry->sizes & ~KVM_USER_SHADOW_WIDTHS) &&
	       entry->len && !check_add_overflow(entry->offset, entry->len, &end) &&
	       entry->image_offset < image_size &&
	       entry->len <= image_size - entry->image_offset;
}

/* Puts the entries in order, and says whether @image, if there is one, serves them. */
static bool kvm_user_map_prepare(struct kvm_user_map *map, const struct kvm_user_image *image)
{
	const struct kvm_user_shadow_entry *entry = map->entries;
	u32 i;

	if (!image)
		return false;
	map->data = image->data;
	map->size = image->size;
	for (i = 0; i < map->nr_entries; i++)
		if (!kvm_user_map_entry_valid(&entry[i], image->size))
			return false;
	sort(map->entries, map->nr_entries, sizeof(*entry), kvm_user_map_compare, NULL);
	for (i = 1; i < map->nr_entries; i++)
		if (entry[i].range_id == entry[i - 1].range_id &&
		    entry[i].offset - entry[i - 1].offset < entry[i - 1].len)
			return false;
	return true;
}

/* With @map NULL, empties it.  Waits for the loads that use the old one. */
static void kvm_user_shadow_replace_map(struct kvm_user_shadow *shadow,
					struct kvm_user_map *map)
{
	struct kvm_user_map *old;

	old = rcu_replace_pointer(shadow->map, map, lockdep_is_held(&shadow->lock));
	if (old) {
		synchronize_rcu();
		kvfree(old);
	}
}

/**
 * kvm_user_shadow_set_map - replace the access map (KVM_DEV_USER_SHADOW_CTRL)
 * @shadow: of a device
 * @map: as user space gave it; belongs to @shadow or is freed afterwards.  NULL:
 *	the empty one
 *
 * Return: 0; -EINVAL: a bad entry, or two that overlap; -EINTR.
 */
int kvm_user_shadow_set_map(struct kvm_user_shadow *shadow, struct kvm_user_map *map)
{
	int ret = 0;

	if (mutex_lock_killable(&shadow->lock)) {
		kvfree(map);
		return -EINTR;
	}
	if (map && !kvm_user_map_prepare(map, shadow->image)) {
		kvfree(map);
		ret = -EINVAL;
	} else {
		kvm_user_shadow_replace_map(shadow, map);
	}
	mutex_unlock(&shadow->lock);
	return ret;
}

/**
 * kvm_user_shadow_clear_map - have no load served from the image
 * @shadow: of a device
 */
void kvm_user_shadow_clear_map(struct kvm_user_shadow *shadow)
{
	mutex_lock(&shadow->lock);
	kvm_user_shadow_replace_map(shadow, NULL);
	mutex_unlock(&shadow->lock);
}

/* Where a load is answered from, or NULL: the last entry that begins at or before it. */
static const void *kvm_user_map_find(const struct kvm_user_map *map, u32 range_id,
				     u64 offset, int len)
{
	const struct kvm_user_shadow_entry key = { .range_id = range_id, .offset = offset };
	const struct kvm_user_shadow_entry *entry;
	u32 first = 0, end = map->nr_entries;
	u64 at;

	while (first < end) {
		u32 middle = first + (end - first) / 2;

		if (kvm_user_map_compare(&map->entries[middle], &key) <= 0)
			first = middle + 1;
		else
			end = middle;
	}
	if (!first)
		return NULL;
	entry = &map->entries[first - 1];
	/* A piece of an access that crosses a page may be of 3, 5, 6 or 7 bytes. */
	if (entry->range_id != range_id || !is_power_of_2(len) || !(entry->sizes & len))
		return NULL;
	at = offset - entry->offset;
	if (at >= entry->len || len > entry->len - at)
		return NULL;
	at += entry->image_offset;
	if (!IS_ALIGNED(offset, len) || !IS_ALIGNED(at, len))
		return NULL;
	return map->data + array_index_nospec(at, map->size);
}

/* Single-copy atomic: one load of the processor's, since @at is aligned to @len. */
static u64 kvm_user_image_read(const void *at, int len)
{
	switch (len) {
	case 1:
		return READ_ONCE(*(const u8 *)at);
	case 2:
		return READ_ONCE(*(const u16 *)at);
	case 4:
		return READ_ONCE(*(const u32 *)at);
	default:
		return READ_ONCE(*(const u64 *)at);
	}
}

/**
 * kvm_user_shadow_read - answer a load from the image
 * @shadow: of a device
 * @range_id: the range
 * @offset: in that range
 * @len: bytes
 * @data: gets the value
 *
 * Return: false if the access map does not cover the load.
 */
bool kvm_user_shadow_read(struct kvm_user_shadow *shadow, u32 range_id, u64 offset,
			  int len, u64 *data)
{
	const struct kvm_user_map *map;
	const void *at = NULL;

	rcu_read_lock();
	map = rcu_dereference(shadow->map);
	if (map)
		at = kvm_user_map_find(map, range_id, offset, len);
	if (at)
		*data = kvm_user_image_read(at, len);
	rcu_read_unlock();
	return at;
}
