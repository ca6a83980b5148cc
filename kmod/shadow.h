/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The shadow image, memory that the emulation process maps and guests load from
 * without a request, and the access map that says which loads do (O4).
 */
#ifndef KVM_USER_SHADOW_H
#define KVM_USER_SHADOW_H

#include <linux/kvm_user.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>

struct kvm_user_image;
struct vm_area_struct;

struct kvm_user_map {
	const void *data;		/* the image */
	u64 size;
	u32 nr_entries;
	struct kvm_user_shadow_entry entries[];	/* by range and offset */
};

struct kvm_user_shadow {
	struct mutex lock;		/* covers all; readers of the map use RCU */
	struct kvm_user_image *image;
	u64 size;			/* of @image; read without the lock */
	struct kvm_user_map __rcu *map;	/* NULL: empty */
};

void kvm_user_shadow_init(struct kvm_user_shadow *shadow);
void kvm_user_shadow_destroy(struct kvm_user_shadow *shadow);
u64 kvm_user_shadow_max_size(void);
u64 kvm_user_shadow_size(const struct kvm_user_shadow *shadow);
int kvm_user_shadow_resize(struct kvm_user_shadow *shadow, u64 size);
int kvm_user_shadow_mmap(struct kvm_user_shadow *shadow, struct vm_area_struct *vma);

struct kvm_user_map *kvm_user_map_alloc(u32 nr_entries);
int kvm_user_shadow_set_map(struct kvm_user_shadow *shadow, struct kvm_user_map *map);
void kvm_user_shadow_clear_map(struct kvm_user_shadow *shadow);

bool kvm_user_shadow_read(struct kvm_user_shadow *shadow, u32 range_id, u64 offset,
			  int len, u64 *data);

#endif /* KVM_USER_SHADOW_H */
