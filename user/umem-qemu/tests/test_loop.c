// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/loop.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"

static char calls[32];
static int a[2], b[2];

static int setup(void **state)
{
	(void)state;
	calls[0] = '\0';
	return pipe(a) || pipe(b);
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		loop_forget(a[i]);
		loop_forget(b[i]);
		close(a[i]);
		close(b[i]);
	}
	return 0;
}

static void note(void *context, short revents)
{
	assert_true(revents);
	strcat(calls, context);
}

static void note_timer(void *context)
{
	strcat(calls, context);
}

static void forget_b(void *context, short revents)
{
	note(context, revents);
	loop_forget(b[0]);
}

static void test_ready_descriptors_are_told_the_others_are_not(void **state)
{
	(void)state;
	loop_watch(a[0], POLLIN, note, "a");
	loop_watch(b[0], POLLIN, note, "b");
	assert_int_equal(write(b[1], "x", 1), 1);
	loop_once();
	assert_string_equal(calls, "b");
}

static void test_descriptor_forgotten_by_another_is_not_told(void **state)
{
	(void)state;
	loop_watch(a[0], POLLIN, forget_b, "a");
	loop_watch(b[0], POLLIN, note, "b");
	assert_int_equal(write(a[1], "x", 1), 1);
	assert_int_equal(write(b[1], "x", 1), 1);
	loop_once();
	loop_once();
	assert_string_equal(calls, "aa");
}

static void test_idle_work_waits_for_all_other_work(void **state)
{
	char c;

	(void)state;
	loop_watch_idle(b[1], POLLOUT, note, "i");
	loop_watch(a[0], POLLIN, note, "a");
	assert_int_equal(write(a[1], "x", 1), 1);
	loop_once();
	assert_string_equal(calls, "a");
	assert_int_equal(read(a[0], &c, 1), 1);
	loop_once();
	assert_string_equal(calls, "ai");
}

static void test_events_can_be_changed(void **state)
{
	(void)state;
	loop_watch(a[0], POLLIN, note, "a");
	loop_watch(b[0], POLLIN, note, "b");
	loop_events(a[0], 0);
	assert_int_equal(write(a[1], "x", 1), 1);
	assert_int_equal(write(b[1], "x", 1), 1);
	loop_once();
	assert_string_equal(calls, "b");
}

static void test_timers_fire_once_and_in_time(void **state)
{
	struct loop_timer soon = { .fn = note_timer, .context = "s" };
	struct loop_timer never = { .fn = note_timer, .context = "n" };
	uint64_t before = now_ns();

	(void)state;
	loop_timer_set(&never, 60000);
	loop_timer_set(&soon, 50);
	loop_once();
	assert_string_equal(calls, "s");
	assert_true(now_ns() - before >= 50 * NSEC_PER_MSEC);
	assert_true(now_ns() - before < 10 * NSEC_PER_SEC);
	assert_int_equal(soon.due_ns, 0);

	loop_timer_set(&soon, 0);
	loop_timer_set(&soon, 10);
	loop_timer_clear(&never);
	loop_once();
	assert_string_equal(calls, "ss");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_ready_descriptors_are_told_the_others_are_not),
		test(test_descriptor_forgotten_by_another_is_not_told),
		test(test_idle_work_waits_for_all_other_work),
		test(test_events_can_be_changed),
		test(test_timers_fire_once_and_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
