/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One allocation of the current task fails, as if memory had run out.
 */
#ifndef KVM_USER_FAULT_H
#define KVM_USER_FAULT_H

#ifdef CONFIG_FAULT_INJECTION

#include <linux/sched.h>
#include <linux/slab.h>

#define FAULTS_NEED "write N to ignore-gfp-wait of failslab and fail_page_alloc in debugfs"

/* From now on, the @nth allocation fails. */
static inline void fail_allocation(unsigned int nth)
{
	WRITE_ONCE(current->fail_nth, nth);
}

/* Whether it came to that; no allocation fails from now on. */
static inline bool allocation_failed(void)
{
	bool failed = !READ_ONCE(current->fail_nth);

	WRITE_ONCE(current->fail_nth, 0);
	return failed;
}

/* The kernel leaves allocations that may wait alone, unless told otherwise. */
static inline bool faults_work(void)
{
	void *memory;

	fail_allocation(1);
	memory = kmalloc(8, GFP_KERNEL);
	kfree(memory);
	return allocation_failed() && !memory;
}

#endif /* CONFIG_FAULT_INJECTION */

#endif /* KVM_USER_FAULT_H */
