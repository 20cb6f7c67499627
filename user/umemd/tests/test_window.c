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
	assert_int_equal(window_wait(&window, window.bytes, 0), 0);
	assert_int_not_equal(window_wait(&window, window.bytes + 1, 0), 0);
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
	assert_true(window.bytes + window_frame(&window, 0) <= rate / 50);
	assert_in_range(window_frame(&window, 0), PAGE, rate / 100);
	window_set(&window, 1000, NSEC_PER_MSEC, START);
	assert_in_range(window_frame(&window, 0), PAGE, 2 * PAGE);
}

static void test_a_path_that_cannot_be_measured_has_no_limit(void **state)
{
	(void)state;
	window_set(&window, 0, 0, START);
	assert_int_equal(window_wait(&window, UINT64_MAX, 0), 0);
}

static void test_no_measure_overflows(void **state)
{
	(void)state;
	window_set(&window, UINT64_MAX, UINT64_MAX, START);
	assert_true(window.bytes > WINDOW_SPARE_MAX);
	assert_int_equal(window_wait(&window, 1 << 20, 0), 0);
}

static void test_the_wait_is_as_long_as_what_is_too_much_takes(void **state)
{
	(void)state;
	assert_in_range(window_wait(&window, window.bytes + GIGABIT / 2000, 0),
			450 * NSEC_PER_USEC, 550 * NSEC_PER_USEC);
	assert_int_equal(window_wait(&window, window.bytes + GIGABIT, 0),
			 WINDOW_POLL_MAX_NS);
}

static void test_beside_answers_bulk_has_what_the_path_holds(void **state)
{
	uint64_t held = GIGABIT / 1000;

	(void)state;
	assert_in_range(window.beside, held, held + WINDOW_SPARE_MAX / 4);
	assert_int_equal(window_wait(&window, window.beside, PAGE), 0);
	assert_int_not_equal(window_wait(&window, window.beside + 1, PAGE), 0);
	assert_in_range(window_frame(&window, PAGE), PAGE, window_frame(&window, 0) / 2);
}

static void test_beside_answers_there_is_a_limit_without_a_measure(void **state)
{
	(void)state;
	window_set(&window, 0, 0, START);
	assert_int_equal(window_wait(&window, PAGE, PAGE), 0);
	assert_int_equal(window_wait(&window, UINT64_MAX, PAGE), WINDOW_POLL_MAX_NS);
}

static void test_a_zero_page_is_no_answer_to_wait_for(void **state)
{
	(void)state;
	assert_int_equal(window_wait(&window, window.bytes, 32), 0);
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
		cmocka_unit_test_setup(test_beside_answers_bulk_has_what_the_path_holds, setup),
		cmocka_unit_test_setup(test_beside_answers_there_is_a_limit_without_a_measure, setup),
		cmocka_unit_test_setup(test_a_zero_page_is_no_answer_to_wait_for, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
