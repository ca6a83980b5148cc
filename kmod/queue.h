/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests of one device, from the guest's access to the reply: who is next,
 * which are with the emulation process, which nobody wants any more.
 *
 * Pure bookkeeping.  All memory is allocated in kvm_user_queue_init(): @depth
 * bounds the posted stores that are pending and, separately, the requests that
 * are sent; beyond these, each vCPU has at most two requests.
 */
#ifndef KVM_USER_QUEUE_H
#define KVM_USER_QUEUE_H

#include <linux/kvm_user.h>
#include <linux/list.h>
#include <linux/spinlock.h>

/* Where a request is; each state names the list that holds it. */
enum kvm_user_state {
	KVM_USER_FREE,		/* @free: not in use */
	KVM_USER_WAITING,	/* @waiting: a store without space, not accepted yet */
	KVM_USER_PENDING,	/* @pending: accepted, not read yet */
	KVM_USER_SENT,		/* @sent: read, not replied to yet */
	KVM_USER_RETIRED,	/* @retired: as above, but nobody waits for the reply */
};

struct kvm_user_entry {
	struct list_head node;
	struct hlist_node hash;		/* by sequence number, while SENT or RETIRED */
	struct kvm_user_request request;
	u64 order;			/* among all that were ever sent */
	enum kvm_user_state state;
};

struct kvm_user_queue {
	spinlock_t lock;		/* covers all below, and the device's own state */
	u32 depth;			/* most that may be posted */
	u32 sent_limit;			/* bound of @nr_sent */
	u32 posted;			/* stores in @pending */
	u32 nr_sent;			/* entries in @sent and @retired */
	u64 last_seq;
	u64 last_order;
	struct list_head free;
	struct list_head waiting;
	struct list_head pending;
	struct list_head sent;
	struct list_head retired;
	struct hlist_head *table;
	unsigned int table_bits;
	struct kvm_user_entry *entries;
};

int kvm_user_queue_init(struct kvm_user_queue *queue, u32 depth, u32 nr_vcpus);
void kvm_user_queue_destroy(struct kvm_user_queue *queue);

bool kvm_user_queue_full(const struct kvm_user_queue *queue);
struct kvm_user_entry *
kvm_user_queue_add(struct kvm_user_queue *queue,
		   const struct kvm_user_request *request);
struct kvm_user_entry *kvm_user_queue_admit(struct kvm_user_queue *queue);
u32 kvm_user_queue_take(struct kvm_user_queue *queue,
			struct kvm_user_request *requests, u32 count);
void kvm_user_queue_put_back(struct kvm_user_queue *queue,
			     const struct kvm_user_request *requests, u32 count);
struct kvm_user_entry *
kvm_user_queue_match(struct kvm_user_queue *queue,
		     const struct kvm_user_request *reply);
void kvm_user_queue_done(struct kvm_user_queue *queue, struct kvm_user_entry *entry);
void kvm_user_queue_retire(struct kvm_user_queue *queue,
			   struct kvm_user_entry *entry);
u32 kvm_user_queue_redeliver(struct kvm_user_queue *queue);
struct kvm_user_entry *kvm_user_queue_any(struct kvm_user_queue *queue);

/**
 * kvm_user_queue_readable - is there a request that may be sent now?
 * @queue: the device's queue; without its lock the answer is a guess
 *
 * Return: false while nothing is pending, and while the emulation process owes
 * @sent_limit replies.
 */
static inline bool kvm_user_queue_readable(const struct kvm_user_queue *queue)
{
	return !list_empty(&queue->pending) &&
	       READ_ONCE(queue->nr_sent) < READ_ONCE(queue->sent_limit);
}

#endif /* KVM_USER_QUEUE_H */
