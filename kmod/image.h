/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that the kernel and a process share.
 */
#ifndef KVM_USER_IMAGE_H
#define KVM_USER_IMAGE_H

#include <linux/types.h>

struct file;
struct vm_area_struct;

struct kvm_user_image {
	struct file *file;	/* frees it at the last mapping's and device's end */
	void *data;
	u64 size;
};

struct kvm_user_image *kvm_user_image_alloc(const char *name, u64 size);
void kvm_user_image_put(struct kvm_user_image *image);
bool kvm_user_image_mapped(const struct kvm_user_image *image);
int kvm_user_image_mmap(struct kvm_user_image *image, struct vm_area_struct *vma);

#endif /* KVM_USER_IMAGE_H */
