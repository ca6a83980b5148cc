// SPDX-License-Identifier: GPL-2.0
/*
 * Bugs, one of each kind that the kernel's checkers find: planted in the test
 * build, to show that a run of the tests would not miss them.  Writing a name to
 * the module parameter "plant" makes that bug happen.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#define KVM_USER_PLANT_BYTES	40

static int kvm_user_plant_out_of_bounds(void)
{
	size_t end = KVM_USER_PLANT_BYTES;
	char *bytes = kmalloc(end, GFP_KERNEL);

	if (!bytes)
		return -ENOMEM;
	/* The compiler would see it. */
	OPTIMIZER_HIDE_VAR(end);
	WRITE_ONCE(bytes[end], 1);
	kfree(bytes);
	return 0;
}

static int kvm_user_plant_use_after_free(void)
{
	char *bytes = kmalloc(KVM_USER_PLANT_BYTES, GFP_KERNEL), *stale = bytes;

	if (!bytes)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(stale);
	kfree(bytes);
	READ_ONCE(*stale);
	return 0;
}

static int kvm_user_plant_lock_inversion(void)
{
	static DEFINE_MUTEX(first);
	static DEFINE_MUTEX(second);

	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
	return 0;
}

static int kvm_user_plant_sleep_in_atomic(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	msleep(20);
	spin_unlock(&lock);
	return 0;
}

static int kvm_user_plant_rcu(void)
{
	static int __rcu *pointer;

	/* Outside of any reader's section. */
	return rcu_dereference(pointer) ? -EINVAL : 0;
}

static int kvm_user_race(void *counter)
{
	unsigned long end = jiffies + 10 * HZ;

	while (time_before(jiffies, end)) {
		++*(int *)counter;
		cond_resched();
	}
	return 0;
}

static int kvm_user_plant_data_race(void)
{
	static int counter;
	struct task_struct *other;

	other = kthread_run(kvm_user_race, &counter, "kvm-user-race");
	if (IS_ERR(other))
		return PTR_ERR(other);
	get_task_struct(other);
	kvm_user_race(&counter);
	kthread_stop(other);
	put_task_struct(other);
	return 0;
}

static int kvm_user_plant_leak(void)
{
	int i;

	/* Many: a register or the stack may hold on to the last. */
	for (i = 0; i < 16; i++) {
		void *lost = kmalloc(KVM_USER_PLANT_BYTES, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(lost);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*happen)(void);
} kvm_user_plants[] = {
	{ "out-of-bounds", kvm_user_plant_out_of_bounds },
	{ "use-after-free", kvm_user_plant_use_after_free },
	{ "lock-inversion", kvm_user_plant_lock_inversion },
	{ "sleep-in-atomic", kvm_user_plant_sleep_in_atomic },
	{ "rcu", kvm_user_plant_rcu },
	{ "data-race", kvm_user_plant_data_race },
	{ "leak", kvm_user_plant_leak },
};

static int kvm_user_plant(const char *name, const struct kernel_param *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(kvm_user_plants); i++)
		if (sysfs_streq(name, kvm_user_plants[i].name))
			return kvm_user_plants[i].happen();
	return -EINVAL;
}

static const struct kernel_param_ops kvm_user_plant_ops = {
	.set = kvm_user_plant,
};

module_param_cb(plant, &kvm_user_plant_ops, NULL, 0200);
MODULE_PARM_DESC(plant, "have a planted bug happen, for the tests of the checkers");
