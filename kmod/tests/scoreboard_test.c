// SPDX-License-Identifier: GPL-2.0
/*
 * The scoreboard: every transition from every state, and sleepers that are woken,
 * run out of time, and get signals.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/sched/task.h>

#include "../scoreboard.c"

#define NR_WAITS	(KVM_USER_SHADOW + 1)
#define MOST_POSTED	3

/* A score in some state, and the requests that its accesses wait for. */
struct board {
	struct kvm_user_score score;
	struct kvm_user_entry running;
	struct kvm_user_entry parked;
	struct kvm_user_entry other;
};

static bool has_entry(enum kvm_user_wait wait)
{
	return wait == KVM_USER_SPACE || wait == KVM_USER_REPLY;
}

static bool wants_stores(enum kvm_user_wait wait)
{
	return wait == KVM_USER_STORES || wait == KVM_USER_SHADOW;
}

static void set_board(struct board *board, enum kvm_user_wait running,
		      enum kvm_user_wait parked, u32 posted)
{
	struct kvm_user_score *score = &board->score;

	memset(board, 0, sizeof(*board));
	kvm_user_score_init(score);
	while (score->posted < posted)
		kvm_user_score_store_posted(score);
	score->running.data = 0x11;
	score->parked.data = 0x22;
	if (running)
		kvm_user_access_await(&score->running, running,
				      has_entry(running) ? &board->running : NULL);
	if (parked)
		kvm_user_access_await(&score->parked, parked,
				      has_entry(parked) ? &board->parked : NULL);
	score->is_parked = parked;
}

/* As they are in a board that was just set. */
static void expect_access(struct kunit *test, const struct kvm_user_access *access,
			  enum kvm_user_wait wait, const struct kvm_user_entry *entry, u64 data)
{
	KUNIT_EXPECT_EQ(test, (int)access->wait_for, (int)wait);
	KUNIT_EXPECT_PTR_EQ(test, (const struct kvm_user_entry *)access->entry,
			    has_entry(wait) ? entry : NULL);
	KUNIT_EXPECT_EQ(test, access->data, data);
}

static void expect_posted(struct kunit *test, const struct kvm_user_score *score, u32 posted)
{
	KUNIT_EXPECT_EQ(test, score->posted, posted);
	KUNIT_EXPECT_EQ(test, kvm_user_score_stores_done(score), !posted);
}

static void try_stores(struct kunit *test, struct board *board, enum kvm_user_wait running,
		       enum kvm_user_wait parked, u32 posted)
{
	struct kvm_user_score *score = &board->score;
	bool last = posted == 1;

	set_board(board, running, parked, posted);
	kvm_user_score_store_posted(score);
	expect_posted(test, score, posted + 1);
	expect_access(test, &score->running, running, &board->running, 0x11);
	expect_access(test, &score->parked, parked, &board->parked, 0x22);

	if (!posted)
		return;
	set_board(board, running, parked, posted);
	kvm_user_score_store_done(score);
	expect_posted(test, score, posted - 1);
	expect_access(test, &score->running,
		      last && wants_stores(running) ? KVM_USER_NOTHING : running,
		      &board->running, 0x11);
	expect_access(test, &score->parked,
		      last && wants_stores(parked) ? KVM_USER_NOTHING : parked,
		      &board->parked, 0x22);
}

static void try_load_done(struct kunit *test, struct board *board, enum kvm_user_wait running,
			  enum kvm_user_wait parked, u32 posted)
{
	enum kvm_user_wait after = posted ? KVM_USER_STORES : KVM_USER_NOTHING;
	struct kvm_user_score *score = &board->score;

	if (running == KVM_USER_REPLY) {
		set_board(board, running, parked, posted);
		kvm_user_score_load_done(score, &board->running, 0x33);
		expect_access(test, &score->running, after, NULL, 0x33);
		expect_access(test, &score->parked, parked, &board->parked, 0x22);
		expect_posted(test, score, posted);
	}
	if (parked == KVM_USER_REPLY) {
		set_board(board, running, parked, posted);
		kvm_user_score_load_done(score, &board->parked, 0x33);
		expect_access(test, &score->running, running, &board->running, 0x11);
		expect_access(test, &score->parked, after, NULL, 0x33);
		expect_posted(test, score, posted);
	}
}

static void try_park(struct kunit *test, struct board *board, enum kvm_user_wait running,
		     enum kvm_user_wait parked, u32 posted)
{
	struct kvm_user_score *score = &board->score;

	if (!running || parked)
		return;
	set_board(board, running, parked, posted);
	kvm_user_score_park(score);
	KUNIT_EXPECT_TRUE(test, score->is_parked);
	KUNIT_EXPECT_FALSE(test, score->resuming);
	expect_access(test, &score->running, KVM_USER_NOTHING, NULL, 0);
	expect_access(test, &score->parked, running, &board->running, 0x11);
	expect_posted(test, score, posted);
}

static void try_rest(struct kunit *test, struct board *board, enum kvm_user_wait running,
		     enum kvm_user_wait parked, u32 posted)
{
	struct kvm_user_score *score = &board->score;

	set_board(board, running, parked, posted);
	KUNIT_EXPECT_PTR_EQ(test, kvm_user_score_access(score, &board->running),
			    &score->running);
	KUNIT_EXPECT_PTR_EQ(test, kvm_user_score_access(score, &board->parked),
			    has_entry(parked) ? &score->parked : &score->running);
	KUNIT_EXPECT_PTR_EQ(test, kvm_user_score_access(score, &board->other),
			    &score->running);
	if (!running)
		return;
	kvm_user_access_finish(&score->running, 0x44);
	expect_access(test, &score->running, KVM_USER_NOTHING, NULL, 0x44);
	expect_access(test, &score->parked, parked, &board->parked, 0x22);
	expect_posted(test, score, posted);
}

static void scoreboard_every_transition(struct kunit *test)
{
	struct board *board = kunit_kzalloc(test, sizeof(*board), GFP_KERNEL);
	u32 running, parked, posted;

	KUNIT_ASSERT_NOT_NULL(test, board);
	for (running = 0; running < NR_WAITS; running++) {
		for (parked = 0; parked < NR_WAITS; parked++) {
			for (posted = 0; posted < MOST_POSTED; posted++) {
				try_stores(test, board, running, parked, posted);
				try_load_done(test, board, running, parked, posted);
				try_park(test, board, running, parked, posted);
				try_rest(test, board, running, parked, posted);
			}
		}
	}
}

/* A task that sleeps on an access, once. */
struct sleeper {
	struct kvm_user_access *access;
	unsigned int state;
	long timeout;
	int signal;		/* that it has before it sleeps, or 0 */
	struct task_struct *task;
	struct completion done;
	int ret;
	u64 data;
};

static int sleeper_run(void *data)
{
	struct sleeper *sleeper = data;

	allow_signal(SIGUSR1);
	allow_signal(SIGKILL);
	if (sleeper->signal)
		send_sig(sleeper->signal, current, 1);
	sleeper->access->left = sleeper->timeout;
	sleeper->ret = kvm_user_access_sleep(sleeper->access, sleeper->state);
	sleeper->data = sleeper->access->data;
	flush_signals(current);
	kthread_complete_and_exit(&sleeper->done, 0);
}

static void start(struct kunit *test, struct sleeper *sleeper, struct kvm_user_access *access)
{
	sleeper->access = access;
	init_completion(&sleeper->done);
	sleeper->task = kthread_create(sleeper_run, sleeper, "kvm-user-sleeper");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, sleeper->task);
	get_task_struct(sleeper->task);
	wake_up_process(sleeper->task);
}

static void wait_until_asleep(struct kunit *test, struct sleeper *sleeper)
{
	unsigned long end = jiffies + 10 * HZ;

	while (!rcuwait_active(&sleeper->access->sleeper) ||
	       READ_ONCE(sleeper->task->__state) == TASK_RUNNING) {
		if (time_after(jiffies, end)) {
			KUNIT_FAIL(test, "it does not go to sleep");
			return;
		}
		schedule_timeout_uninterruptible(1);
	}
}

static int result(struct kunit *test, struct sleeper *sleeper)
{
	if (!wait_for_completion_timeout(&sleeper->done, 10 * HZ)) {
		KUNIT_FAIL(test, "it does not wake up");
		kvm_user_access_finish(sleeper->access, 0);
		wait_for_completion(&sleeper->done);
	}
	put_task_struct(sleeper->task);
	KUNIT_EXPECT_FALSE(test, rcuwait_active(&sleeper->access->sleeper));
	return sleeper->ret;
}

static struct board *waiting_board(struct kunit *test)
{
	struct board *board = kunit_kzalloc(test, sizeof(*board), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, board);
	set_board(board, KVM_USER_REPLY, KVM_USER_NOTHING, 0);
	return board;
}

static const unsigned int sleep_states[] = { TASK_KILLABLE, TASK_INTERRUPTIBLE };

static void scoreboard_wakes(struct kunit *test)
{
	struct board *board = waiting_board(test);
	struct kvm_user_access *access = &board->score.running;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sleep_states); i++) {
		struct sleeper sleeper = {
			.state = sleep_states[i], .timeout = MAX_SCHEDULE_TIMEOUT,
		};

		set_board(board, KVM_USER_REPLY, KVM_USER_NOTHING, 0);
		start(test, &sleeper, access);
		wait_until_asleep(test, &sleeper);
		/* Not what it waits for. */
		wake_up_process(sleeper.task);
		wait_until_asleep(test, &sleeper);
		kvm_user_access_finish(access, 0x55);
		KUNIT_EXPECT_EQ(test, result(test, &sleeper), 0);
		KUNIT_EXPECT_EQ(test, sleeper.data, 0x55ULL);
		KUNIT_EXPECT_GT(test, access->longest, 0ULL);
	}
}

static void scoreboard_has_come_before(struct kunit *test)
{
	struct board *board = waiting_board(test);
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sleep_states); i++) {
		/* Neither a signal nor the time limit takes away what is there. */
		struct sleeper sleeper = { .state = sleep_states[i], .signal = SIGKILL };

		set_board(board, KVM_USER_REPLY, KVM_USER_NOTHING, 0);
		kvm_user_access_finish(&board->score.running, 0x66);
		start(test, &sleeper, &board->score.running);
		KUNIT_EXPECT_EQ(test, result(test, &sleeper), 0);
		KUNIT_EXPECT_EQ(test, sleeper.data, 0x66ULL);
	}
}

static void scoreboard_times_out(struct kunit *test)
{
	struct board *board = waiting_board(test);
	struct kvm_user_access *access = &board->score.running;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sleep_states); i++) {
		struct sleeper sleeper = { .state = sleep_states[i], .timeout = 3 };
		unsigned long before = jiffies;

		start(test, &sleeper, access);
		KUNIT_EXPECT_EQ(test, result(test, &sleeper), -ETIME);
		KUNIT_EXPECT_TRUE(test, time_after_eq(jiffies, before + 2));
		KUNIT_EXPECT_GE(test, access->longest, (u64)jiffies_to_nsecs(2));
		expect_access(test, access, KVM_USER_REPLY, &board->running, 0x11);
	}
}

/* A signal that comes before the sleep, or during it, ends it as @expected says. */
static void try_signal(struct kunit *test, unsigned int state, int signal, bool before,
		       int expected)
{
	struct board *board = waiting_board(test);
	struct kvm_user_access *access = &board->score.running;
	struct sleeper sleeper = {
		.state = state, .timeout = MAX_SCHEDULE_TIMEOUT, .signal = before ? signal : 0,
	};

	start(test, &sleeper, access);
	if (!before || !expected)
		wait_until_asleep(test, &sleeper);
	if (!before)
		send_sig(signal, sleeper.task, 1);
	if (!expected)
		kvm_user_access_finish(access, 0x77);
	KUNIT_EXPECT_EQ(test, result(test, &sleeper), expected);
	if (expected)
		expect_access(test, access, KVM_USER_REPLY, &board->running, 0x11);
}

static void scoreboard_signals(struct kunit *test)
{
	int before;

	for (before = 0; before < 2; before++) {
		try_signal(test, TASK_KILLABLE, SIGUSR1, before, 0);
		try_signal(test, TASK_KILLABLE, SIGKILL, before, -EINTR);
		try_signal(test, TASK_INTERRUPTIBLE, SIGUSR1, before, -ERESTARTSYS);
		try_signal(test, TASK_INTERRUPTIBLE, SIGKILL, before, -EINTR);
	}
}

/* O3: the reply is there, and the last of the stores wakes. */
static void scoreboard_waits_for_stores(struct kunit *test)
{
	struct board *board = waiting_board(test);
	struct kvm_user_access *access = &board->score.running;
	struct sleeper sleeper = { .state = TASK_KILLABLE, .timeout = MAX_SCHEDULE_TIMEOUT };

	set_board(board, KVM_USER_REPLY, KVM_USER_NOTHING, 2);
	start(test, &sleeper, access);
	kvm_user_score_load_done(&board->score, &board->running, 0x88);
	kvm_user_score_store_done(&board->score);
	wait_until_asleep(test, &sleeper);
	KUNIT_EXPECT_EQ(test, (int)access->wait_for, KVM_USER_STORES);
	kvm_user_score_store_done(&board->score);
	KUNIT_EXPECT_EQ(test, result(test, &sleeper), 0);
	KUNIT_EXPECT_EQ(test, sleeper.data, 0x88ULL);
}

/* B4: the one that sleeps on the parked access is woken, and the next is its own. */
static void scoreboard_resumes(struct kunit *test)
{
	struct board *board = waiting_board(test);
	struct kvm_user_score *score = &board->score;
	struct sleeper resume = { .state = TASK_INTERRUPTIBLE, .timeout = MAX_SCHEDULE_TIMEOUT };
	struct sleeper vcpu = { .state = TASK_KILLABLE, .timeout = MAX_SCHEDULE_TIMEOUT };

	kvm_user_score_park(score);
	start(test, &resume, &score->parked);
	kvm_user_access_await(&score->running, KVM_USER_REPLY, &board->other);
	start(test, &vcpu, &score->running);
	wait_until_asleep(test, &resume);
	wait_until_asleep(test, &vcpu);

	kvm_user_score_load_done(score, &board->running, 0x99);
	KUNIT_EXPECT_EQ(test, result(test, &resume), 0);
	KUNIT_EXPECT_EQ(test, resume.data, 0x99ULL);
	expect_access(test, &score->running, KVM_USER_REPLY, &board->other, 0);
	kvm_user_score_load_done(score, &board->other, 0xaa);
	KUNIT_EXPECT_EQ(test, result(test, &vcpu), 0);
	KUNIT_EXPECT_EQ(test, vcpu.data, 0xaaULL);
}

#define ROUNDS	1000

struct rally {
	struct kvm_user_access there;
	struct kvm_user_access back;
	struct completion done;
	int ret;
};

static int rally_run(void *data)
{
	struct rally *rally = data;
	u64 i;

	for (i = 1; i <= ROUNDS && !rally->ret; i++) {
		rally->there.left = 10 * HZ;
		rally->ret = kvm_user_access_sleep(&rally->there, TASK_KILLABLE);
		if (!rally->ret && rally->there.data != i)
			rally->ret = -EILSEQ;
		kvm_user_access_await(&rally->there, KVM_USER_REPLY, NULL);
		kvm_user_access_finish(&rally->back, i);
	}
	kthread_complete_and_exit(&rally->done, 0);
}

/* No wake-up is lost, and who wakes sees the data, without a lock. */
static void scoreboard_publishes(struct kunit *test)
{
	struct rally *rally = kunit_kzalloc(test, sizeof(*rally), GFP_KERNEL);
	struct task_struct *task;
	int ret = 0;
	u64 i;

	KUNIT_ASSERT_NOT_NULL(test, rally);
	rcuwait_init(&rally->there.sleeper);
	rcuwait_init(&rally->back.sleeper);
	init_completion(&rally->done);
	kvm_user_access_await(&rally->there, KVM_USER_REPLY, NULL);
	task = kthread_run(rally_run, rally, "kvm-user-rally");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);

	for (i = 1; i <= ROUNDS && !ret; i++) {
		kvm_user_access_await(&rally->back, KVM_USER_REPLY, NULL);
		kvm_user_access_finish(&rally->there, i);
		rally->back.left = 10 * HZ;
		ret = kvm_user_access_sleep(&rally->back, TASK_KILLABLE);
		KUNIT_EXPECT_EQ(test, rally->back.data, i);
	}
	KUNIT_EXPECT_EQ(test, ret, 0);
	wait_for_completion(&rally->done);
	KUNIT_EXPECT_EQ(test, rally->ret, 0);
}

static struct kunit_case scoreboard_cases[] = {
	KUNIT_CASE(scoreboard_every_transition),
	KUNIT_CASE(scoreboard_wakes),
	KUNIT_CASE(scoreboard_has_come_before),
	KUNIT_CASE(scoreboard_times_out),
	KUNIT_CASE(scoreboard_signals),
	KUNIT_CASE(scoreboard_waits_for_stores),
	KUNIT_CASE(scoreboard_resumes),
	KUNIT_CASE(scoreboard_publishes),
	{}
};

static struct kunit_suite scoreboard_suite = {
	.name = "kvm_user_scoreboard",
	.test_cases = scoreboard_cases,
};

kunit_test_suite(scoreboard_suite);
