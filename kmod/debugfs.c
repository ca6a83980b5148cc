// SPDX-License-Identifier: GPL-2.0
/*
 * Counters of each device: <debugfs>/kvm_user/<process>-<device>, a line each.
 */
#include <linux/debugfs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>

#include "device.h"

static const char *const kvm_user_counter_names[KVM_USER_NR_COUNTERS] = {
	[KVM_USER_REQUESTS] = "requests",
	[KVM_USER_POSTED] = "posted",
	[KVM_USER_SPACE_WAITS] = "space_waits",
	[KVM_USER_TIMEOUTS] = "timeouts",
	[KVM_USER_KILLED] = "killed",
	[KVM_USER_PARKED] = "parked",
	[KVM_USER_LATE] = "late_replies",
	[KVM_USER_INVALID] = "invalid_replies",
	[KVM_USER_ALL_ONES] = "all_ones",
	[KVM_USER_DROPPED] = "dropped",
	[KVM_USER_REDELIVERED] = "redelivered",
	[KVM_USER_EXITS] = "exits",
};

static struct dentry *kvm_user_debugfs;

/* What vCPUs count for themselves, without a lock. */
static void kvm_user_show_scores(struct seq_file *file, struct kvm_user_device *dev)
{
	u64 hits = 0, longest = 0;
	u32 cpu;

	for (cpu = 0; cpu < dev->nr_scores; cpu++) {
		const struct kvm_user_score *score = &dev->scores[cpu];

		hits += READ_ONCE(score->shadow_hits);
		longest = max3(longest, READ_ONCE(score->running.longest),
			       READ_ONCE(score->parked.longest));
	}
	seq_printf(file, "shadow_hits %llu\nlongest_wait_ns %llu\n", hits, longest);
}

static int counters_show(struct seq_file *file, void *unused)
{
	struct kvm_user_device *dev = file->private;
	u64 counters[KVM_USER_NR_COUNTERS];
	int i;

	spin_lock(&dev->queue.lock);
	memcpy(counters, dev->counters, sizeof(counters));
	spin_unlock(&dev->queue.lock);
	for (i = 0; i < KVM_USER_NR_COUNTERS; i++)
		seq_printf(file, "%s %llu\n", kvm_user_counter_names[i], counters[i]);
	kvm_user_show_scores(file, dev);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

void kvm_user_debugfs_init(void)
{
	kvm_user_debugfs = debugfs_create_dir("kvm_user", NULL);
}

void kvm_user_debugfs_exit(void)
{
	debugfs_remove_recursive(kvm_user_debugfs);
}

void kvm_user_debugfs_add(struct kvm_user_device *dev)
{
	char name[24];

	snprintf(name, sizeof(name), "%d-%u", task_tgid_nr(current), dev->id);
	dev->debugfs = debugfs_create_file(name, 0444, kvm_user_debugfs, dev,
					   &counters_fops);
}

void kvm_user_debugfs_remove(struct kvm_user_device *dev)
{
	debugfs_remove(dev->debugfs);
}
