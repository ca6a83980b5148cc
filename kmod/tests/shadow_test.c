// SPDX-License-Identifier: GPL-2.0
/*
 * Shadow image and access map: generated maps against a naive model, and the
 * image's life.
 */
#include <kunit/test.h>
#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/prandom.h>

#include "../image.c"
#include "../shadow.c"
#include "fault.h"

#define MOST_ENTRIES	6

/* As for an image of the size and place that @map has. */
static bool prepare(struct kvm_user_map *map)
{
	struct kvm_user_image image = { .data = (void *)map->data, .size = map->size };

	return kvm_user_map_prepare(map, &image);
}

/* What an entry has to be, as the header says it. */
static bool naive_valid_entry(const struct kvm_user_shadow_entry *entry, u64 image_size)
{
	return entry->range_id < KVM_USER_MAX_RANGES && entry->len &&
	       entry->sizes && entry->sizes <= 15 &&
	       entry->offset <= U64_MAX - entry->len &&
	       entry->image_offset <= image_size && entry->len <= image_size &&
	       entry->image_offset + entry->len <= image_size;
}

static bool naive_valid(const struct kvm_user_shadow_entry *entries, u32 count, u64 image_size)
{
	u32 i, j;

	for (i = 0; i < count; i++) {
		const struct kvm_user_shadow_entry *a = &entries[i];

		if (!naive_valid_entry(a, image_size))
			return false;
		for (j = 0; j < i; j++) {
			const struct kvm_user_shadow_entry *b = &entries[j];

			if (a->range_id == b->range_id && a->offset < b->offset + b->len &&
			    b->offset < a->offset + a->len)
				return false;
		}
	}
	return true;
}

/* Where in the image a load is answered from, or -1. */
static s64 naive_find(const struct kvm_user_shadow_entry *entries, u32 count, u32 range_id,
		      u64 offset, int len)
{
	u32 i;

	if (len != 1 && len != 2 && len != 4 && len != 8)
		return -1;
	for (i = 0; i < count; i++) {
		const struct kvm_user_shadow_entry *entry = &entries[i];
		u64 at = offset - entry->offset;

		if (entry->range_id == range_id && offset >= entry->offset &&
		    at + len <= entry->len && at < entry->len && entry->sizes & len &&
		    offset % len == 0 && (entry->image_offset + at) % len == 0)
			return entry->image_offset + at;
	}
	return -1;
}

static void try_load(struct kunit *test, const struct kvm_user_map *map,
		     const struct kvm_user_shadow_entry *entries, u32 range_id, u64 offset, int len)
{
	const void *at = kvm_user_map_find(map, range_id, offset, len);
	s64 found = at ? at - map->data : -1;

	KUNIT_ASSERT_EQ_MSG(test, found,
			    naive_find(entries, map->nr_entries, range_id, offset, len),
			    "range %u, offset %llu, len %d, %u entries", range_id, offset, len,
			    map->nr_entries);
}

static void map_of_one_entry(struct kunit *test)
{
	static const u8 lengths[] = { 1, 2, 3, 4, 7, 8, 9, 17 };
	struct kvm_user_map *map = kunit_kzalloc(test, struct_size(map, entries, 1), GFP_KERNEL);
	struct kvm_user_shadow_entry *entry;
	u64 offset;
	u32 i;
	int len;

	KUNIT_ASSERT_NOT_NULL(test, map);
	map->nr_entries = 1;
	/* Never read from. */
	map->data = map;
	map->size = 7 + 17;
	entry = &map->entries[0];
	for (i = 0; i < 8 * 8 * ARRAY_SIZE(lengths) * 15; i++) {
		*entry = (struct kvm_user_shadow_entry) {
			.offset = i % 8,
			.image_offset = i / 8 % 8,
			.len = lengths[i / 64 % ARRAY_SIZE(lengths)],
			.sizes = 1 + i / 64 / ARRAY_SIZE(lengths),
		};
		KUNIT_ASSERT_TRUE(test, prepare(map));
		for (offset = 0; offset < 8 + 17 + 1; offset++)
			for (len = 1; len <= 8; len++)
				try_load(test, map, entry, 0, offset, len);
		cond_resched();
	}
}

static u32 below(struct rnd_state *random, u32 bound)
{
	return prandom_u32_state(random) % bound;
}

/* Mostly good ones. */
static struct kvm_user_shadow_entry any_entry(struct rnd_state *random, u64 base)
{
	struct kvm_user_shadow_entry entry = {
		.range_id = below(random, 3),
		.offset = base + below(random, 40),
		.len = 1 + below(random, 12),
		.image_offset = below(random, 52),
		.sizes = 1 + below(random, 15),
	};

	switch (below(random, 40)) {
	case 0:
		entry.range_id = KVM_USER_MAX_RANGES - 1 + below(random, 2);
		break;
	case 1:
		entry.len = below(random, 2) ? 0 : U64_MAX;
		break;
	case 2:
		entry.image_offset = below(random, 2) ? 64 : U64_MAX;
		break;
	case 3:
		entry.sizes = below(random, 2) ? 0 : 16;
		break;
	case 4:
		entry.image_offset = 64 - below(random, 12);
		break;
	}
	return entry;
}

static bool same_entry(const struct kvm_user_shadow_entry *a,
		       const struct kvm_user_shadow_entry *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* In order, and the same as before; of valid maps, whose entries all differ. */
static void expect_sorted(struct kunit *test, const struct kvm_user_map *map,
			  const struct kvm_user_shadow_entry *entries)
{
	const struct kvm_user_shadow_entry *sorted = map->entries;
	u32 i, j;

	for (i = 1; i < map->nr_entries; i++)
		KUNIT_EXPECT_TRUE(test, sorted[i - 1].range_id < sorted[i].range_id ||
				  (sorted[i - 1].range_id == sorted[i].range_id &&
				   sorted[i - 1].offset < sorted[i].offset));
	for (i = 0; i < map->nr_entries; i++) {
		for (j = 0; j < map->nr_entries && !same_entry(&sorted[i], &entries[j]); j++)
			;
		KUNIT_EXPECT_LT(test, j, map->nr_entries);
	}
}

/* Returns whether the map was valid. */
static bool try_map(struct kunit *test, struct rnd_state *random, u64 base)
{
	struct kvm_user_shadow_entry entries[MOST_ENTRIES];
	struct kvm_user_map *map = kvm_user_map_alloc(1 + below(random, MOST_ENTRIES));
	u32 i, range_id;
	bool valid;
	int len;

	KUNIT_ASSERT_NOT_NULL(test, map);
	for (i = 0; i < map->nr_entries; i++)
		entries[i] = any_entry(random, base);
	memcpy(map->entries, entries, map->nr_entries * sizeof(*entries));
	map->data = map;
	map->size = 64;
	valid = naive_valid(entries, map->nr_entries, map->size);
	KUNIT_EXPECT_EQ(test, prepare(map), valid);
	if (valid) {
		expect_sorted(test, map, entries);
		for (range_id = 0; range_id < 4; range_id++)
			for (i = 0; i < 56; i++)
				for (len = 1; len <= 8; len++)
					try_load(test, map, entries, range_id, base + i - 2, len);
	}
	kvfree(map);
	return valid;
}

static void maps_as_the_model(struct kunit *test)
{
	static const u64 bases[] = { 0, 0xff0, (1ULL << 32) - 16, U64_MAX - 30 };
	u32 i, maps, valid;
	struct rnd_state random;

	prandom_seed_state(&random, 1);
	for (i = 0; i < ARRAY_SIZE(bases); i++) {
		for (maps = 0, valid = 0; maps < 400; maps++) {
			valid += try_map(test, &random, bases[i]);
			cond_resched();
		}
		/* The generator gives enough of both. */
		KUNIT_EXPECT_GT(test, valid, 40U);
		KUNIT_EXPECT_LT(test, valid, maps - 40);
	}
}

static struct kvm_user_shadow *shadow_of(struct kunit *test, u64 size)
{
	struct kvm_user_shadow *shadow = test->priv;

	KUNIT_ASSERT_EQ(test, 0, kvm_user_shadow_resize(shadow, size));
	return shadow;
}

static int set_one(struct kvm_user_shadow *shadow, struct kvm_user_shadow_entry entry)
{
	struct kvm_user_map *map = kvm_user_map_alloc(1);

	if (!map)
		return -ENOMEM;
	map->entries[0] = entry;
	return kvm_user_shadow_set_map(shadow, map);
}

static int cover_all(struct kvm_user_shadow *shadow)
{
	return set_one(shadow, (struct kvm_user_shadow_entry) {
		.range_id = 1, .len = kvm_user_shadow_size(shadow), .sizes = 15,
	});
}

static bool covers(struct kvm_user_shadow *shadow, u32 range_id, u64 offset, int len)
{
	u64 data;

	return kvm_user_shadow_read(shadow, range_id, offset, len, &data);
}

static void shadow_reads(struct kunit *test)
{
	struct kvm_user_shadow *shadow = shadow_of(test, PAGE_SIZE);
	u8 *bytes = shadow->image->data;
	u64 offset, data, expected;
	int len;

	for (offset = 0; offset < PAGE_SIZE; offset++)
		bytes[offset] = offset * 7 + (offset >> 8);
	KUNIT_ASSERT_EQ(test, 0, cover_all(shadow));
	for (offset = 0; offset < PAGE_SIZE; offset++) {
		for (len = 1; len <= 8; len++) {
			bool served = is_power_of_2(len) && !(offset % len);

			data = 0;
			expected = 0;
			KUNIT_ASSERT_EQ(test, served,
					covers(shadow, 1, offset, len));
			KUNIT_ASSERT_EQ(test, served,
					kvm_user_shadow_read(shadow, 1, offset, len, &data));
			if (served)
				memcpy(&expected, bytes + offset, len);
			KUNIT_ASSERT_EQ(test, data, expected);
		}
	}
	KUNIT_EXPECT_FALSE(test, covers(shadow, 1, PAGE_SIZE, 1));
	KUNIT_EXPECT_FALSE(test, covers(shadow, 0, 0, 1));
	KUNIT_EXPECT_FALSE(test, covers(shadow, 2, 0, 1));
	kvm_user_shadow_clear_map(shadow);
	KUNIT_EXPECT_FALSE(test, covers(shadow, 1, 0, 1));
	kvm_user_shadow_clear_map(shadow);
}

static void shadow_sizes(struct kunit *test)
{
	struct kvm_user_shadow *shadow = test->priv;
	unsigned int bound = max_shadow_size;

	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), 0ULL);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE + 8), -EINVAL);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, bound + PAGE_SIZE), -E2BIG);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, U64_MAX & PAGE_MASK), -E2BIG);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), 0ULL);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, bound), 0);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), (u64)bound);

	max_shadow_size = 0;
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE), -E2BIG);
	max_shadow_size = bound;
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), (u64)bound);
}

static void shadow_is_busy(struct kunit *test)
{
	struct kvm_user_shadow *shadow = test->priv;
	struct file *mapping;

	/* No image, no map. */
	KUNIT_EXPECT_EQ(test, cover_all(shadow), -EINVAL);
	shadow_of(test, 2 * PAGE_SIZE);
	memset(shadow->image->data, 0xff, 2 * PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, cover_all(shadow));

	/* A map. */
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE), -EBUSY);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), (u64)2 * PAGE_SIZE);
	KUNIT_EXPECT_TRUE(test, covers(shadow, 1, 0, 8));
	kvm_user_shadow_clear_map(shadow);

	/* A mapping, which is a reference to the image's file. */
	mapping = get_file(shadow->image->file);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE), -EBUSY);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), (u64)2 * PAGE_SIZE);
	fput(mapping);

	KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow), (u64)PAGE_SIZE);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(shadow->image->data, 0, PAGE_SIZE), NULL);
}

static void shadow_keeps_the_old_map(struct kunit *test)
{
	struct kvm_user_shadow *shadow = shadow_of(test, PAGE_SIZE);
	struct kvm_user_shadow_entry beyond = {
		.range_id = 1, .offset = 64, .len = 8, .image_offset = PAGE_SIZE - 7, .sizes = 1,
	};

	KUNIT_ASSERT_EQ(test, 0, cover_all(shadow));
	KUNIT_EXPECT_EQ(test, set_one(shadow, beyond), -EINVAL);
	KUNIT_EXPECT_TRUE(test, covers(shadow, 1, 0, 8));
	beyond.len--;
	KUNIT_EXPECT_EQ(test, set_one(shadow, beyond), 0);
	KUNIT_EXPECT_FALSE(test, covers(shadow, 1, 0, 8));
	KUNIT_EXPECT_TRUE(test, covers(shadow, 1, 64, 1));
}

struct loader {
	struct kvm_user_shadow *shadow;
	struct completion done;
	bool stop;
	u32 torn;
	u32 loads;
};

static int loader_run(void *data)
{
	struct loader *loader = data;
	u64 offset = 0, value;

	while (!READ_ONCE(loader->stop)) {
		offset = (offset + 8) % PAGE_SIZE;
		if (kvm_user_shadow_read(loader->shadow, 1, offset, 8, &value)) {
			loader->torn += value != (value & 0xff) * 0x0101010101010101ULL;
			loader->loads++;
		}
		cond_resched();
	}
	kthread_complete_and_exit(&loader->done, 0);
}

/* Image and map are replaced under a reader: it has the old or the new, whole. */
static void shadow_replaced(struct kunit *test)
{
	struct kvm_user_shadow *shadow = test->priv;
	struct loader loader = { .shadow = shadow };
	unsigned long end = jiffies + 60 * HZ;
	struct task_struct *task;
	u32 i;

	init_completion(&loader.done);
	task = kthread_run(loader_run, &loader, "kvm-user-loader");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	for (i = 1; (i <= 50 || READ_ONCE(loader.loads) < 1000) && time_before(jiffies, end); i++) {
		kvm_user_shadow_clear_map(shadow);
		KUNIT_EXPECT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE), 0);
		memset(shadow->image->data, i, PAGE_SIZE);
		KUNIT_EXPECT_EQ(test, cover_all(shadow), 0);
		KUNIT_EXPECT_EQ(test, cover_all(shadow), 0);
		schedule_timeout_uninterruptible(1);
	}
	WRITE_ONCE(loader.stop, true);
	wait_for_completion(&loader.done);
	KUNIT_EXPECT_EQ(test, loader.torn, 0U);
	KUNIT_EXPECT_GE(test, loader.loads, 1000U);
}

#ifdef CONFIG_FAULT_INJECTION
/* What is lost, kmemleak tells. */
static void shadow_without_memory(struct kunit *test)
{
	struct kvm_user_shadow *shadow = shadow_of(test, PAGE_SIZE);
	u32 nth, failures = 0;
	bool failed = true;
	int ret;

	KUNIT_ASSERT_TRUE_MSG(test, faults_work(), FAULTS_NEED);
	for (nth = 1; failed; nth++) {
		fail_allocation(nth);
		ret = kvm_user_shadow_resize(shadow, 2 * PAGE_SIZE);
		failed = allocation_failed();
		KUNIT_EXPECT_TRUE(test, !ret || (ret == -ENOMEM && failed));
		KUNIT_EXPECT_EQ(test, kvm_user_shadow_size(shadow),
				(u64)(ret ? 1 : 2) * PAGE_SIZE);
		failures += !!ret;
		KUNIT_ASSERT_EQ(test, kvm_user_shadow_resize(shadow, PAGE_SIZE), 0);
	}
	/* The image, its pages, and its file, at least. */
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_GE(test, failures, 3U);
}

static void map_without_memory(struct kunit *test)
{
	/* What is too large for one page has another chance, vmalloc(). */
	static const u32 lengths[] = { 1, KVM_USER_MAX_SHADOW_ENTRIES };
	u32 i, nth, failures;
	bool failed;

	KUNIT_ASSERT_TRUE_MSG(test, faults_work(), FAULTS_NEED);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		failures = 0;
		failed = true;
		for (nth = 1; failed; nth++) {
			struct kvm_user_map *map;

			fail_allocation(nth);
			map = kvm_user_map_alloc(lengths[i]);
			failed = allocation_failed();
			KUNIT_EXPECT_TRUE(test, map || failed);
			failures += !map;
			kvfree(map);
		}
		KUNIT_EXPECT_EQ(test, failures, lengths[i] == 1 ? 1U : 0U);
	}
}
#endif

static int shadow_test_init(struct kunit *test)
{
	struct kvm_user_shadow *shadow = kunit_kzalloc(test, sizeof(*shadow), GFP_KERNEL);

	if (!shadow)
		return -ENOMEM;
	kvm_user_shadow_init(shadow);
	test->priv = shadow;
	return 0;
}

static void shadow_test_exit(struct kunit *test)
{
	if (test->priv)
		kvm_user_shadow_destroy(test->priv);
	/* A kernel thread's files go later, and hold the module until then. */
	flush_delayed_fput();
}

static struct kunit_case shadow_cases[] = {
	KUNIT_CASE(map_of_one_entry),
	KUNIT_CASE(maps_as_the_model),
	KUNIT_CASE(shadow_reads),
	KUNIT_CASE(shadow_sizes),
	KUNIT_CASE(shadow_is_busy),
	KUNIT_CASE(shadow_keeps_the_old_map),
	KUNIT_CASE(shadow_replaced),
#ifdef CONFIG_FAULT_INJECTION
	KUNIT_CASE(shadow_without_memory),
	KUNIT_CASE(map_without_memory),
#endif
	{}
};

static struct kunit_suite shadow_suite = {
	.name = "kvm_user_shadow",
	.init = shadow_test_init,
	.exit = shadow_test_exit,
	.test_cases = shadow_cases,
};

kunit_test_suite(shadow_suite);
