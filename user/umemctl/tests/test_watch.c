// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#define SECOND	1000000000ULL
#define RUNNING	"\"info\":{\"status\":\"running\",\"pages_total\":4,\"pages_sent\":2}"
#define LINE	"migrate: running, 2 of 4 pages (50 %), 0.0 MB/s, 0 requests"

/* @out, @error: what must be written, NULL: nothing. */
static void assert_event(struct watch *watch, const char *text, uint64_t now, int want,
			 const char *out, const char *error)
{
	json_t *event = json_loads(text, 0, NULL);
	char *got_out, *got_error;

	assert_non_null(event);
	assert_int_equal(watch_event(watch, event, now, &got_out, &got_error), want);
	if (out)
		assert_string_equal(got_out, out);
	else
		assert_true(!got_out || !*got_out);
	if (error)
		assert_string_equal(got_error, error);
	else
		assert_null(got_error);
	free(got_out);
	free(got_error);
	json_decref(event);
}

static void test_only_a_completed_migration_is_a_success(void **state)
{
	static const char *const others[] = {
		"failed", "cancelled", "none", "running", "paused", "Completed", "",
	};
	struct watch watch;

	(void)state;
	watch_begin(&watch, 0, 0);
	assert_event(&watch, "{\"event\":\"end\",\"info\":{\"status\":\"completed\","
		     "\"uri\":\"tcp:a:1\",\"total_time_ms\":7}}", 1, 0,
		     "migrate: completed, the guest and its memory are at tcp:a:1 after 7 ms\n",
		     NULL);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		json_t *event = json_pack("{s:s, s:{s:s}}", "event", "end",
					  "info", "status", others[i]);
		char *out, *error;

		assert_int_equal(watch_event(&watch, event, 1, &out, &error), 1);
		assert_non_null(error);
		free(out);
		free(error);
		json_decref(event);
	}
	assert_event(&watch, "{\"event\":\"end\"}", 1, 1, NULL, "migration to ?: unknown");
}

static void test_why_it_failed_is_told_once(void **state)
{
	static const char end[] = "{\"event\":\"end\",\"info\":{\"status\":\"failed\","
				  "\"uri\":\"tcp:a:1\",\"reason\":\"no route\"}}";
	struct watch watch;

	(void)state;
	watch_begin(&watch, 0, 0);
	assert_event(&watch, end, 1, 1, NULL, "migration to tcp:a:1: failed, no route");
	watch_begin(&watch, 80, 0);
	assert_event(&watch, "{\"event\":\"state\"," RUNNING "}", 1, WATCH_GOES_ON,
		     "\r\033[K[#####.....] " LINE, NULL);
	assert_event(&watch, "{\"event\":\"message\",\"text\":\"migrate: no route; it runs on here\"}",
		     1, WATCH_GOES_ON, "\r\033[K", "migrate: no route; it runs on here");
	assert_event(&watch, end, 1, 1, NULL, NULL);
}

static void test_off_a_terminal_progress_is_a_line_a_second_at_most(void **state)
{
	static const char progress[] = "{\"event\":\"progress\"," RUNNING "}";
	struct watch watch;

	(void)state;
	watch_begin(&watch, 0, SECOND);
	assert_event(&watch, progress, SECOND + 1, WATCH_GOES_ON, NULL, NULL);
	assert_event(&watch, progress, 2 * SECOND, WATCH_GOES_ON, LINE "\n", NULL);
	assert_event(&watch, progress, 2 * SECOND + 1, WATCH_GOES_ON, NULL, NULL);
}

static void test_events_of_a_later_umem_qemu_are_passed_over(void **state)
{
	struct watch watch;

	(void)state;
	watch_begin(&watch, 80, 0);
	assert_event(&watch, "{\"event\":\"rounds\",\"n\":1}", 1, WATCH_GOES_ON, NULL, NULL);
	assert_event(&watch, "{\"event\":5}", 1, WATCH_GOES_ON, NULL, NULL);
	assert_event(&watch, "{}", 1, WATCH_GOES_ON, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_a_completed_migration_is_a_success),
		cmocka_unit_test(test_why_it_failed_is_told_once),
		cmocka_unit_test(test_off_a_terminal_progress_is_a_line_a_second_at_most),
		cmocka_unit_test(test_events_of_a_later_umem_qemu_are_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
