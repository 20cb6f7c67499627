// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/attributes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <linux/umem_netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <string.h>

static struct nl_msg *message(uint8_t command)
{
	struct nl_msg *msg = nlmsg_alloc();

	assert_non_null(msg);
	assert_non_null(genlmsg_put(msg, 1, 1, 30, 0, 0, command, UMEM_FAMILY_VERSION));
	return msg;
}

/* A number as the kernel writes it */
static void put_uint(struct nl_msg *msg, int type, uint64_t value)
{
	if (value <= UINT32_MAX)
		nla_put_u32(msg, type, (uint32_t)value);
	else
		nla_put(msg, type, sizeof(value), &value);
}

static void assert_json(struct nl_msg *msg, const char *want)
{
	json_t *object = attributes_json(nlmsg_hdr(msg));
	char *got;

	assert_non_null(object);
	got = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(got, want);
	free(got);
	json_decref(object);
	nlmsg_free(msg);
}

static void test_a_region_with_numbers_of_either_length(void **state)
{
	struct nl_msg *msg = message(UMEM_CMD_REGION_GET);

	(void)state;
	nla_put_u32(msg, UMEM_A_REGION_ID, 7);
	nla_put_string(msg, UMEM_A_REGION_NAME, "ram0");
	nla_put_u32(msg, UMEM_A_REGION_UID, UINT32_MAX - 1);
	nla_put_u32(msg, UMEM_A_REGION_PID, 12);
	put_uint(msg, UMEM_A_REGION_LENGTH, 1ULL << 40);
	put_uint(msg, UMEM_A_REGION_MISSING, 4096);
	put_uint(msg, UMEM_A_REGION_POISONED, 0);
	nla_put_u32(msg, UMEM_A_REGION_WAITERS, 2);
	nla_put_flag(msg, UMEM_A_REGION_PAGER);
	assert_json(msg, "{\"id\":7,\"length_bytes\":1099511627776,\"missing_bytes\":4096,"
		    "\"name\":\"ram0\",\"pager\":true,\"pid\":12,\"poisoned_bytes\":0,"
		    "\"tracked\":false,\"uid\":4294967294,\"waiters\":2}");
}

static void put_bar(struct nl_msg *msg, uint64_t from, uint64_t below, uint32_t waits)
{
	struct nlattr *nest = nla_nest_start(msg, UMEM_A_STATS_LATENCY);

	put_uint(msg, UMEM_A_LATENCY_FROM, from);
	if (below)
		put_uint(msg, UMEM_A_LATENCY_BELOW, below);
	put_uint(msg, UMEM_A_LATENCY_WAITS, waits);
	nla_nest_end(msg, nest);
}

static void test_statistics_with_counters_and_bars(void **state)
{
	struct nl_msg *msg = message(UMEM_CMD_STATS_GET);
	struct nlattr *nest;

	(void)state;
	nla_put_u32(msg, UMEM_A_STATS_REGION_ID, 1);
	nest = nla_nest_start(msg, UMEM_A_STATS_COUNTERS);
	for (int i = 1; i <= UMEM_A_COUNTERS_MAX; i++)
		put_uint(msg, i, (uint64_t)i);
	nla_nest_end(msg, nest);
	put_bar(msg, 0, 2, 3);
	put_bar(msg, 1ULL << 39, 0, 1);
	put_uint(msg, UMEM_A_STATS_WAITS, 5);
	put_uint(msg, UMEM_A_STATS_WAIT_TIME, 6);
	assert_json(msg, "{\"counters\":{\"copied\":5,\"delivered\":3,\"discarded\":7,"
		    "\"duplicates\":9,\"faults\":1,\"huge_fallbacks\":12,\"huge_folios\":11,"
		    "\"pagers_lost\":10,\"poisoned\":8,"
		    "\"published\":4,\"requests\":2,\"zeroed\":6},\"id\":1,"
		    "\"latency\":[{\"below_ns\":2,\"from_ns\":0,\"waits\":3},"
		    "{\"from_ns\":549755813888,\"waits\":1}],\"wait_time_ns\":6,\"waits\":5}");
	assert_json(message(UMEM_CMD_STATS_GET), "{\"latency\":[]}");
}

static void test_a_thread_and_what_is_harmful_to_a_terminal(void **state)
{
	struct nl_msg *msg = message(UMEM_CMD_THREAD_GET);

	(void)state;
	nla_put_u32(msg, UMEM_A_THREAD_REGION_ID, 1);
	nla_put_u32(msg, UMEM_A_THREAD_TID, 2);
	nla_put_string(msg, UMEM_A_THREAD_COMM, "a\033[2J\xff");
	put_uint(msg, UMEM_A_THREAD_WAITS, 3);
	put_uint(msg, UMEM_A_THREAD_WAIT_TIME, 4);
	put_uint(msg, UMEM_A_THREAD_LONGEST, 5);
	put_uint(msg, UMEM_A_THREAD_SINCE, 6);
	put_uint(msg, UMEM_A_THREAD_OFFSET, 8192);
	assert_json(msg, "{\"comm\":\"a?[2J?\",\"id\":1,\"longest_ns\":5,\"offset_bytes\":8192,"
		    "\"since_ns\":6,\"tid\":2,\"wait_time_ns\":4,\"waits\":3}");
}

static void test_each_notification_has_its_name(void **state)
{
	static const struct {
		uint8_t command;
		const char *want;
	} events[] = {
		{ UMEM_CMD_REGION_CREATED_NTF, "{\"event\":\"region-created\"}" },
		{ UMEM_CMD_REGION_REMOVED_NTF, "{\"event\":\"region-removed\"}" },
		{ UMEM_CMD_PAGER_ATTACHED_NTF, "{\"event\":\"pager-attached\"}" },
		{ UMEM_CMD_PAGER_DETACHED_NTF, "{\"event\":\"pager-detached\"}" },
		{ UMEM_CMD_PAGER_LOST_NTF, "{\"event\":\"pager-lost\"}" },
		{ UMEM_CMD_COMPLETE_NTF, "{\"event\":\"complete\"}" },
		{ UMEM_CMD_POISONED_NTF, "{\"event\":\"poisoned\"}" },
		{ UMEM_CMD_DISCARD_NTF, "{\"event\":\"discard\"}" },
	};
	struct nl_msg *msg;

	(void)state;
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		assert_json(message(events[i].command), events[i].want);
	msg = message(UMEM_CMD_DISCARD_NTF);
	nla_put_u32(msg, UMEM_A_EVENT_REGION_ID, 1);
	nla_put_string(msg, UMEM_A_EVENT_REGION_NAME, "");
	for (int i = UMEM_A_EVENT_TIME; i <= UMEM_A_EVENT_MAX; i++)
		put_uint(msg, i, (uint64_t)i);
	assert_json(msg, "{\"event\":\"discard\",\"id\":1,\"length_bytes\":4,\"missing_bytes\":5,"
		    "\"name\":\"\",\"offset_bytes\":7,\"poisoned_bytes\":6,\"size_bytes\":8,"
		    "\"time_ns\":3}");
}

static void test_what_a_later_kernel_adds_is_left_out(void **state)
{
	struct nl_msg *msg = message(UMEM_CMD_THREAD_GET);

	(void)state;
	nla_put_u32(msg, UMEM_A_THREAD_MAX + 1, 1);
	nla_put_u32(msg, 1000, 1);
	nla_put_u32(msg, UMEM_A_THREAD_TID, 2);
	assert_json(msg, "{\"tid\":2}");
	msg = message(UMEM_CMD_MAX + 1);
	assert_null(attributes_json(nlmsg_hdr(msg)));
	nlmsg_free(msg);
	msg = message(0);
	assert_null(attributes_json(nlmsg_hdr(msg)));
	nlmsg_free(msg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_region_with_numbers_of_either_length),
		cmocka_unit_test(test_statistics_with_counters_and_bars),
		cmocka_unit_test(test_a_thread_and_what_is_harmful_to_a_terminal),
		cmocka_unit_test(test_each_notification_has_its_name),
		cmocka_unit_test(test_what_a_later_kernel_adds_is_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
