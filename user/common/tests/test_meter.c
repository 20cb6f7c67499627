// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/meter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#define SECOND	1000000000ULL

static void assert_draws(struct meter *meter, unsigned int percent, const char *text,
			 uint64_t now, const char *want)
{
	char *got = meter_draw(meter, percent, text, now);

	if (want)
		assert_string_equal(got, want);
	else
		assert_null(got);
	free(got);
}

static void test_on_a_terminal_the_line_changes_with_its_bar(void **state)
{
	struct meter meter;

	(void)state;
	meter_begin(&meter, 80, 0);
	assert_draws(&meter, 0, "begun", 1, "\r\033[K[..........] begun");
	assert_draws(&meter, 59, "goes", 2, "\r\033[K[#####.....] goes");
	assert_draws(&meter, 100, "done", 3, "\r\033[K[##########] done");
	assert_draws(&meter, 4000000000u, "more", 4, "\r\033[K[##########] more");
}

static void test_on_a_terminal_no_line_wraps(void **state)
{
	struct meter meter;
	char text[400];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (unsigned int columns = 14; columns < 300; columns++) {
		char *got;

		meter_begin(&meter, columns, 0);
		got = meter_draw(&meter, 50, text, 1);
		assert_true(strlen(got) - strlen("\r\033[K") < columns);
		free(got);
	}
}

static void test_off_a_terminal_a_line_a_second_at_most(void **state)
{
	struct meter meter;

	(void)state;
	meter_begin(&meter, 0, 5 * SECOND);
	assert_draws(&meter, 1, "early", 5 * SECOND + 1, NULL);
	assert_draws(&meter, 1, "late", 6 * SECOND, "late\n");
	assert_draws(&meter, 1, "again", 7 * SECOND - 1, NULL);
	assert_string_equal(meter_clear(&meter), "");
}

static void test_only_what_was_shown_is_cleared_and_once(void **state)
{
	struct meter meter;

	(void)state;
	meter_begin(&meter, 80, 0);
	assert_string_equal(meter_clear(&meter), "");
	free(meter_draw(&meter, 1, "x", 1));
	assert_string_equal(meter_clear(&meter), "\r\033[K");
	assert_string_equal(meter_clear(&meter), "");
}

static void test_a_pipe_has_no_columns(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(meter_columns(fds[1]), 0);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_on_a_terminal_the_line_changes_with_its_bar),
		cmocka_unit_test(test_on_a_terminal_no_line_wraps),
		cmocka_unit_test(test_off_a_terminal_a_line_a_second_at_most),
		cmocka_unit_test(test_only_what_was_shown_is_cleared_and_once),
		cmocka_unit_test(test_a_pipe_has_no_columns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
