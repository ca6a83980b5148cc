// SPDX-License-Identifier: GPL-2.0
/*
 * The queue, against a model that is simple enough to be right: of small queues,
 * every state that any sequence of operations reaches, and every operation in it.
 */
#include <kunit/test.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched.h>

#include "../queue.c"
#include "fault.h"

/* Bounds of the sizes that are tried below. */
#define MOST_DEPTH	3
#define MOST_ENTRIES	8
#define MOST_BUCKETS	8
#define MOST_STATES	10000
#define SEEN_BITS	15

struct model_request {
	u64 seq;
	u16 type;
	bool redelivered;
};

struct model_list {
	u32 length;
	struct model_request at[MOST_ENTRIES];
};

struct model {
	struct model_list waiting, pending, sent, retired;
	u64 batch[MOST_DEPTH];	/* of a take whose reader may put some of it back */
	u32 batched;
	bool reading;
	u64 last_seq;
};

/* A queue and its model, and all of a queue's memory, for going back to it. */
struct state {
	struct model model;
	struct kvm_user_queue queue;
	struct kvm_user_entry entries[MOST_ENTRIES];
	struct hlist_head table[MOST_BUCKETS];
	u32 parent;		/* the state before, and what led from there to here */
	u8 operation;
	u8 argument;
};

struct subject {
	u32 depth;
	u32 nr_vcpus;
	struct kvm_user_queue queue;
	struct model model;
};

static void model_push(struct model_list *list, struct model_request request)
{
	list->at[list->length++] = request;
}

static struct model_request model_remove(struct model_list *list, u32 index)
{
	struct model_request request = list->at[index];

	list->length--;
	memmove(&list->at[index], &list->at[index + 1],
		(list->length - index) * sizeof(request));
	return request;
}

static void model_push_first(struct model_list *list, struct model_request request)
{
	memmove(&list->at[1], &list->at[0], list->length * sizeof(request));
	list->at[0] = request;
	list->length++;
}

/* The index of @seq, or the length. */
static u32 model_index(const struct model_list *list, u64 seq)
{
	u32 i;

	for (i = 0; i < list->length && list->at[i].seq != seq; i++)
		;
	return i;
}

static u32 model_count(const struct model_list *list, u16 type)
{
	u32 i, count = 0;

	for (i = 0; i < list->length; i++)
		count += list->at[i].type == type;
	return count;
}

/* What vCPUs wait for, which is no posted store. */
static u32 model_outstanding(const struct model *model)
{
	return model->waiting.length + model_count(&model->pending, KVM_USER_LOAD) +
	       model_count(&model->sent, KVM_USER_LOAD);
}

/* The waiting, the pending and the sent, counted through: which list, and where in it. */
static struct model_list *list_of(struct model *model, u32 *index)
{
	if (*index < model->waiting.length)
		return &model->waiting;
	*index -= model->waiting.length;
	if (*index < model->pending.length)
		return &model->pending;
	*index -= model->pending.length;
	return &model->sent;
}

/* Whether some vCPU waits for that request, which may thus be retired. */
static bool waits(struct model *model, u32 index)
{
	struct model_list *list = list_of(model, &index);

	return list == &model->waiting ||
	       list->at[index].type == KVM_USER_LOAD;
}

/* What the process owes replies to. */
static u32 model_owed(const struct model *model)
{
	return model->sent.length + model->retired.length;
}

static bool model_full(const struct subject *subject)
{
	return subject->model.waiting.length ||
	       model_count(&subject->model.pending, KVM_USER_STORE) >= subject->depth;
}

static bool model_readable(const struct subject *subject)
{
	return subject->model.pending.length && model_owed(&subject->model) < subject->depth;
}

static struct kvm_user_request the_request(u64 seq, u16 type)
{
	/* The sequence number is everywhere, so that no field can come from another. */
	return (struct kvm_user_request) {
		.seq = seq,
		.offset = ~seq,
		.data = seq * 3,
		.range_id = seq % 7,
		.cpu = seq % 5,
		.type = type,
		.len = 1 + seq % 8,
	};
}

static bool same_request(const struct kvm_user_request *request,
			 const struct model_request *model)
{
	struct kvm_user_request expected = the_request(model->seq, model->type);

	if (model->redelivered)
		expected.flags = KVM_USER_REQUEST_REDELIVERED;
	return !memcmp(request, &expected, sizeof(expected));
}

static struct kvm_user_entry *entry_of(struct subject *subject, u64 seq)
{
	u32 i;

	for (i = 0; i < 2 * subject->depth + 2 * subject->nr_vcpus; i++) {
		struct kvm_user_entry *entry = &subject->queue.entries[i];

		if (entry->state != KVM_USER_FREE && entry->request.seq == seq)
			return entry;
	}
	return NULL;
}

static bool in_order_sent(const struct list_head *head)
{
	struct kvm_user_entry *entry;
	u64 last = 0;

	list_for_each_entry(entry, head, node) {
		if (entry->order <= last)
			return false;
		last = entry->order;
	}
	return true;
}

/* Whether @head holds what @list does. */
static bool same_list(const struct list_head *head, const struct model_list *list,
		      enum kvm_user_state state)
{
	struct kvm_user_entry *entry;
	u32 i = 0;

	list_for_each_entry(entry, head, node) {
		const struct model_request *model = &list->at[i];

		if (i++ == list->length || !same_request(&entry->request, model) ||
		    entry->state != state)
			return false;
	}
	return i == list->length;
}

static bool all_free(struct subject *subject)
{
	const struct model *model = &subject->model;
	struct kvm_user_entry *entry;
	u32 count = 0;

	list_for_each_entry(entry, &subject->queue.free, node) {
		count++;
		if (entry->state != KVM_USER_FREE)
			return false;
	}
	return count + model->waiting.length + model->pending.length + model_owed(model) ==
	       2 * subject->depth + 2 * subject->nr_vcpus;
}

/* A reply finds its request while that is sent, and nothing that differs does. */
static bool matches(struct subject *subject, const struct model_list *list, bool sent)
{
	struct kvm_user_queue *queue = &subject->queue;
	u32 i;

	for (i = 0; i < list->length; i++) {
		u64 seq = list->at[i].seq;
		struct kvm_user_request reply = the_request(seq, list->at[i].type);
		struct kvm_user_entry *entry = entry_of(subject, seq);

		/* None of these has to be right. */
		reply.cpu++;
		reply.offset++;
		reply.data++;
		reply.flags = KVM_USER_REPLY_FLAGS;
		if (!entry || kvm_user_queue_match(queue, &reply) != (sent ? entry : NULL))
			return false;
		reply.len ^= 1;
		if (kvm_user_queue_match(queue, &reply))
			return false;
		reply.len ^= 1;
		reply.type ^= 1;
		if (kvm_user_queue_match(queue, &reply))
			return false;
		reply.type ^= 1;
		reply.range_id++;
		if (kvm_user_queue_match(queue, &reply))
			return false;
		reply.range_id--;
		reply.flags++;
		if (kvm_user_queue_match(queue, &reply))
			return false;
	}
	return true;
}

/* The rule that does not hold, or NULL. */
static const char *check(struct subject *subject)
{
	struct kvm_user_queue *queue = &subject->queue;
	const struct model *model = &subject->model;
	u32 posted = model_count(&model->pending, KVM_USER_STORE);
	struct kvm_user_request none = the_request(model->last_seq + 1, KVM_USER_LOAD);

	if (!same_list(&queue->waiting, &model->waiting, KVM_USER_WAITING))
		return "what waits is as in the model";
	if (!same_list(&queue->pending, &model->pending, KVM_USER_PENDING))
		return "what is pending is as in the model";
	if (!same_list(&queue->sent, &model->sent, KVM_USER_SENT))
		return "what is sent is as in the model";
	if (!same_list(&queue->retired, &model->retired, KVM_USER_RETIRED))
		return "what is retired is as in the model";
	if (!in_order_sent(&queue->sent))
		return "each that was sent knows which were before it";
	if (!all_free(subject))
		return "all else is free";
	if (queue->posted != posted || queue->nr_sent != model_owed(model))
		return "the counts are right";
	if (queue->nr_sent > queue->depth)
		return "F3: no more than depth are sent";
	if (posted + model_count(&model->sent, KVM_USER_STORE) > 2 * queue->depth)
		return "F3: stores are bounded";
	if (kvm_user_queue_full(queue) != model_full(subject))
		return "full says whether a store has to wait";
	if (kvm_user_queue_readable(queue) != model_readable(subject))
		return "readable says whether take gives something";
	if (!matches(subject, &model->sent, true) ||
	    !matches(subject, &model->retired, true) ||
	    !matches(subject, &model->pending, false) ||
	    !matches(subject, &model->waiting, false) ||
	    kvm_user_queue_match(queue, &none))
		return "replies find what is sent, and nothing else";
	return NULL;
}

enum operation {
	ADD_LOAD,
	ADD_STORE,
	ADMIT,
	TAKE,		/* argument: how many */
	PUT_BACK,	/* argument: how many, of the end */
	REPLY,		/* argument: to which of the sent, then the retired */
	RETIRE,		/* argument: which of the waiting, pending, sent */
	ABORT,
	REDELIVER,
	NR_OPERATIONS
};

static const char *const operation_names[NR_OPERATIONS] = {
	"add load", "add store", "admit", "take", "put back", "reply", "retire", "abort",
	"redeliver",
};

/* As the module calls it; *@more says whether a larger argument has a meaning too. */
static bool may(const struct subject *subject, enum operation operation, u32 argument,
		bool *more)
{
	const struct model *model = &subject->model;
	u32 requests = model->waiting.length + model->pending.length + model->sent.length;

	*more = false;
	switch (operation) {
	case ADD_LOAD:
		return model_outstanding(model) < 2 * subject->nr_vcpus;
	case ADD_STORE:
		return !model_full(subject) || model_outstanding(model) < 2 * subject->nr_vcpus;
	case ADMIT:
		return true;
	case TAKE:
		*more = argument <= subject->depth;
		return !model->reading;
	case PUT_BACK:
		*more = argument < model->batched;
		return model->reading && argument <= model->batched;
	case REPLY:
		*more = argument + 1 < model_owed(model);
		return argument < model_owed(model);
	case RETIRE:
		*more = argument + 1 < requests;
		return argument < requests && waits((struct model *)model, argument);
	case ABORT:
	case REDELIVER:
		/* A reader has the descriptor open. */
		return !model->reading;
	default:
		return false;
	}
}

static const char *do_add(struct subject *subject, u16 type)
{
	struct model *model = &subject->model;
	bool waits = type == KVM_USER_STORE && model_full(subject);
	struct kvm_user_request request;
	struct kvm_user_entry *entry;

	if (!++model->last_seq)
		model->last_seq++;
	request = the_request(model->last_seq, type);
	request.seq = 0;
	entry = kvm_user_queue_add(&subject->queue, &request);
	if (!entry)
		return "F3: there is room for what vCPUs may have outstanding";
	if (!entry->request.seq)
		return "a sequence number is not 0";
	model_push(waits ? &model->waiting : &model->pending,
		   (struct model_request) { .seq = model->last_seq, .type = type });
	return entry == entry_of(subject, model->last_seq) ? NULL : "add returns its entry";
}

static const char *do_admit(struct subject *subject)
{
	struct model *model = &subject->model;
	struct kvm_user_entry *entry = kvm_user_queue_admit(&subject->queue), *expected = NULL;

	if (model->waiting.length &&
	    model_count(&model->pending, KVM_USER_STORE) < subject->depth) {
		expected = entry_of(subject, model->waiting.at[0].seq);
		model_push(&model->pending, model_remove(&model->waiting, 0));
	}
	return entry == expected ? NULL : "admit returns the store that waited longest";
}

static const char *do_take(struct subject *subject, u32 count)
{
	struct kvm_user_request requests[MOST_DEPTH + 1];
	struct model *model = &subject->model;
	u32 taken = kvm_user_queue_take(&subject->queue, requests, count);

	model->reading = true;
	model->batched = 0;
	while (model->batched < count && model_readable(subject)) {
		struct model_request request = model_remove(&model->pending, 0);

		if (model->batched == taken || !same_request(&requests[model->batched], &request))
			return "O1: take gives the oldest, in order";
		model->batch[model->batched++] = request.seq;
		model_push(&model->sent, request);
	}
	return taken == model->batched ? NULL : "take gives as many as it may";
}

static const char *do_put_back(struct subject *subject, u32 count)
{
	struct kvm_user_request requests[MOST_DEPTH] = {};
	struct model *model = &subject->model;
	u32 first = model->batched - count, i;

	for (i = 0; i < count; i++)
		requests[i].seq = model->batch[first + i];
	kvm_user_queue_put_back(&subject->queue, requests, count);

	for (i = model->batched; i-- > first;) {
		u32 index = model_index(&model->sent, model->batch[i]);

		if (index < model->sent.length) {
			model_push_first(&model->pending, model_remove(&model->sent, index));
			continue;
		}
		index = model_index(&model->retired, model->batch[i]);
		if (index < model->retired.length)
			model_remove(&model->retired, index);
	}
	model->batched = 0;
	model->reading = false;
	return NULL;
}

static const char *do_reply(struct subject *subject, u32 index)
{
	struct model *model = &subject->model;
	struct model_request request = index < model->sent.length ?
		model_remove(&model->sent, index) :
		model_remove(&model->retired, index - model->sent.length);

	kvm_user_queue_done(&subject->queue, entry_of(subject, request.seq));
	return NULL;
}

static const char *do_retire(struct subject *subject, u32 index)
{
	struct model *model = &subject->model;
	struct model_list *list = list_of(model, &index);
	struct model_request request;

	kvm_user_queue_retire(&subject->queue, entry_of(subject, list->at[index].seq));
	request = model_remove(list, index);
	if (list == &model->sent)
		model_push(&model->retired, request);
	return NULL;
}

/* One step of what empties a queue. */
static const char *do_abort(struct subject *subject)
{
	struct kvm_user_entry *entry = kvm_user_queue_any(&subject->queue), *expected = NULL;
	struct model *model = &subject->model;
	struct model_list *list = &model->sent;

	if (!list->length)
		list = &model->pending;
	if (!list->length)
		list = &model->waiting;
	if (!list->length)
		list = &model->retired;
	if (list->length)
		expected = entry_of(subject, model_remove(list, 0).seq);
	if (entry != expected)
		return "any finds the oldest of those that are furthest";
	if (entry)
		kvm_user_queue_done(&subject->queue, entry);
	return NULL;
}

static const char *do_redeliver(struct subject *subject)
{
	u32 count = kvm_user_queue_redeliver(&subject->queue), expected = 0;
	struct model *model = &subject->model;

	while (model->sent.length) {
		struct model_request request = model_remove(&model->sent, model->sent.length - 1);

		request.redelivered = true;
		model_push_first(&model->pending, request);
		expected++;
	}
	model->retired.length = 0;
	return count == expected ? NULL : "F1: redeliver counts what will be sent again";
}

/* On queue and model alike; returns the rule that does not hold, or NULL. */
static const char *perform(struct subject *subject, enum operation operation, u32 argument)
{
	switch (operation) {
	case ADD_LOAD:
		return do_add(subject, KVM_USER_LOAD);
	case ADD_STORE:
		return do_add(subject, KVM_USER_STORE);
	case ADMIT:
		return do_admit(subject);
	case TAKE:
		return do_take(subject, argument);
	case PUT_BACK:
		return do_put_back(subject, argument);
	case REPLY:
		return do_reply(subject, argument);
	case RETIRE:
		return do_retire(subject, argument);
	case ABORT:
		return do_abort(subject);
	default:
		return do_redeliver(subject);
	}
}

static void push_bits(u64 *key, u64 value, u32 bits)
{
	*key = *key << bits | value;
}

/*
 * Two states with the same key differ in sequence numbers and REDELIVERED only,
 * which no operation looks at but to find a request by its own number.
 */
static u64 key_of(const struct model *model)
{
	u64 key = 1;
	u32 i;

	push_bits(&key, model->waiting.length, 4);
	push_bits(&key, model->pending.length, 4);
	for (i = 0; i < model->pending.length; i++)
		push_bits(&key, model->pending.at[i].type, 1);
	push_bits(&key, model->sent.length, 2);
	for (i = 0; i < model->sent.length; i++)
		push_bits(&key, model->sent.at[i].type, 1);
	push_bits(&key, model->retired.length, 2);
	push_bits(&key, model->reading, 1);
	push_bits(&key, model->batched, 2);
	for (i = 0; i < model->batched; i++) {
		push_bits(&key, model_index(&model->sent, model->batch[i]), 2);
		push_bits(&key, model_index(&model->retired, model->batch[i]), 2);
	}
	return key;
}

/* Whether @key is new; it is not from then on. */
static bool is_new(u64 *seen, u64 key)
{
	u32 i = hash_64(key, SEEN_BITS);

	for (; seen[i]; i = (i + 1) % (1U << SEEN_BITS))
		if (seen[i] == key)
			return false;
	seen[i] = key;
	return true;
}

static void save(const struct subject *subject, struct state *state)
{
	const struct kvm_user_queue *queue = &subject->queue;
	u32 count = 2 * subject->depth + 2 * subject->nr_vcpus;

	state->model = subject->model;
	memcpy(&state->queue, queue, sizeof(*queue));
	memcpy(state->entries, queue->entries, count * sizeof(*queue->entries));
	memcpy(state->table, queue->table, sizeof(*queue->table) << queue->table_bits);
}

/* Pointers stay right, as all of it goes to where it was. */
static void restore(struct subject *subject, const struct state *state)
{
	struct kvm_user_queue *queue = &subject->queue;
	u32 count = 2 * subject->depth + 2 * subject->nr_vcpus;

	subject->model = state->model;
	memcpy(queue, &state->queue, sizeof(*queue));
	memcpy(queue->entries, state->entries, count * sizeof(*queue->entries));
	memcpy(queue->table, state->table, sizeof(*queue->table) << queue->table_bits);
}

static void tell_path(struct kunit *test, const struct state *states, u32 index)
{
	if (!index)
		return;
	for (; index; index = states[index].parent)
		kunit_err(test, "before that: %s %u", operation_names[states[index].operation],
			  states[index].argument);
	kunit_err(test, "before that: an empty queue");
}

/* Does one operation in a state; returns whether that led to another, at @next. */
static bool explore_step(struct kunit *test, struct subject *subject, struct state *states,
			 u64 *seen, u32 from, u32 next, u32 operation, u32 argument)
{
	const char *broken;

	restore(subject, &states[from]);
	spin_lock(&subject->queue.lock);
	broken = perform(subject, operation, argument) ?: check(subject);
	spin_unlock(&subject->queue.lock);
	if (broken) {
		kunit_err(test, "not so: %s", broken);
		kunit_err(test, "after: %s %u", operation_names[operation], argument);
		tell_path(test, states, from);
		KUNIT_ASSERT_TRUE_MSG(test, false, "depth %u, %u vCPUs", subject->depth,
				      subject->nr_vcpus);
	}
	if (!is_new(seen, key_of(&subject->model)))
		return false;
	KUNIT_ASSERT_LT(test, next, (u32)MOST_STATES);
	save(subject, &states[next]);
	states[next].parent = from;
	states[next].operation = operation;
	states[next].argument = argument;
	return true;
}

struct size {
	u32 depth;
	u32 nr_vcpus;
	u64 last_seq;
};

static void explore(struct kunit *test, const struct size *size)
{
	struct subject *subject = test->priv;
	struct state *states = kvcalloc(MOST_STATES, sizeof(*states), GFP_KERNEL);
	u64 *seen = kvcalloc(1U << SEEN_BITS, sizeof(*seen), GFP_KERNEL);
	u32 from, next = 1, operation, argument, steps = 0;
	bool more;

	subject->depth = size->depth;
	subject->nr_vcpus = size->nr_vcpus;
	subject->model = (struct model) { .last_seq = size->last_seq };
	if (kvm_user_queue_init(&subject->queue, size->depth, size->nr_vcpus) ||
	    !states || !seen) {
		KUNIT_FAIL(test, "no memory");
		goto out;
	}
	subject->queue.last_seq = size->last_seq;
	save(subject, &states[0]);
	is_new(seen, key_of(&subject->model));

	for (from = 0; from < next; from++) {
		for (operation = 0; operation < NR_OPERATIONS; operation++) {
			for (argument = 0, more = true; more; argument++) {
				subject->model = states[from].model;
				if (!may(subject, operation, argument, &more))
					continue;
				steps++;
				next += explore_step(test, subject, states, seen, from, next,
						     operation, argument);
			}
		}
		cond_resched();
	}
	kunit_info(test, "%u states, %u steps", next, steps);
out:
	kvm_user_queue_destroy(&subject->queue);
	kvfree(states);
	kvfree(seen);
}

static const struct size sizes[] = {
	{ .depth = 1, .nr_vcpus = 1 },
	{ .depth = 2, .nr_vcpus = 1 },
	{ .depth = 3, .nr_vcpus = 1 },
	{ .depth = 1, .nr_vcpus = 2 },
	{ .depth = 2, .nr_vcpus = 2 },
	/* Sequence numbers that wrap around, and are never 0. */
	{ .depth = 2, .nr_vcpus = 1, .last_seq = U64_MAX },
	{ .depth = 2, .nr_vcpus = 1, .last_seq = U64_MAX - 1 },
	{ .depth = 2, .nr_vcpus = 1, .last_seq = U64_MAX - 4 },
};

static void size_name(const struct size *size, char *name)
{
	snprintf(name, KUNIT_PARAM_DESC_SIZE, "depth %u, %u vCPUs, after %llu", size->depth,
		 size->nr_vcpus, size->last_seq);
}

KUNIT_ARRAY_PARAM(size, sizes, size_name);

static void queue_every_state(struct kunit *test)
{
	explore(test, test->param_value);
}

/* Longer ways than the shortest to each state, through many sequence numbers. */
static void queue_random_walk(struct kunit *test)
{
	struct subject *subject = test->priv;
	u32 operation, argument, i;
	const char *broken = NULL;
	struct rnd_state random;
	bool more;

	prandom_seed_state(&random, 1);
	*subject = (struct subject) {
		.depth = MOST_DEPTH, .nr_vcpus = 1, .model = { .last_seq = U64_MAX - 1000 },
	};
	KUNIT_ASSERT_EQ(test, 0, kvm_user_queue_init(&subject->queue, MOST_DEPTH, 1));
	subject->queue.last_seq = subject->model.last_seq;

	for (i = 0; i < 20000 && !broken; i++) {
		operation = prandom_u32_state(&random) % NR_OPERATIONS;
		argument = prandom_u32_state(&random) % (MOST_DEPTH + 1);
		if (!may(subject, operation, argument, &more))
			continue;
		spin_lock(&subject->queue.lock);
		broken = perform(subject, operation, argument) ?: check(subject);
		spin_unlock(&subject->queue.lock);
	}
	KUNIT_EXPECT_NULL_MSG(test, broken, "not so: %s; step %u: %s %u", broken, i,
			      operation_names[operation], argument);
	kvm_user_queue_destroy(&subject->queue);
}

static void queue_is_bounded(struct kunit *test)
{
	const struct kvm_user_request load = { .type = KVM_USER_LOAD, .len = 1 };
	struct kvm_user_queue *queue = &((struct subject *)test->priv)->queue;
	struct kvm_user_entry *none;
	u32 count = 0;

	KUNIT_ASSERT_EQ(test, 0, kvm_user_queue_init(queue, 5, 3));
	spin_lock(&queue->lock);
	while (count < 100 && kvm_user_queue_add(queue, &load))
		count++;
	none = kvm_user_queue_add(queue, &load);
	spin_unlock(&queue->lock);
	KUNIT_EXPECT_EQ(test, count, 2U * 5 + 2 * 3);
	KUNIT_EXPECT_PTR_EQ(test, none, NULL);
	KUNIT_EXPECT_EQ(test, queue->last_seq, (u64)count);
	kvm_user_queue_destroy(queue);
}

/* After the VM's end no reply can come, and what is owed bounds nothing. */
static void queue_without_sent_limit(struct kunit *test)
{
	const struct kvm_user_request store = { .type = KVM_USER_STORE, .len = 1 };
	struct kvm_user_queue *queue = &((struct subject *)test->priv)->queue;
	struct kvm_user_request requests[16];
	u32 taken, i;

	KUNIT_ASSERT_EQ(test, 0, kvm_user_queue_init(queue, 2, 1));
	spin_lock(&queue->lock);
	for (i = 0; i < 2; i++)
		kvm_user_queue_add(queue, &store);
	taken = kvm_user_queue_take(queue, requests, 16);
	for (i = 0; i < 4; i++)
		kvm_user_queue_add(queue, &store);
	queue->sent_limit = U32_MAX;
	taken += kvm_user_queue_take(queue, requests + taken, 16 - taken);
	while (kvm_user_queue_admit(queue))
		;
	taken += kvm_user_queue_take(queue, requests + taken, 16 - taken);
	spin_unlock(&queue->lock);

	KUNIT_EXPECT_EQ(test, taken, 6U);
	for (i = 0; i < taken; i++)
		KUNIT_EXPECT_EQ(test, requests[i].seq, (u64)i + 1);
	kvm_user_queue_destroy(queue);
}

#ifdef CONFIG_FAULT_INJECTION
/* Fails each allocation once; returns how often that was an error. */
static u32 fail_each(struct kunit *test, u32 depth)
{
	struct kvm_user_queue *queue = &((struct subject *)test->priv)->queue;
	u32 nth, failures = 0;
	bool failed = true;
	int ret;

	for (nth = 1; failed; nth++) {
		fail_allocation(nth);
		ret = kvm_user_queue_init(queue, depth, 1);
		failed = allocation_failed();
		KUNIT_EXPECT_TRUE(test, !ret || (ret == -ENOMEM && failed));
		failures += !!ret;
		kvm_user_queue_destroy(queue);
	}
	KUNIT_EXPECT_EQ(test, ret, 0);
	return failures;
}

/* What is lost, kmemleak tells. */
static void queue_without_memory(struct kunit *test)
{
	KUNIT_ASSERT_TRUE_MSG(test, faults_work(), FAULTS_NEED);
	/* The table and the entries. */
	KUNIT_EXPECT_EQ(test, fail_each(test, 1), 2U);
	/* What is too large for one page has another chance, vmalloc(). */
	KUNIT_EXPECT_EQ(test, fail_each(test, 4096), 0U);
}
#endif

static int queue_test_init(struct kunit *test)
{
	test->priv = kunit_kzalloc(test, sizeof(struct subject), GFP_KERNEL);
	return test->priv ? 0 : -ENOMEM;
}

static struct kunit_case queue_cases[] = {
	KUNIT_CASE_PARAM(queue_every_state, size_gen_params),
	KUNIT_CASE(queue_random_walk),
	KUNIT_CASE(queue_is_bounded),
	KUNIT_CASE(queue_without_sent_limit),
#ifdef CONFIG_FAULT_INJECTION
	KUNIT_CASE(queue_without_memory),
#endif
	{}
};

static struct kunit_suite queue_suite = {
	.name = "kvm_user_queue",
	.init = queue_test_init,
	.test_cases = queue_cases,
};

kunit_test_suite(queue_suite);

MODULE_DESCRIPTION("KUnit suites of kvm_user");
MODULE_LICENSE("GPL");
