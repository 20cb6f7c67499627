// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

static json_t *load(const char *text)
{
	json_t *info = json_loads(text, 0, NULL);

	assert_non_null(info);
	return info;
}

static void assert_text(const char *info_text, const char *want)
{
	json_t *info = load(info_text);
	char *got = report_text(info);

	assert_string_equal(got, want);
	free(got);
	json_decref(info);
}

static void test_every_value_has_its_line(void **state)
{
	(void)state;
	assert_text("{\"status\":\"running\",\"role\":\"destination\",\"uri\":\"tcp:a:1\","
		    "\"total_time_ms\":1,\"guest_stopped_at_us\":1763695800123456,"
		    "\"guest_resumed_at_us\":1763695800123457,\"stop_to_go_ms\":17,"
		    "\"go_to_resume_ms\":18,\"round\":19,\"pages_dirty\":20,"
		    "\"expected_downtime_ms\":21,\"precopy_bytes\":22,\"pages_total\":2,"
		    "\"pages_present\":3,\"pages_remaining\":4,\"zero_pages\":5,"
		    "\"urgent_bytes\":6,\"bulk_bytes\":7,\"control_bytes\":8,"
		    "\"throughput_bytes_per_s\":1250000,\"urgent_bytes_per_s\":125000,"
		    "\"bulk_bytes_per_s\":1000000,\"control_bytes_per_s\":125000,"
		    "\"requests\":9,\"prefault_pages\":17,\"prefault_hits\":18,\"faults\":10,"
		    "\"fault_p50_us\":11,\"fault_p90_us\":12,\"fault_p99_us\":13,"
		    "\"fault_max_us\":14,"
		    "\"fault_histogram\":[{\"le_us\":64,\"count\":19},{\"le_us\":256,\"count\":20}],"
		    "\"blocktime\":[{\"cpu\":0,\"thread_id\":21,\"blocktime_ms\":22},"
		    "{\"thread_id\":23,\"blocktime_ms\":24}],\"blocktime_others_ms\":25,"
		    "\"duplicates\":15,\"checksum_errors\":16}",
		    "Migration status: running\nrole: destination\nuri: tcp:a:1\n"
		    "total time: 1 ms\nguest stopped: 2025-11-21T03:30:00.123456Z\n"
		    "guest resumed: 2025-11-21T03:30:00.123457Z\ndowntime, stop to GO: 17 ms\n"
		    "downtime, GO to resume: 18 ms\nround: 19\npages dirty: 20\n"
		    "expected downtime: 21 ms\ntransferred precopy: 22 bytes\npages total: 2\n"
		    "pages present: 3\npages remaining: 4\nzero pages: 5\n"
		    "transferred urgent: 6 bytes\ntransferred bulk: 7 bytes\n"
		    "transferred control: 8 bytes\nthroughput: 10.00 mbps (urgent 1.00, bulk 8.00, "
		    "control 1.00)\nrequests: 9\nprefault pages: 17\nprefault hits: 18\n"
		    "faults: 10\nfault latency: p50 11 us, p90 12 us, p99 13 us, max 14 us\n"
		    "fault histogram: 19 <= 64 us, 20 <= 256 us\nblocktime vcpu0: 22 ms\n"
		    "blocktime thread 23: 24 ms\nblocktime others: 25 ms\n"
		    "duplicates: 15\nchecksum errors: 16\n");
}

static void test_what_is_not_there_is_left_out(void **state)
{
	(void)state;
	assert_text("{\"status\":\"none\"}", "Migration status: none\n");
	assert_text("{}", "");
	assert_text("{\"status\":\"failed\",\"reason\":\"no route\"}",
		    "Migration status: failed (no route)\n");
}

static void test_wrong_types_and_control_characters_do_no_harm(void **state)
{
	json_t *info = load("{\"status\":[],\"pages_total\":\"x\",\"pages_sent\":-1}");
	char *line = report_progress(info);

	(void)state;
	assert_string_equal(line, "migrate: , 0 of 0 pages (0 %), 0.0 MB/s, 0 requests");
	assert_int_equal(report_percent(info), 0);
	free(line);
	json_decref(info);
	assert_text("{\"fault_histogram\":{\"le_us\":1},\"blocktime\":[7,{\"cpu\":\"x\"}]}",
		    "fault histogram:\nblocktime thread 0: 0 ms\nblocktime vcpu0: 0 ms\n");
	assert_text("{\"status\":\"a\\u001b[2Jb\\n\",\"role\":7}",
		    "Migration status: a?[2Jb?\nrole: \n");
}

static void test_precopy_counts_what_would_not_have_to_follow(void **state)
{
	json_t *info = load("{\"status\":\"precopy\",\"pages_total\":80,\"pages_sent\":200,"
			    "\"pages_dirty\":20,\"round\":3,\"expected_downtime_ms\":4,"
			    "\"throughput_bytes_per_s\":1500000}");
	char *line = report_progress(info);

	(void)state;
	assert_string_equal(line, "migrate: precopy, round 3, 20 of 80 pages dirty, downtime of 4 ms expected, 1.5 MB/s");
	free(line);
	json_object_del(info, "expected_downtime_ms");
	line = report_progress(info);
	assert_string_equal(line, "migrate: precopy, round 3, 20 of 80 pages dirty, 1.5 MB/s");
	free(line);
	assert_int_equal(report_percent(info), 75);
	json_object_set_new(info, "pages_dirty", json_integer(81));
	assert_int_equal(report_percent(info), 0);
	json_decref(info);
}

static void test_progress_counts_what_its_side_counts(void **state)
{
	json_t *info = load("{\"status\":\"running\",\"pages_total\":8,\"pages_present\":6,"
			    "\"throughput_bytes_per_s\":1500000,\"requests\":2}");
	char *line = report_progress(info);

	(void)state;
	assert_string_equal(line, "migrate: running, 6 of 8 pages (75 %), 1.5 MB/s, 2 requests");
	free(line);
	json_object_set_new(info, "pages_present", json_integer(9));
	assert_int_equal(report_percent(info), 100);
	json_decref(info);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_value_has_its_line),
		cmocka_unit_test(test_what_is_not_there_is_left_out),
		cmocka_unit_test(test_wrong_types_and_control_characters_do_no_harm),
		cmocka_unit_test(test_progress_counts_what_its_side_counts),
		cmocka_unit_test(test_precopy_counts_what_would_not_have_to_follow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
