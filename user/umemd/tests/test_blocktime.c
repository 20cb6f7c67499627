// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/blocktime.h"

#include <string.h>

#include "umemd/tests/cmocka_first.h"

static struct blocktime blocktime;

static int setup(void **state)
{
	(void)state;
	memset(&blocktime, 0, sizeof(blocktime));
	return 0;
}

static uint64_t total(uint32_t tid, uint64_t now)
{
	for (uint32_t i = 0; i < blocktime.nr_threads; i++) {
		if (blocktime.threads[i].tid == tid)
			return blocktime_total(&blocktime.threads[i], now);
	}
	fail_msg("thread %u is not known", tid);
	return 0;
}

static void test_waits_of_each_thread_add_up(void **state)
{
	(void)state;
	blocktime_begin(&blocktime, 7, 100);
	blocktime_begin(&blocktime, 8, 110);
	blocktime_end(&blocktime, 7, 150);
	blocktime_end(&blocktime, 8, 111);
	blocktime_begin(&blocktime, 7, 200);
	blocktime_end(&blocktime, 7, 205);
	assert_int_equal(blocktime.nr_threads, 2);
	assert_int_equal(total(7, 1000), 55);
	assert_int_equal(total(8, 1000), 1);
}

static void test_several_pages_at_once_are_one_wait(void **state)
{
	(void)state;
	blocktime_begin(&blocktime, 7, 100);
	blocktime_begin(&blocktime, 7, 120);
	blocktime_end(&blocktime, 7, 130);
	assert_int_equal(total(7, 135), 35);
	blocktime_begin(&blocktime, 7, 140);
	blocktime_end(&blocktime, 7, 150);
	blocktime_end(&blocktime, 7, 160);
	assert_int_equal(total(7, 1000), 60);
}

static void test_who_waits_still_has_waited_until_now(void **state)
{
	(void)state;
	blocktime_begin(&blocktime, 7, 100);
	assert_int_equal(total(7, 100), 0);
	assert_int_equal(total(7, 90), 0);
	assert_int_equal(total(7, 5000), 4900);
	blocktime_end(&blocktime, 7, 6000);
	assert_int_equal(total(7, 7000), 5900);
}

/* Its next request may have been made before we put the page of the last one in place. */
static void test_no_time_counts_twice(void **state)
{
	(void)state;
	blocktime_begin(&blocktime, 7, 100);
	blocktime_end(&blocktime, 7, 200);
	blocktime_begin(&blocktime, 7, 190);
	blocktime_end(&blocktime, 7, 195);
	blocktime_begin(&blocktime, 7, 196);
	blocktime_end(&blocktime, 7, 210);
	assert_int_equal(total(7, 1000), 110);
}

static void test_threads_that_do_not_fit_are_one(void **state)
{
	(void)state;
	for (uint32_t tid = 1; tid <= BLOCKTIME_THREADS; tid++)
		blocktime_begin(&blocktime, tid, tid);
	blocktime_begin(&blocktime, 5000, 1000);
	blocktime_begin(&blocktime, 5001, 1000);
	blocktime_end(&blocktime, 5000, 1010);
	blocktime_end(&blocktime, 5001, 1020);
	for (uint32_t tid = 1; tid <= BLOCKTIME_THREADS; tid++) {
		blocktime_end(&blocktime, tid, 10000);
		assert_int_equal(total(tid, 20000), 10000 - tid);
	}
	assert_int_equal(blocktime.nr_threads, BLOCKTIME_THREADS);
	assert_int_equal(blocktime_total(&blocktime.others, 20000), 20);
}

static void test_a_thread_without_an_id_is_one_of_the_others(void **state)
{
	(void)state;
	blocktime_begin(&blocktime, 0, 10);
	blocktime_end(&blocktime, 0, 15);
	assert_int_equal(blocktime.nr_threads, 0);
	assert_int_equal(blocktime_total(&blocktime.others, 20), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_waits_of_each_thread_add_up, setup),
		cmocka_unit_test_setup(test_several_pages_at_once_are_one_wait, setup),
		cmocka_unit_test_setup(test_who_waits_still_has_waited_until_now, setup),
		cmocka_unit_test_setup(test_no_time_counts_twice, setup),
		cmocka_unit_test_setup(test_threads_that_do_not_fit_are_one, setup),
		cmocka_unit_test_setup(test_a_thread_without_an_id_is_one_of_the_others, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
