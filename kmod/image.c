// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that the kernel and a process share: a file of its own, so that a mapping
 * keeps neither the emulation descriptor open nor the device.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "image.h"

static int kvm_user_image_release(struct inode *inode, struct file *file)
{
	struct kvm_user_image *image = file->private_data;

	vfree(image->data);
	kfree(image);
	return 0;
}

static const struct file_operations kvm_user_image_fops = {
	.owner = THIS_MODULE,
	.release = kvm_user_image_release,
};

/**
 * kvm_user_image_alloc - zeroed memory for the kernel and a process
 * @name: of its file, as /proc shows it
 * @size: bytes, a multiple of pages
 *
 * Return: the image, or an error pointer: -ENOMEM, -ENFILE.
 */
struct kvm_user_image *kvm_user_image_alloc(const char *name, u64 size)
{
	struct kvm_user_image *image = kzalloc(sizeof(*image), GFP_KERNEL_ACCOUNT);

	if (!image)
		return ERR_PTR(-ENOMEM);
	image->size = size;
	image->data = __vmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN);
	image->file = image->data ?
		anon_inode_getfile(name, &kvm_user_image_fops, image, O_RDWR) :
		ERR_PTR(-ENOMEM);
	if (IS_ERR(image->file)) {
		int ret = PTR_ERR(image->file);

		vfree(image->data);
		kfree(image);
		return ERR_PTR(ret);
	}
	return image;
}

/**
 * kvm_user_image_put - the kernel needs it no more
 * @image: an image or NULL; what maps it keeps it
 */
void kvm_user_image_put(struct kvm_user_image *image)
{
	if (image)
		fput(image->file);
}

static vm_fault_t kvm_user_image_fault(struct vm_fault *vmf)
{
	struct kvm_user_image *image = vmf->vma->vm_file->private_data;

	/* mremap() may have made the mapping longer than the image. */
	if (vmf->pgoff >= image->size >> PAGE_SHIFT)
		return VM_FAULT_SIGBUS;
	vmf->page = vmalloc_to_page(image->data + (vmf->pgoff << PAGE_SHIFT));
	get_page(vmf->page);
	return 0;
}

static int kvm_user_image_mprotect(struct vm_area_struct *vma, unsigned long start,
				   unsigned long end, unsigned long flags)
{
	return flags & VM_EXEC ? -EPERM : 0;
}

static const struct vm_operations_struct kvm_user_image_vm_ops = {
	.fault = kvm_user_image_fault,
	.mprotect = kvm_user_image_mprotect,
};

/**
 * kvm_user_image_mapped - does a process have it?
 * @image: an image or NULL
 *
 * Return: true while there are mappings; whoever asks keeps new ones off.
 */
bool kvm_user_image_mapped(const struct kvm_user_image *image)
{
	return image && file_count(image->file) > 1;
}

/**
 * kvm_user_image_mmap - map it, or a part of it
 * @image: the image or NULL
 * @vma: as mmap(2) made it
 *
 * Return: 0; -EINVAL: none, private, or beyond the image; -EPERM: executable.
 */
int kvm_user_image_mmap(struct kvm_user_image *image, struct vm_area_struct *vma)
{
	u64 pages = image ? image->size >> PAGE_SHIFT : 0;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	if (vma->vm_pgoff >= pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return -EINVAL;
	vma_set_file(vma, image->file);
	vma->vm_ops = &kvm_user_image_vm_ops;
	return 0;
}
