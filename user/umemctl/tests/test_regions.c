// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/regions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

static json_t *json(const char *text)
{
	json_t *value = json_loads(text, 0, NULL);

	assert_non_null(value);
	return value;
}

static int setup(void **state)
{
	*state = json("[{\"id\":3,\"name\":\"ram0\",\"uid\":0,\"pid\":10,"
		      "\"length_bytes\":268435456,\"missing_bytes\":12288,\"poisoned_bytes\":4096,"
		      "\"waiters\":2,\"pager\":true,\"tracked\":false},"
		      "{\"id\":4,\"name\":\"\",\"uid\":1000,\"pid\":0,\"length_bytes\":4096,"
		      "\"missing_bytes\":0,\"poisoned_bytes\":0,\"waiters\":0,\"pager\":false,"
		      "\"tracked\":true},"
		      "{\"id\":5,\"name\":\"video\"},{\"id\":6,\"name\":\"video\"},"
		      "{\"id\":7,\"name\":\"3\"}]");
	return 0;
}

static int teardown(void **state)
{
	json_decref(*state);
	return 0;
}

static void assert_chooses(json_t *regions, const char *wanted, json_int_t id)
{
	char *error;
	json_t *region = regions_choose(regions, wanted, &error);

	assert_non_null(region);
	assert_null(error);
	assert_int_equal(json_integer_value(json_object_get(region, "id")), id);
}

static void assert_refuses(json_t *regions, const char *wanted, const char *words)
{
	char *error;

	assert_null(regions_choose(regions, wanted, &error));
	if (!strstr(error, words))
		fail_msg("\"%s\" does not say \"%s\"", error, words);
	free(error);
}

static void test_by_id_or_by_name_and_the_id_counts_more(void **state)
{
	assert_chooses(*state, "ram0", 3);
	assert_chooses(*state, "3", 3);
	assert_chooses(*state, "4", 4);
}

static void test_which_cannot_be_told_is_refused_with_all_of_them(void **state)
{
	static const char all[] = "3 (ram0), 4, 5 (video), 6 (video), 7 (3)";
	json_t *none = json_array();

	assert_refuses(*state, "rom", "region is \"rom\", wanted one of: ");
	assert_refuses(*state, "rom", all);
	assert_refuses(*state, "", all);
	assert_refuses(*state, "03", all);
	assert_refuses(*state, "video", "the name of 2, wanted the id of one of: ");
	assert_refuses(*state, "video", all);
	assert_refuses(none, "ram0", "\"ram0\", and there is none");
	json_decref(none);
}

static void test_table_has_a_line_each(void **state)
{
	char *table;

	while (json_array_size(*state) > 2)
		json_array_remove(*state, 2);
	table = regions_table(*state);
	assert_string_equal(table,
"  REGION  NAME                       LENGTH      MISSING WAITERS PAGER      UID      PID\n"
"       3  ram0                      256 MiB       12 KiB       2 yes          0       10\n"
"       4  -                           4 KiB        0 KiB       0 no        1000        0\n");
	free(table);
}

static void test_all_of_a_region_is_shown(void **state)
{
	char *text = regions_text(json_array_get(*state, 0));

	assert_string_equal(text, "region 3\n  name: ram0\n  user: 0\n  process: 10\n"
			    "  length: 256 MiB\n  missing: 12 KiB\n  poisoned: 4 KiB\n"
			    "  waiters: 2\n  pager: attached\n  dirty pages: not tracked\n");
	free(text);
	text = regions_text(json_array_get(*state, 1));
	assert_non_null(strstr(text, "  name: -\n"));
	assert_non_null(strstr(text, "  pager: none\n  dirty pages: tracked\n"));
	free(text);
}

static void test_statistics_have_quantiles_bars_and_threads(void **state)
{
	json_t *stats = json("{\"id\":3,\"name\":\"ram0\",\"counters\":{\"faults\":103,"
			     "\"copied\":99},\"waits\":104,\"wait_time_ns\":2500000000,"
			     "\"latency\":[{\"from_ns\":65536,\"below_ns\":131072,\"waits\":60},"
			     "{\"from_ns\":131072,\"below_ns\":262144,\"waits\":39},"
			     "{\"from_ns\":549755813888,\"waits\":1}],\"threads\":["
			     "{\"tid\":12,\"comm\":\"CPU 0/KVM\",\"waits\":7,\"wait_time_ns\":900,"
			     "\"longest_ns\":500,\"since_ns\":1000,\"offset_bytes\":8192},"
			     "{\"tid\":13,\"comm\":\"b\",\"waits\":1,\"wait_time_ns\":1500,"
			     "\"longest_ns\":1500}]}");
	char *text = regions_stats_text(stats, 3001000);

	(void)state;
	assert_string_equal(text,
"region 3, ram0\n"
"  faults: 103\n"
"  copied: 99\n"
"  waits: 104\n"
"  waited: 2.5 s\n"
"  waits that the page ended: 100\n"
"  50 % of them below: 131.1 us\n"
"  99 % of them below: 262.1 us\n"
"          FROM        BELOW        WAITS\n"
"       65.5 us     131.1 us           60 ########################################\n"
"      131.1 us     262.1 us           39 ##########################\n"
"       549.8 s            -            1 #\n"
"        THREAD        WAITS       WAITED      LONGEST  NAME             NOW\n"
"            12            7       900 ns       500 ns  CPU 0/KVM        waits for 0x2000 since 3.0 ms\n"
"            13            1       1.5 us       1.5 us  b                -\n");
	free(text);
	json_decref(stats);
}

static void test_statistics_of_a_region_in_which_nobody_waited(void **state)
{
	json_t *stats = json("{\"id\":3,\"counters\":{},\"waits\":0,\"wait_time_ns\":0,"
			     "\"latency\":[],\"threads\":[]}");
	char *text = regions_stats_text(stats, 0);

	(void)state;
	assert_string_equal(text, "region 3\n  waits: 0\n  waited: 0 ns\n");
	free(text);
	json_decref(stats);
}

static void assert_event(const char *event, const char *want)
{
	json_t *object = json(event);
	char *text = regions_event_text(object);

	assert_string_equal(text, want);
	free(text);
	json_decref(object);
}

static void test_events_are_a_line_each(void **state)
{
	(void)state;
	assert_event("{\"event\":\"region-created\",\"id\":3,\"name\":\"ram0\","
		     "\"time_ns\":12003004005,\"length_bytes\":1048576,\"missing_bytes\":0,"
		     "\"poisoned_bytes\":0}",
		     "[   12.003004] region-created: region 3 (ram0), 1 MiB long\n");
	assert_event("{\"event\":\"discard\",\"id\":4,\"name\":\"\",\"time_ns\":0,"
		     "\"length_bytes\":1048576,\"missing_bytes\":8192,\"poisoned_bytes\":4096,"
		     "\"offset_bytes\":65536,\"size_bytes\":12288}",
		     "[    0.000000] discard: region 4, 12 KiB from 0x10000, 1 MiB long, "
		     "8 KiB missing, 4 KiB poisoned\n");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_by_id_or_by_name_and_the_id_counts_more),
		test(test_which_cannot_be_told_is_refused_with_all_of_them),
		test(test_table_has_a_line_each),
		test(test_all_of_a_region_is_shown),
		cmocka_unit_test(test_statistics_have_quantiles_bars_and_threads),
		cmocka_unit_test(test_statistics_of_a_region_in_which_nobody_waited),
		cmocka_unit_test(test_events_are_a_line_each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
