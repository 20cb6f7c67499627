// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/ticket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"

static char error[CODEC_ERROR_MAX];
static struct ticket ticket;

static struct ticket example(void)
{
	struct ticket example = {
		.features = FEATURE_CHECKSUM | FEATURE_PRECOPY,
		.nr_regions = 2,
		.names = { "pc.ram", "dimm \"0\"" },
	};

	for (int i = 0; i < SESSION_SIZE; i++)
		example.session[i] = (uint8_t)(i * 37 + 1);
	return example;
}

static json_t *given(bool gone, bool run)
{
	struct ticket from = example();
	json_t *json = ticket_encode(&from);

	json_object_set_new(json, "gone", json_boolean(gone));
	json_object_set_new(json, "run", json_boolean(run));
	return json;
}

static void test_what_was_told_is_understood(void **state)
{
	struct ticket from = example();
	int pair[2];

	(void)state;
	for (int i = 0; i < 4; i++) {
		json_t *json = given(i & 1, i & 2);

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		assert_int_equal(json_dumpfd(json, pair[0], 0), 0);
		close(pair[0]);
		assert_int_equal(ticket_read(&ticket, pair[1], error), 0);
		assert_int_equal(close(pair[1]), -1);
		json_decref(json);
		assert_memory_equal(ticket.session, from.session, SESSION_SIZE);
		assert_int_equal(ticket.features, from.features);
		assert_int_equal(ticket.nr_regions, 2);
		assert_string_equal(ticket.names[1], "dimm \"0\"");
		assert_int_equal(ticket.gone, i & 1);
		assert_int_equal(ticket.run, !!(i & 2));
	}
}

static void refused(const char *key, const char *value, const char *says)
{
	json_t *json = given(true, true);

	if (value)
		json_object_set_new(json, key, json_loads(value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(json, key);
	assert_int_equal(ticket_decode(&ticket, json, error), -EINVAL);
	if (!strstr(error, key) || !strstr(error, says))
		fail_msg("%s: %s", key, error);
	json_decref(json);
}

static void test_what_is_wrong_is_said(void **state)
{
	(void)state;
	refused("id", NULL, "32 hexadecimal digits");
	refused("id", "\"0123\"", "32 hexadecimal digits");
	refused("id", "\"0123456789abcdef0123456789abcdeg\"", "32 hexadecimal digits");
	refused("features", "4096", "known here");
	refused("features", "-1", "known here");
	refused("features", "true", "known here");
	refused("regions", "[]", "1 to 256 names");
	refused("regions", "[\"a\", 3]", "1 to 256 names");
	refused("regions", "[\"\"]", "1 to 256 names");
	refused("regions",
		"[\"0123456789012345678901234567890123456789012345678901234567890123\"]",
		"1 to 256 names");
	refused("gone", "1", "a boolean");
	refused("run", NULL, "a boolean");
	assert_int_equal(ticket_read(&ticket, -1, error), -EINVAL);
	assert_non_null(strstr(error, "--resume -1"));
}

static void test_regions_are_found_by_name_in_any_order(void **state)
{
	struct hello_region ours[] = { { "dimm \"0\"", 4096 }, { "pc.ram", 8192 }, { "x", 4096 } };
	uint32_t index[REGIONS_MAX];

	(void)state;
	ticket = example();
	assert_int_equal(ticket_match(&ticket, ours, 2, index, error), 0);
	assert_int_equal(index[0], 1);
	assert_int_equal(index[1], 0);
	assert_int_equal(ticket_match(&ticket, ours, 3, index, error), -EINVAL);
	assert_non_null(strstr(error, "2 regions, here there are 3"));
	assert_int_equal(ticket_match(&ticket, ours + 1, 2, index, error), -EINVAL);
	assert_non_null(strstr(error, "region \"dimm \"0\"\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_told_is_understood),
		cmocka_unit_test(test_what_is_wrong_is_said),
		cmocka_unit_test(test_regions_are_found_by_name_in_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
