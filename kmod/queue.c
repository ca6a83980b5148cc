// SPDX-License-Identifier: GPL-2.0
/*
 * Requests of one device: see queue.h.
 *
 * Everything but init and destroy runs under queue->lock.
 */
#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/mm.h>

#include "queue.h"

/**
 * kvm_user_queue_init - allocate all that a device's requests will ever need
 * @queue: to be initialised
 * @depth: bound of the posted stores and of the sent requests, at least 1
 * @nr_vcpus: how many vCPUs there may be, each with two loads or waiting stores
 *	at a time: one that is parked, and one that it makes
 *
 * Return: 0, or -ENOMEM; kvm_user_queue_destroy() is owed either way.
 */
int kvm_user_queue_init(struct kvm_user_queue *queue, u32 depth, u32 nr_vcpus)
{
	/* depth posted, depth sent or retired, and what waits */
	u32 count = 2 * depth + 2 * nr_vcpus;
	u32 i;

	*queue = (struct kvm_user_queue) {
		.depth = depth,
		.sent_limit = depth,
		.table_bits = order_base_2(depth) + 1,
	};
	spin_lock_init(&queue->lock);
	INIT_LIST_HEAD(&queue->free);
	INIT_LIST_HEAD(&queue->waiting);
	INIT_LIST_HEAD(&queue->pending);
	INIT_LIST_HEAD(&queue->sent);
	INIT_LIST_HEAD(&queue->retired);

	queue->table = kvcalloc(1U << queue->table_bits, sizeof(*queue->table),
				GFP_KERNEL_ACCOUNT);
	queue->entries = kvcalloc(count, sizeof(*queue->entries),
				  GFP_KERNEL_ACCOUNT);
	if (!queue->table || !queue->entries)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		list_add_tail(&queue->entries[i].node, &queue->free);
	return 0;
}

/**
 * kvm_user_queue_destroy - free a queue that nobody uses any more
 * @queue: initialised, or failed to
 */
void kvm_user_queue_destroy(struct kvm_user_queue *queue)
{
	kvfree(queue->entries);
	kvfree(queue->table);
}

static struct hlist_head *kvm_user_queue_bucket(struct kvm_user_queue *queue,
						u64 seq)
{
	return &queue->table[hash_64(seq, queue->table_bits)];
}

static struct kvm_user_entry *kvm_user_queue_find(struct kvm_user_queue *queue,
						  u64 seq)
{
	struct kvm_user_entry *entry;

	hlist_for_each_entry(entry, kvm_user_queue_bucket(queue, seq), hash)
		if (entry->request.seq == seq)
			return entry;
	return NULL;
}

static void kvm_user_queue_pend(struct kvm_user_queue *queue,
				struct kvm_user_entry *entry)
{
	entry->state = KVM_USER_PENDING;
	if (entry->request.type == KVM_USER_STORE)
		queue->posted++;
}

/* Takes @entry off whatever list it is on, and out of that list's count. */
static void kvm_user_queue_detach(struct kvm_user_queue *queue,
				  struct kvm_user_entry *entry)
{
	switch (entry->state) {
	case KVM_USER_PENDING:
		if (entry->request.type == KVM_USER_STORE)
			queue->posted--;
		break;
	case KVM_USER_SENT:
	case KVM_USER_RETIRED:
		hlist_del(&entry->hash);
		WRITE_ONCE(queue->nr_sent, queue->nr_sent - 1);
		break;
	default:
		break;
	}
	list_del(&entry->node);
}

/**
 * kvm_user_queue_done - a request is over
 * @queue: the device's queue
 * @entry: not FREE; SENT or RETIRED if its reply has come
 */
void kvm_user_queue_done(struct kvm_user_queue *queue, struct kvm_user_entry *entry)
{
	lockdep_assert_held(&queue->lock);

	kvm_user_queue_detach(queue, entry);
	entry->state = KVM_USER_FREE;
	list_add(&entry->node, &queue->free);
}

static u64 kvm_user_queue_next_seq(struct kvm_user_queue *queue)
{
	if (!++queue->last_seq)
		queue->last_seq++;
	return queue->last_seq;
}

/**
 * kvm_user_queue_full - would a store have to wait for space?
 * @queue: the device's queue
 *
 * Return: true also if there is space, but older stores wait for it.
 */
bool kvm_user_queue_full(const struct kvm_user_queue *queue)
{
	lockdep_assert_held(&queue->lock);

	return queue->posted >= queue->depth || !list_empty(&queue->waiting);
}

/**
 * kvm_user_queue_add - accept a guest's access
 * @queue: the device's queue
 * @request: all but the sequence number
 *
 * A load is pending at once: the vCPU that waits for it can have no other.  A
 * store is pending if there is space and no other store waits for some, else
 * it waits its turn and kvm_user_queue_admit() will return it.
 *
 * Return: the entry, PENDING or WAITING; NULL if vCPUs have more requests
 * outstanding than kvm_user_queue_init() was told.
 */
struct kvm_user_entry *
kvm_user_queue_add(struct kvm_user_queue *queue,
		   const struct kvm_user_request *request)
{
	struct kvm_user_entry *entry;

	lockdep_assert_held(&queue->lock);

	entry = list_first_entry_or_null(&queue->free, struct kvm_user_entry, node);
	if (!entry)
		return NULL;
	entry->request = *request;
	entry->request.seq = kvm_user_queue_next_seq(queue);
	if (request->type == KVM_USER_STORE && kvm_user_queue_full(queue)) {
		entry->state = KVM_USER_WAITING;
		list_move_tail(&entry->node, &queue->waiting);
	} else {
		kvm_user_queue_pend(queue, entry);
		list_move_tail(&entry->node, &queue->pending);
	}
	return entry;
}

/**
 * kvm_user_queue_admit - let the store that waited longest take free space
 * @queue: the device's queue
 *
 * Return: the entry, now PENDING, or NULL if there is no space or no store.
 */
struct kvm_user_entry *kvm_user_queue_admit(struct kvm_user_queue *queue)
{
	struct kvm_user_entry *entry;

	lockdep_assert_held(&queue->lock);

	entry = list_first_entry_or_null(&queue->waiting, struct kvm_user_entry, node);
	if (!entry || queue->posted >= queue->depth)
		return NULL;
	kvm_user_queue_pend(queue, entry);
	list_move_tail(&entry->node, &queue->pending);
	return entry;
}

/**
 * kvm_user_queue_take - send pending requests, oldest first
 * @queue: the device's queue
 * @requests: where to put them
 * @count: room in @requests
 *
 * Does not admit waiting stores: the caller may still put the requests back.
 *
 * Return: how many were taken.
 */
u32 kvm_user_queue_take(struct kvm_user_queue *queue,
			struct kvm_user_request *requests, u32 count)
{
	struct kvm_user_entry *entry;
	u32 taken = 0;

	while (taken < count && kvm_user_queue_readable(queue)) {
		entry = list_first_entry(&queue->pending, struct kvm_user_entry, node);
		kvm_user_queue_detach(queue, entry);
		entry->state = KVM_USER_SENT;
		entry->order = ++queue->last_order;
		WRITE_ONCE(queue->nr_sent, queue->nr_sent + 1);
		list_add_tail(&entry->node, &queue->sent);
		hlist_add_head(&entry->hash,
			       kvm_user_queue_bucket(queue, entry->request.seq));
		requests[taken++] = entry->request;
	}
	return taken;
}

/* A sent request becomes the first pending one. */
static void kvm_user_queue_unsend(struct kvm_user_queue *queue,
				  struct kvm_user_entry *entry)
{
	kvm_user_queue_detach(queue, entry);
	kvm_user_queue_pend(queue, entry);
	list_add(&entry->node, &queue->pending);
}

/**
 * kvm_user_queue_put_back - undo the last kvm_user_queue_take(), or its tail
 * @queue: the device's queue
 * @requests: what was taken
 * @count: how many of them
 *
 * They are pending again, in their old order and before all others.  One that
 * was replied to or retired meanwhile does not come back.  With the stores that
 * were accepted meanwhile, more than @depth may be pending until they are read.
 */
void kvm_user_queue_put_back(struct kvm_user_queue *queue,
			     const struct kvm_user_request *requests, u32 count)
{
	struct kvm_user_entry *entry;

	lockdep_assert_held(&queue->lock);

	while (count--) {
		entry = kvm_user_queue_find(queue, requests[count].seq);
		if (!entry)
			continue;
		if (entry->state == KVM_USER_RETIRED) {
			kvm_user_queue_done(queue, entry);
			continue;
		}
		kvm_user_queue_unsend(queue, entry);
	}
}

/**
 * kvm_user_queue_match - find the request that a reply answers
 * @queue: the device's queue
 * @reply: as user space wrote it
 *
 * Return: the entry, SENT or RETIRED; NULL if no such request was sent, or if
 * the reply differs from it.
 */
struct kvm_user_entry *
kvm_user_queue_match(struct kvm_user_queue *queue,
		     const struct kvm_user_request *reply)
{
	struct kvm_user_entry *entry;

	lockdep_assert_held(&queue->lock);

	entry = kvm_user_queue_find(queue, reply->seq);
	if (!entry ||
	    reply->type != entry->request.type ||
	    reply->len != entry->request.len ||
	    reply->range_id != entry->request.range_id ||
	    reply->flags & ~KVM_USER_REPLY_FLAGS)
		return NULL;
	return entry;
}

/**
 * kvm_user_queue_retire - the vCPU does not wait for this request any more
 * @queue: the device's queue
 * @entry: WAITING, PENDING or SENT
 *
 * If it was sent, the emulation process still owes a reply: it keeps its place
 * among the sent until that comes.
 */
void kvm_user_queue_retire(struct kvm_user_queue *queue,
			   struct kvm_user_entry *entry)
{
	lockdep_assert_held(&queue->lock);

	if (entry->state == KVM_USER_SENT) {
		entry->state = KVM_USER_RETIRED;
		list_move_tail(&entry->node, &queue->retired);
	} else {
		kvm_user_queue_done(queue, entry);
	}
}

/**
 * kvm_user_queue_redeliver - nobody will reply to what is sent: send it again
 * @queue: the device's queue, which nobody reads
 *
 * The sent requests are pending again, in their old order and before all others;
 * what was retired is gone.  As after kvm_user_queue_put_back(), more than @depth
 * may be pending.
 *
 * Return: how many will be sent again.
 */
u32 kvm_user_queue_redeliver(struct kvm_user_queue *queue)
{
	struct kvm_user_entry *entry, *previous;
	u32 count = 0;

	lockdep_assert_held(&queue->lock);

	list_for_each_entry_safe(entry, previous, &queue->retired, node)
		kvm_user_queue_done(queue, entry);
	list_for_each_entry_safe_reverse(entry, previous, &queue->sent, node) {
		entry->request.flags |= KVM_USER_REQUEST_REDELIVERED;
		kvm_user_queue_unsend(queue, entry);
		count++;
	}
	return count;
}

/**
 * kvm_user_queue_any - find a request that is to be taken out
 * @queue: the device's queue
 *
 * Return: the oldest of those that are furthest on their way; NULL if the queue
 * is empty.
 */
struct kvm_user_entry *kvm_user_queue_any(struct kvm_user_queue *queue)
{
	struct list_head *list = &queue->sent;

	lockdep_assert_held(&queue->lock);

	if (list_empty(list))
		list = &queue->pending;
	if (list_empty(list))
		list = &queue->waiting;
	if (list_empty(list))
		list = &queue->retired;
	return list_first_entry_or_null(list, struct kvm_user_entry, node);
}
