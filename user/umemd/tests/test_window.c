// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/window.h"

#include "umemd/tests/cmocka_first.h"

#define MB	1000000ULL
#define SECOND	1000000000ULL

static void test_unknown_link_gets_the_least(void **state)
{
	struct window window = { 0 };

	(void)state;
	assert_int_equal(window_bytes(&window), WINDOW_MIN);
}

/* 1 Gbit/s, 1 ms: less than as much again waits in queues before a request's answer. */
static void test_queueing_stays_below_a_round_trip(void **state)
{
	struct window window = { 0 };
	uint64_t bytes;

	(void)state;
	window_sample(&window, SECOND, 125 * MB, 1000);
	bytes = window_bytes(&window);
	assert_true(bytes >= 125000);
	assert_true(bytes < 2 * 125000);
}

static void test_long_links_are_filled(void **state)
{
	struct window window = { 0 };

	(void)state;
	window_sample(&window, SECOND, 1250 * MB, 50000);
	assert_true(window_bytes(&window) >= 1250 * MB / 20);
}

/* What is sent is what the window allows; the true rate must be found from below. */
static void test_a_rate_taken_for_too_low_is_found_out(void **state)
{
	struct window window = { 0 };
	uint64_t now = SECOND, rate = 0;

	(void)state;
	for (int i = 0; i < 100; i++) {
		rate = window_bytes(&window) * 20;	/* a round trip of 50 ms */
		if (rate >= 1250 * MB)
			break;
		window_sample(&window, now, rate, 50000);
		now += SECOND / 20;
	}
	assert_true(rate >= 1250 * MB);
}

static void test_a_slower_link_is_noticed_in_two_periods(void **state)
{
	struct window window = { 0 };

	(void)state;
	window_sample(&window, 10 * SECOND, 1250 * MB, 1000);
	window_sample(&window, 10 * SECOND + 1, 100 * MB, 1000);
	assert_true(window_bytes(&window) > 1000000);
	window_sample(&window, 11 * SECOND, 100 * MB, 1000);
	assert_true(window_bytes(&window) > 1000000);
	window_sample(&window, 12 * SECOND, 100 * MB, 1000);
	assert_true(window_bytes(&window) < 200000);
}

static void test_absurd_samples_do_no_harm(void **state)
{
	struct window window = { 0 };

	(void)state;
	window_sample(&window, SECOND, UINT64_MAX, UINT32_MAX);
	assert_true(window_bytes(&window) >= WINDOW_MIN);
	window_sample(&window, 5 * SECOND, 0, 0);
	window_sample(&window, 9 * SECOND, 0, 0);
	assert_int_equal(window_bytes(&window), WINDOW_MIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown_link_gets_the_least),
		cmocka_unit_test(test_queueing_stays_below_a_round_trip),
		cmocka_unit_test(test_long_links_are_filled),
		cmocka_unit_test(test_a_rate_taken_for_too_low_is_found_out),
		cmocka_unit_test(test_a_slower_link_is_noticed_in_two_periods),
		cmocka_unit_test(test_absurd_samples_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
