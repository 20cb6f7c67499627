// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/precopy.h"

#include "common/util.h"
#include "umemd/codec.h"
#include "umemd/tests/cmocka_first.h"

#define START	(1000 * NSEC_PER_SEC)
#define MIB	(1ULL << 20)

static struct precopy precopy;
static uint64_t now, cpu, bytes, collecting_ms, preempted_ms;

static int setup(void **state)
{
	(void)state;
	precopy = (struct precopy){ .limit_ms = DOWNTIME_LIMIT_MS };
	now = START;
	bytes = 12345;
	cpu = 77;
	collecting_ms = preempted_ms = 0;
	return 0;
}

/* A round with so many dirty pages, which take so long to send. */
static bool turn(uint64_t dirty, uint64_t sent_bytes, uint64_t ms)
{
	bool little;

	precopy_begin(&precopy, now, cpu);
	assert_int_equal(precopy.step, PRECOPY_COLLECT);
	cpu += collecting_ms * NSEC_PER_MSEC;
	now += (collecting_ms + preempted_ms) * NSEC_PER_MSEC;
	little = precopy_collected(&precopy, dirty, bytes, now, cpu);
	assert_int_equal(precopy.step, PRECOPY_SEND);
	bytes += sent_bytes;
	now += ms * NSEC_PER_MSEC;
	precopy_sent(&precopy, bytes, now);
	assert_int_equal(precopy.step, PRECOPY_WAIT);
	return little;
}

static void test_the_first_round_says_nothing(void **state)
{
	(void)state;
	assert_false(turn(0, 0, 0));
	assert_int_equal(precopy.round, 1);
	assert_true(turn(0, 0, 0));
	assert_int_equal(precopy.round, 2);
}

static void test_it_is_enough_once_the_rest_fits_the_limit(void **state)
{
	(void)state;
	assert_false(turn(25600, 100 * MIB, 1000));	/* 100 MiB a second */
	assert_int_equal(precopy_expected_ms(&precopy, 7680), 300);
	assert_false(turn(7681, 30 * MIB, 300));	/* a little too much */
	assert_true(turn(7680, 30 * MIB, 300));
	/* told once */
	assert_false(turn(10, 40960, 1));
	assert_true(precopy.converged);
}

static void test_a_guest_that_writes_too_fast_never_has_enough(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_false(turn(25600, 100 * MIB, 1000));
	/* until more is allowed */
	precopy.limit_ms = 1000;
	assert_true(turn(25600, 100 * MIB, 1000));
}

static void test_a_short_round_tells_no_rate(void **state)
{
	(void)state;
	turn(25600, 100 * MIB, 1000);
	turn(1, 4096, 0);
	assert_int_equal(precopy.rate, 100 * MIB);
	turn(5120, 20 * MIB, 1000);
	assert_int_equal(precopy.rate, 20 * MIB);
}

static void test_nothing_is_known_before_anything_went(void **state)
{
	(void)state;
	assert_int_equal(precopy_expected_ms(&precopy, 0), 0);
	assert_true(precopy_expected_ms(&precopy, 1) == UINT64_MAX);
	precopy.rate = 1000 * PAGE_BYTES * 1000ULL;
	assert_int_equal(precopy_expected_ms(&precopy, 1), 1);
	precopy.rate = 1;
	assert_true(precopy_expected_ms(&precopy, UINT64_MAX / 2) == UINT64_MAX);
}

static void test_rounds_do_not_follow_too_closely(void **state)
{
	(void)state;
	turn(100, 409600, 30);
	assert_int_equal(precopy_wait(&precopy, now), PRECOPY_PERIOD_NS - 30 * NSEC_PER_MSEC);
	now += PRECOPY_PERIOD_NS - 30 * NSEC_PER_MSEC;
	assert_int_equal(precopy_wait(&precopy, now), 0);
	turn(100, 409600, 3000);
	assert_int_equal(precopy_wait(&precopy, now), 0);
	collecting_ms = 200;
	turn(100, 409600, 300);
	assert_int_equal(precopy_wait(&precopy, now), 500 * NSEC_PER_MSEC);
	preempted_ms = 4000;	/* others had the processor meanwhile */
	turn(100, 409600, 300);
	assert_int_equal(precopy_wait(&precopy, now), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_the_first_round_says_nothing, setup),
		cmocka_unit_test_setup(test_it_is_enough_once_the_rest_fits_the_limit, setup),
		cmocka_unit_test_setup(test_a_guest_that_writes_too_fast_never_has_enough, setup),
		cmocka_unit_test_setup(test_a_short_round_tells_no_rate, setup),
		cmocka_unit_test_setup(test_nothing_is_known_before_anything_went, setup),
		cmocka_unit_test_setup(test_rounds_do_not_follow_too_closely, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
