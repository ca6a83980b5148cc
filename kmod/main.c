// SPDX-License-Identifier: GPL-2.0
/*
 * Load and unload, in order.
 */
#include <linux/module.h>

#include "device.h"
#include "glue.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static int __init kvm_user_init(void)
{
	int ret;

	kvm_user_debugfs_init();
	ret = kvm_user_glue_init(&kvm_user_device_ops);
	if (ret)
		kvm_user_debugfs_exit();
	return ret;
}

static void __exit kvm_user_exit(void)
{
	kvm_user_glue_exit();
	kvm_user_debugfs_exit();
}

module_init(kvm_user_init);
module_exit(kvm_user_exit);

MODULE_DESCRIPTION("KVM device emulated by a process through a file descriptor");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
