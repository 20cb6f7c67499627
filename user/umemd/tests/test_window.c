// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/window.h"

#include <string.h>

#include "umemd/tests/cmocka_first.h"

#define START		(1000 * NSEC_PER_SEC)
#define GIGABIT		125000000ULL
#define PAGE		4096

static struct window window;

static int setup(void **state)
{
	(void)state;
	memset(&window, 0, sizeof(window));
	window_set(&window, GIGABIT, NSEC_PER_MSEC, START);
	return 0;
}

static void test_the_path_is_filled_and_little_more(void **state)
{
	uint64_t held = GIGABIT / 1000;	/* bytes in 1 ms */

	(void)state;
	assert_true(window.bytes > held);
	assert_true(window.bytes <= WINDOW_SPARE_MAX + 2 * held);
	assert_int_equal(window_wait(&window, window.bytes, 0, START), 0);
	assert_int_not_equal(window_wait(&window, window.bytes + 1, 0, START), 0);
}

static void test_a_longer_path_holds_more(void **state)
{
	uint64_t before = window.bytes;

	(void)state;
	window_set(&window, GIGABIT, 50 * NSEC_PER_MSEC, START);
	assert_true(window.bytes >= before + 49 * GIGABIT / 1000);
}

static void test_on_a_slow_path_an_answer_waits_for_little(void **state)
{
	const uint64_t rate = GIGABIT / 25;

	(void)state;
	window_set(&window, rate, NSEC_PER_MSEC, START);
	assert_true(window.bytes + window_frame(&window) <= rate / 50);
	assert_in_range(window_frame(&window), PAGE, rate / 100);
	window_set(&window, 1000, NSEC_PER_MSEC, START);
	assert_in_range(window_frame(&window), PAGE, 2 * PAGE);
}

static void test_a_path_that_cannot_be_measured_has_no_limit(void **state)
{
	(void)state;
	window_set(&window, 0, 0, START);
	assert_int_equal(window_wait(&window, UINT64_MAX, 0, START), 0);
}

static void test_no_measure_overflows(void **state)
{
	(void)state;
	window_set(&window, UINT64_MAX, UINT64_MAX, START);
	assert_true(window.bytes > WINDOW_SPARE_MAX);
	assert_int_equal(window_wait(&window, 1 << 20, 0, START), 0);
}

static void test_the_wait_is_as_long_as_what_is_too_much_takes(void **state)
{
	(void)state;
	assert_in_range(window_wait(&window, window.bytes + GIGABIT / 2000, 0, START),
			450 * NSEC_PER_USEC, 550 * NSEC_PER_USEC);
	assert_int_equal(window_wait(&window, window.bytes + GIGABIT, 0, START),
			 WINDOW_POLL_MAX_NS);
}

static void test_bulk_waits_for_an_answer_but_not_for_ever(void **state)
{
	uint64_t waited = 0, wait;

	(void)state;
	while ((wait = window_wait(&window, 0, PAGE, START + waited)))
		waited += wait;
	assert_in_range(waited, WINDOW_HOLD_NS, WINDOW_HOLD_NS + WINDOW_POLL_MAX_NS);
	/* one frame, and the next waits again */
	assert_int_not_equal(window_wait(&window, 0, PAGE, START + waited), 0);
}

static void test_an_answer_that_arrived_lets_bulk_go(void **state)
{
	(void)state;
	assert_int_not_equal(window_wait(&window, 0, PAGE, START), 0);
	assert_int_equal(window_wait(&window, 0, 0, START + 1), 0);
	/* and what is waited for later is waited for as long */
	assert_int_not_equal(window_wait(&window, 0, PAGE, START + 2 * WINDOW_HOLD_NS), 0);
}

static void test_a_zero_page_is_not_waited_for(void **state)
{
	(void)state;
	assert_int_equal(window_wait(&window, 0, 32, START), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_the_path_is_filled_and_little_more, setup),
		cmocka_unit_test_setup(test_a_longer_path_holds_more, setup),
		cmocka_unit_test_setup(test_on_a_slow_path_an_answer_waits_for_little, setup),
		cmocka_unit_test_setup(test_a_path_that_cannot_be_measured_has_no_limit, setup),
		cmocka_unit_test_setup(test_no_measure_overflows, setup),
		cmocka_unit_test_setup(test_the_wait_is_as_long_as_what_is_too_much_takes, setup),
		cmocka_unit_test_setup(test_bulk_waits_for_an_answer_but_not_for_ever, setup),
		cmocka_unit_test_setup(test_an_answer_that_arrived_lets_bulk_go, setup),
		cmocka_unit_test_setup(test_a_zero_page_is_not_waited_for, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
