// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"

static int decode(struct request *request, const char *text, char **error)
{
	json_t *object = json_loads(text, 0, NULL);
	int err;

	assert_non_null(object);
	err = request_decode(request, object, error);
	json_decref(object);
	return err;
}

static void test_migrate_means_what_the_monitors_means(void **state)
{
	static const struct {
		const char *object, *line;
	} pairs[] = {
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\"}", "migrate -p -d tcp:a:1" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"no_push\":true,\"follow\":true,"
		  "\"forward\":32,\"backward\":0}", "migrate -p -d -n -m tcp:a:1 32 0" },
		{ "{\"forward\":65536,\"uri\":\"tcp:[::1]:4444\",\"no_push\":false,\"cmd\":\"migrate\"}",
		  "migrate -d -p tcp:[::1]:4444 65536" },
		{ "{\"cmd\":\"migrate\",\"precopy\":false,\"uri\":\"tcp:a:1\"}",
		  "migrate -d -p tcp:a:1" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct hmp_command typed;
		struct request request;
		char *error;

		hmp_parse(&typed, pairs[i].line, false);
		assert_int_equal(decode(&request, pairs[i].object, &error), 0);
		assert_null(error);
		assert_int_equal(request.kind, REQUEST_MIGRATE);
		assert_memory_equal(&request.command, &typed, sizeof(typed));
	}
}

static void test_precopy_means_that_p_was_not_typed(void **state)
{
	struct hmp_command typed;
	struct request request;
	char *error;

	(void)state;
	hmp_parse(&typed, "migrate -d -m tcp:a:1 32 0", false);
	assert_int_equal(decode(&request, "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\","
				"\"precopy\":true,\"follow\":true,\"forward\":32,\"backward\":0}",
				&error), 0);
	assert_int_equal(request.command.kind, HMP_MIGRATE);
	typed.kind = HMP_MIGRATE;	/* here there is no other */
	typed.ours = false;
	assert_memory_equal(&request.command, &typed, sizeof(typed));
}

static void test_commands_without_arguments(void **state)
{
	struct request request;
	char *error;

	(void)state;
	assert_int_equal(decode(&request, "{\"cmd\":\"start-postcopy\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_START_POSTCOPY);
	assert_int_equal(decode(&request, "{\"cmd\":\"cancel\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_CANCEL);
	assert_int_equal(decode(&request, "{\"cmd\":\"pause\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_PAUSE);
	assert_int_equal(decode(&request, "{\"cmd\":\"restart-pager\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_RESTART_PAGER);
	assert_int_equal(decode(&request, "{\"cmd\":\"recover\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_RECOVER);
	assert_string_equal(request.command.uri, "");
	assert_int_equal(decode(&request, "{\"cmd\":\"recover\",\"uri\":\"unix:/x\"}", &error), 0);
	assert_string_equal(request.command.uri, "unix:/x");
	assert_int_equal(decode(&request, "{\"cmd\":\"info\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_INFO);
	assert_int_equal(decode(&request, "{\"cmd\":\"watch\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_WATCH);
}

static void test_a_lost_source_is_given_up_and_asked_after(void **state)
{
	struct request request;
	char *error;

	(void)state;
	assert_int_equal(decode(&request, "{\"cmd\":\"give-up\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_GIVE_UP);
	assert_int_equal(decode(&request, "{\"cmd\":\"set\",\"lost_source\":\"poison\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_SET);
	assert_true(request.command.on);
	assert_int_equal(decode(&request, "{\"cmd\":\"set\",\"lost_source\":\"wait\"}", &error), 0);
	assert_false(request.command.on);
	assert_int_equal(decode(&request, "{\"cmd\":\"gone\"}", &error), 0);
	assert_int_equal(request.kind, REQUEST_GONE);
	assert_int_equal(request.from, 0);
	assert_int_equal(decode(&request, "{\"cmd\":\"gone\",\"from\":512}", &error), 0);
	assert_int_equal(request.from, 512);
}

static void test_everything_else_is_refused_with_what_came_and_what_is_wanted(void **state)
{
	static const struct {
		const char *object, *got, *wanted;
	} bad[] = {
		{ "{}", "not there", "wanted one of \"migrate\", \"start-postcopy\", \"cancel\"" },
		{ "{\"cmd\":\"recover\",\"uri\":\"defer\"}", "recover: URI is \"defer\"", "wanted tcp:" },
		{ "{\"cmd\":\"recover\",\"uri\":7}", "recover: uri is 7", "wanted a string" },
		{ "{\"cmd\":\"recover\",\"to\":\"tcp:a:1\"}", "\"to\"", "wanted uri" },
		{ "{\"cmd\":\"start-postcopy\",\"now\":true}", "\"now\"", "wanted cmd alone" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"precopy\":1}", "precopy is 1", "true or false" },
		{ "{\"cmd\":\"migrate\",\"no_push\":true,\"uri\":\"tcp:a:1\",\"precopy\":true}",
		  "precopy and no_push are both true", "wanted one of them" },
		{ "{\"cmd\":7}", "7", "wanted one of \"migrate\"" },
		{ "{\"cmd\":[\"info\"]}", "[\"info\"]", "wanted one of \"migrate\"" },
		{ "{\"cmd\":\"quit\"}", "\"quit\"", "wanted one of \"migrate\"" },
		{ "{\"cmd\":\"Migrate\",\"uri\":\"tcp:a:1\"}", "\"Migrate\"", "wanted" },
		{ "{\"cmd\":\"info\",\"uri\":\"tcp:a:1\"}", "\"uri\"", "wanted cmd alone" },
		{ "{\"cmd\":\"set\"}", "nothing to set", "wanted lost_source" },
		{ "{\"cmd\":\"set\",\"lost_source\":\"kill\"}", "set: lost_source is \"kill\"", "wanted \"wait\" or" },
		{ "{\"cmd\":\"set\",\"uri\":\"tcp:a:1\"}", "\"uri\"", "wanted lost_source" },
		{ "{\"cmd\":\"give-up\",\"now\":true}", "\"now\"", "wanted cmd alone" },
		{ "{\"cmd\":\"gone\",\"from\":-1}", "gone: from is -1", "wanted 0 or more" },
		{ "{\"cmd\":\"gone\",\"from\":4294967296}", "from is 4294967296", "wanted 0 or more" },
		{ "{\"cmd\":\"migrate\"}", "no uri", "wanted \"uri\"" },
		{ "{\"cmd\":\"migrate\",\"uri\":1}", "uri is 1", "wanted a string" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"defer\"}", "defer", "wanted tcp:" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:99999\"}", "99999", "wanted 0 to 65535" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a\\n:1\"}", "0x0a", "control character" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"\"}", "\"\"", "wanted tcp" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"detach\":true}", "\"detach\"", "wanted uri" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"no_push\":1}", "no_push is 1", "true or false" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"follow\":null}", "null", "true or false" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"forward\":-1}", "-1", "0 to 65536 pages" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"forward\":65537}", "65537", "0 to 65536" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"backward\":1.5}", "1.5", "0 to 65536" },
		{ "{\"cmd\":\"migrate\",\"uri\":\"tcp:a:1\",\"backward\":\"8\"}", "\"8\"", "0 to 65536" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct request request;
		char *error = NULL;

		assert_int_equal(decode(&request, bad[i].object, &error), -1);
		if (!strstr(error, bad[i].got) || !strstr(error, bad[i].wanted))
			fail_msg("%s is answered \"%s\", wanted \"%s\" and \"%s\" in it",
				 bad[i].object, error, bad[i].got, bad[i].wanted);
		free(error);
	}
}

static void test_a_long_uri_is_refused_whole(void **state)
{
	json_t *object = json_pack("{s:s}", "cmd", "migrate");
	struct request request;
	char uri[2000], *error;

	(void)state;
	memset(uri, 'a', sizeof(uri) - 1);
	uri[sizeof(uri) - 1] = '\0';
	memcpy(uri, "tcp:", 4);
	json_object_set_new(object, "uri", json_string(uri));
	assert_int_equal(request_decode(&request, object, &error), -1);
	assert_non_null(strstr(error, "1999 characters"));
	free(error);
	json_decref(object);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_migrate_means_what_the_monitors_means),
		cmocka_unit_test(test_precopy_means_that_p_was_not_typed),
		cmocka_unit_test(test_commands_without_arguments),
		cmocka_unit_test(test_a_lost_source_is_given_up_and_asked_after),
		cmocka_unit_test(test_everything_else_is_refused_with_what_came_and_what_is_wanted),
		cmocka_unit_test(test_a_long_uri_is_refused_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
