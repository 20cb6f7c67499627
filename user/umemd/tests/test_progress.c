// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/progress.h"

#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "umemd/codec.h"
#include "umemd/tests/cmocka_first.h"

#define START	(1000 * NSEC_PER_SEC)

static struct progress progress;

static int setup(void **state)
{
	(void)state;
	memset(&progress, 0, sizeof(progress));
	progress_start(&progress, START);
	return 0;
}

static void assert_event(enum session_role role, uint64_t now, const char *want)
{
	json_t *event = progress_event(&progress, role, "running", now);
	json_t *wanted = json_loads(want, 0, NULL);
	char *got = json_dumps(event, JSON_SORT_KEYS);

	assert_non_null(wanted);
	if (!json_equal(event, wanted))
		fail_msg("got %s, wanted %s", got, want);
	free(got);
	json_decref(wanted);
	json_decref(event);
}

static json_int_t number_at(uint64_t now, const char *name)
{
	json_t *event = progress_event(&progress, ROLE_SOURCE, "running", now);
	json_t *value = json_object_get(event, name);
	json_int_t number = json_integer_value(value);

	assert_true(json_is_integer(value));
	json_decref(event);
	return number;
}

static void wait_for_page(uint32_t tid, uint64_t from_us, uint64_t to_us)
{
	const struct pending_wait wait = { START + from_us * NSEC_PER_USEC, tid };

	progress_wait_begins(&progress, &wait);
	progress_wait_ends(&progress, &wait, START + to_us * NSEC_PER_USEC);
}

static void test_a_source_tells_what_it_knows(void **state)
{
	(void)state;
	progress.pages_total = 12;
	progress.pages_done = 2;
	progress.zero_pages = 3;
	progress.bytes[CHANNEL_URGENT] = 4;
	progress.bytes[CHANNEL_BULK] = 5;
	progress.bytes[CHANNEL_CONTROL] = 6;
	progress.requests = 7;
	progress.prefault_pages = 8;
	progress.prefault_hits = 9;
	progress.duplicates = 10;
	assert_event(ROLE_SOURCE, START + NSEC_PER_SEC,
		     "{\"event\":\"progress\",\"state\":\"running\",\"pages_total\":12,"
		     "\"pages_sent\":2,\"pages_remaining\":10,\"zero_pages\":3,\"urgent_bytes\":4,\"bulk_bytes\":5,"
		     "\"control_bytes\":6,\"urgent_bytes_per_s\":4,\"bulk_bytes_per_s\":5,"
		     "\"control_bytes_per_s\":6,\"throughput_bytes_per_s\":15,\"requests\":7,"
		     "\"urgent_channels\":0,\"bulk_channels\":0,\"prefault_pages\":8,\"prefault_hits\":9,\"duplicates\":10}");
}

static void test_a_destination_tells_who_waited_and_how_long(void **state)
{
	(void)state;
	progress.pages_total = 3;
	progress.pages_done = 2;
	progress.compressed_pages = 3;
	progress.saved_bytes = 4;
	progress.checksum_errors = 5;
	progress.prefault_pages = 6;	/* not for a destination to tell */
	wait_for_page(77, 1000, 1100);
	wait_for_page(78, 2000, 6000);
	wait_for_page(0, 2000, 8000);
	assert_event(ROLE_DESTINATION, START + NSEC_PER_SEC,
		     "{\"event\":\"progress\",\"state\":\"running\",\"pages_total\":3,"
		     "\"pages_present\":2,\"pages_remaining\":1,\"zero_pages\":0,\"compressed_pages\":3,"
		     "\"compression_saved_bytes\":4,\"urgent_bytes\":0,\"bulk_bytes\":0,"
		     "\"control_bytes\":0,\"urgent_bytes_per_s\":0,\"bulk_bytes_per_s\":0,"
		     "\"control_bytes_per_s\":0,\"throughput_bytes_per_s\":0,\"requests\":0,"
		     "\"urgent_channels\":0,\"bulk_channels\":0,\"duplicates\":0,\"checksum_errors\":5,\"faults\":3,"
		     "\"fault_p50_us\":4031,\"fault_p90_us\":6000,\"fault_p99_us\":6000,"
		     "\"fault_max_us\":6000,\"fault_histogram\":[{\"le_us\":128,\"count\":1},"
		     "{\"le_us\":4096,\"count\":1},{\"le_us\":8192,\"count\":1}],"
		     "\"blocktime\":[{\"thread_id\":77,\"blocktime_ms\":0},"
		     "{\"thread_id\":78,\"blocktime_ms\":4}],\"blocktime_others_ms\":6}");
}

static void test_rates_are_those_since_the_event_before(void **state)
{
	(void)state;
	progress.bytes[CHANNEL_BULK] = 1000;
	assert_int_equal(number_at(START + NSEC_PER_SEC, "bulk_bytes_per_s"), 1000);
	progress.bytes[CHANNEL_BULK] = 1500;
	progress.bytes[CHANNEL_URGENT] = 300;
	assert_int_equal(number_at(START + NSEC_PER_SEC * 3 / 2, "bulk_bytes_per_s"), 1000);
	assert_int_equal(number_at(START + NSEC_PER_SEC * 5 / 2, "bulk_bytes_per_s"), 0);
	progress.bytes[CHANNEL_URGENT] = 500;
	assert_int_equal(number_at(START + NSEC_PER_SEC * 7 / 2, "urgent_bytes_per_s"), 200);
}

/* The last event comes right after another, and should not say that nothing moves. */
static void test_a_moment_is_too_short_for_a_rate(void **state)
{
	(void)state;
	progress.bytes[CHANNEL_BULK] = 1000;
	assert_int_equal(number_at(START + NSEC_PER_SEC, "throughput_bytes_per_s"), 1000);
	assert_int_equal(number_at(START + NSEC_PER_SEC + 1, "throughput_bytes_per_s"), 1000);
}

static void test_what_began_before_it_was_started_is_no_rate(void **state)
{
	(void)state;
	progress.bytes[CHANNEL_CONTROL] = 5000;
	progress_start(&progress, START);
	progress.bytes[CHANNEL_CONTROL] = 5100;
	assert_int_equal(number_at(START + NSEC_PER_SEC, "control_bytes_per_s"), 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_a_source_tells_what_it_knows, setup),
		cmocka_unit_test_setup(test_a_destination_tells_who_waited_and_how_long, setup),
		cmocka_unit_test_setup(test_rates_are_those_since_the_event_before, setup),
		cmocka_unit_test_setup(test_a_moment_is_too_short_for_a_rate, setup),
		cmocka_unit_test_setup(test_what_began_before_it_was_started_is_no_rate, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
