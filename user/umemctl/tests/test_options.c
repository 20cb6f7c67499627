// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"

#define WORDS_MAX	16

static char line_copy[1024];
static char *words[WORDS_MAX + 1];

static int split(const char *line)
{
	char *rest = line_copy;
	int nr = 0;

	snprintf(line_copy, sizeof(line_copy), "umemctl %s", line);
	while (nr < WORDS_MAX && (words[nr] = strsep(&rest, " "))) {
		if (*words[nr])
			nr++;
	}
	words[nr] = NULL;
	return nr;
}

static struct options parse(const char *line)
{
	struct options options;
	char *error;

	if (options_parse(&options, split(line), words, &error))
		fail_msg("\"%s\" was refused: %s", line, error);
	assert_null(error);
	return options;
}

static void test_every_command_is_known(void **state)
{
	static const struct {
		const char *line;
		enum ctl_command command;
	} lines[] = {
		{ "list", CTL_LIST }, { "show", CTL_SHOW }, { "stat 3", CTL_STAT },
		{ "events", CTL_EVENTS }, { "migrate tcp:a:1", CTL_MIGRATE }, { "cancel", CTL_CANCEL },
		{ "start-postcopy", CTL_START_POSTCOPY }, { "pause", CTL_PAUSE },
		{ "recover", CTL_RECOVER }, { "pager restart", CTL_RESTART_PAGER },
		{ "give-up", CTL_GIVE_UP }, { "gone --guest 7", CTL_GONE },
		{ "set lost-source poison", CTL_SET },
		{ "info", CTL_INFO }, { "migrate-info", CTL_INFO }, { "--help", CTL_HELP },
		{ "-h", CTL_HELP }, { "migrate --help", CTL_HELP }, { "list -h", CTL_HELP },
		{ "--version", CTL_VERSION },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_int_equal(parse(lines[i].line).command, lines[i].command);
}

static void test_migrate_takes_its_options_in_any_place(void **state)
{
	static const char *const lines[] = {
		"migrate -p -n -m -d --guest web tcp:a:1 32 0",
		"migrate -nmpd --guest=web tcp:a:1 32 0",
		"migrate tcp:a:1 -n 32 -d 0 -m -p --guest web",
	};
	struct options options;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		options = parse(lines[i]);
		assert_true(options.at_once && options.no_push && options.follow && options.detach);
		assert_string_equal(options.guest, "web");
		assert_string_equal(options.uri, "tcp:a:1");
		assert_int_equal(options.forward, 32);
		assert_int_equal(options.backward, 0);
	}
}

static void test_what_is_not_said_is_left_to_umem_qemu(void **state)
{
	struct options options = parse("migrate tcp:a:1");

	(void)state;
	assert_false(options.at_once || options.no_push || options.follow || options.detach);
	assert_false(options.json);
	assert_null(options.guest);
	assert_int_equal(options.forward, -1);
	assert_int_equal(options.backward, -1);
}

static void test_info_may_be_json(void **state)
{
	(void)state;
	assert_true(parse("info --json").json);
	assert_true(parse("migrate-info --json --guest 7").json);
	assert_string_equal(parse("migrate-info --json --guest 7").guest, "7");
	assert_false(parse("info").json);
}

static void test_show_and_stat_may_have_a_region(void **state)
{
	(void)state;
	assert_null(parse("show").region);
	assert_string_equal(parse("show ram0").region, "ram0");
	assert_string_equal(parse("stat --json 7").region, "7");
	assert_true(parse("stat --json 7").json);
	assert_true(parse("show --json").json);
	assert_true(parse("list --json").json);
	assert_true(parse("events --json").json);
	assert_false(parse("events").json);
}

static void test_recover_may_have_a_uri(void **state)
{
	(void)state;
	assert_null(parse("recover").uri);
	assert_string_equal(parse("recover tcp:a:1 --guest 7").uri, "tcp:a:1");
	assert_string_equal(parse("recover tcp:a:1 --guest 7").guest, "7");
	assert_string_equal(parse("pager restart --guest web").guest, "web");
}

static void test_bad_lines_are_refused_with_what_is_wanted(void **state)
{
	static const struct {
		const char *line, *got, *wanted;
	} bad[] = {
		{ "", "\"\"", "list, show, stat, events, migrate, start-postcopy, cancel, pause, recover, pager, give-up, gone, set, info, migrate-info" },
		{ "pause now", "\"now\"", "at most 0" },
		{ "recover defer", "recover: URI is \"defer\"", "wanted tcp:HOST:PORT" },
		{ "recover tcp:a:1 8", "\"8\"", "at most 1" },
		{ "pager", "\"\" is what to do", "wanted restart" },
		{ "pager stop", "\"stop\" is what to do", "wanted restart" },
		{ "move tcp:a:1", "\"move\"", "wanted one of: list" },
		{ "list 1", "\"1\"", "at most 0" },
		{ "show 1 2", "\"2\"", "at most 1" },
		{ "stat --guest 1", "--guest", "wanted: umemctl stat [--json] [REGION]" },
		{ "events 1", "\"1\"", "at most 0" },
		{ "list --guest 1", "--guest", "wanted: umemctl list" },
		{ "cancel --json", "--json", "wanted: umemctl cancel" },
		{ "info -n", "-n", "wanted: umemctl info" },
		{ "info -x", "-x", "wanted: umemctl info" },
		{ "info -g", "-g", "wanted: umemctl info" },
		{ "info --nonsense", "--nonsense", "wanted: umemctl info" },
		{ "info --guest", "--guest", "wants an argument" },
		{ "migrate", "no URI", "wanted tcp:HOST:PORT" },
		{ "migrate -n tcp:a:1", "-n was given without -p", "wanted migrate -p -n URI" },
		{ "start-postcopy tcp:a:1", "\"tcp:a:1\"", "at most 0" },
		{ "start-postcopy -d", "-d", "wanted: umemctl start-postcopy" },
		{ "set", "0 arguments", "wanted lost-source wait|poison" },
		{ "set lost-source", "1 arguments", "wanted lost-source wait|poison" },
		{ "set found-source wait", "\"found-source\"", "wanted lost-source" },
		{ "set lost-source kill", "\"kill\"", "wanted wait or poison" },
		{ "migrate a", "\"a\"", "wanted tcp:HOST:PORT" },
		{ "migrate defer", "defer", "wanted tcp:HOST:PORT" },
		{ "migrate tcp:a:1 x", "FORWARD is \"x\"", "wanted a number" },
		{ "migrate tcp:a:1 1 2x", "BACKWARD is \"2x\"", "wanted a number" },
		{ "migrate tcp:a:1 99999999999", "99999999999", "wanted a number" },
		{ "migrate tcp:a:1 1 2 3", "\"3\"", "at most 3" },
		{ "migrate tcp:a:1 -1", "-1", "wanted: umemctl migrate" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct options options;
		char *error = NULL;

		assert_int_equal(options_parse(&options, split(bad[i].line), words, &error),
				 -EINVAL);
		if (!strstr(error, bad[i].got) || !strstr(error, bad[i].wanted))
			fail_msg("\"%s\" is answered \"%s\", wanted \"%s\" and \"%s\" in it",
				 bad[i].line, error, bad[i].got, bad[i].wanted);
		free(error);
	}
}

static void test_help_names_every_command_and_the_exit_status(void **state)
{
	static const char *const named[] = {
		"list [--json]", "show [--json] [REGION]", "stat [--json] [REGION]", "events [--json]",
		"migrate [-p [-n]] [-m]", "start-postcopy", "cancel", "pause",
		"recover [--guest GUEST] [URI]", "pager restart", "give-up", "gone",
		"set [--guest GUEST] lost-source wait|poison", "info [--json]", "migrate-info", "--guest",
		"Exit status: 0", "1 it failed", "2 the command line",
	};
	char *help = options_help();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(named); i++)
		assert_non_null(strstr(help, named[i]));
	free(help);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_command_is_known),
		cmocka_unit_test(test_migrate_takes_its_options_in_any_place),
		cmocka_unit_test(test_what_is_not_said_is_left_to_umem_qemu),
		cmocka_unit_test(test_info_may_be_json),
		cmocka_unit_test(test_show_and_stat_may_have_a_region),
		cmocka_unit_test(test_recover_may_have_a_uri),
		cmocka_unit_test(test_bad_lines_are_refused_with_what_is_wanted),
		cmocka_unit_test(test_help_names_every_command_and_the_exit_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
