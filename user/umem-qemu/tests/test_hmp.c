// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/hmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"

static struct hmp_command parse(const char *line)
{
	struct hmp_command command;

	hmp_parse(&command, line, false);
	return command;
}

static void assert_error(const char *line, const char *got, const char *wanted)
{
	struct hmp_command command = parse(line);

	assert_int_equal(command.kind, HMP_ERROR);
	if (!strstr(command.error, got) || !strstr(command.error, wanted))
		fail_msg("\"%s\": \"%s\" lacks \"%s\" or \"%s\"", line, command.error, got, wanted);
}

static void test_migrate_p_is_taken_with_all_its_flags(void **state)
{
	struct hmp_command command = parse("migrate -d -p -n -m tcp:host:4444 32 5");

	(void)state;
	assert_int_equal(command.kind, HMP_MIGRATE);
	assert_true(command.detach);
	assert_true(command.no_push);
	assert_true(command.follow);
	assert_string_equal(command.uri, "tcp:host:4444");
	assert_int_equal(command.forward, 32);
	assert_int_equal(command.backward, 5);
}

static void test_migrate_p_defaults_are_push_and_some_prefault(void **state)
{
	struct hmp_command command = parse("  migrate\t-p  \"tcp:[::1]:1\" ");

	(void)state;
	assert_int_equal(command.kind, HMP_MIGRATE);
	assert_false(command.detach);
	assert_false(command.no_push);
	assert_false(command.follow);
	assert_string_equal(command.uri, "tcp:[::1]:1");
	assert_int_equal(command.forward, HMP_PREFAULT_DEFAULT);
	assert_int_equal(command.backward, HMP_PREFAULT_DEFAULT);
}

static void test_migrate_without_p_is_qemus_or_begins_with_precopy(void **state)
{
	static const struct {
		const char *line, *why_not;
		bool ours;
	} lines[] = {
		{ "migrate tcp:h:1", "", false },
		{ "migrate -d unix:/x", "", false },
		{ "migrate -d -m tcp:h:1", "", true },
		{ "migrate tcp:h:1 32 0", "", true },
		{ "migrate -b -i tcp:h:1", "flag \"-b\", with capability postcopy-ram only -d and -m", false },
		{ "migrate", "no URI, wanted migrate URI", false },
		{ "migrate rdma:h:1", "\"rdma\"", false },
		{ "migrate exec:cat>f -p", "forward is \"-p\"", true },	/* -p is no flag there */
		{ "migrate tcp:h:1 -1", "forward is \"-1\", wanted 0 to 65536", true },
		{ "migrate tcp:h:1 1 65537", "backward is \"65537\"", true },
		{ "migrate tcp:h:1 1 2 3", "wanted migrate URI", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct hmp_command command = parse(lines[i].line);

		assert_int_equal(command.kind, HMP_MIGRATE_EITHER);
		assert_true(command.precopy);
		assert_int_equal(command.ours, lines[i].ours);
		assert_int_equal(!*command.error, !*lines[i].why_not);
		if (!strstr(command.error, lines[i].why_not))
			fail_msg("\"%s\": \"%s\" lacks \"%s\"", lines[i].line, command.error,
				 lines[i].why_not);
	}
	assert_int_equal(parse("migrate -m tcp:h:1 32 5").forward, 32);
	assert_int_equal(parse("migrate -m tcp:h:1 32 5").backward, 5);
	assert_true(parse("migrate -m tcp:h:1 32 5").follow);
	assert_string_equal(parse("migrate -d unix:/x").uri, "unix:/x");
	assert_true(parse("migrate -d unix:/x").detach);
	assert_false(parse("migrate -p unix:/x").precopy);
}

static void test_bad_migrate_is_refused_with_what_is_wanted(void **state)
{
	(void)state;
	assert_error("migrate -p", "no URI", "tcp:HOST:PORT");
	assert_error("migrate -p -b tcp:h:1", "\"-b\"", "-d, -n and -m");
	assert_error("migrate -n tcp:h:1", "-n", "migrate -p -n");
	assert_error("migrate -n -m tcp:h:1 8", "-n", "migrate -p -n");
	assert_string_equal(parse("migrate -p unix:/x").uri, "unix:/x");
	assert_error("migrate -p rdma:h:1", "\"rdma\"", "unix:PATH");
	assert_error("migrate -p defer", "\"defer\"", "tcp:HOST:PORT");
	assert_error("migrate -p tcp:h", "\"tcp:h\"", "tcp:HOST:PORT");
	assert_error("migrate -p tcp:h:99999", "\"99999\"", "0 to 65535");
	assert_error("migrate -p nonsense", "\"nonsense\"", "scheme");
	assert_error("migrate -p tcp:h:1 -5", "\"-5\"", "0 to 65536");
	assert_error("migrate -p tcp:h:1 65537", "\"65537\"", "0 to 65536");
	assert_error("migrate -p tcp:h:1 0 x", "backward is \"x\"", "0 to 65536");
	assert_error("migrate -p tcp:h:1 1 99999999999999999999", "backward", "0 to 65536");
	assert_error("migrate -p tcp:h:1 1 2 3", "\"3\"", "[forward [backward]]");
}

static void test_parameters_go_to_qemu_and_ours_are_looked_at(void **state)
{
	static const char *const ours[] = {
		"migrate_set_parameter max-postcopy-bandwidth 0",
		"migrate_set_parameter max-postcopy-bandwidth 1.5G",
		"migrate_set_parameter max-postcopy-bandwidth \"7e\"",
		"migrate_set_parameter max-postcopy-bandwidth 0x10k",
		"migrate_set_parameter max-postcopy-bandwidth what",
		"migrate_set_parameter max-bandwidth 32", "migrate_set_parameter downtime-limit 9e",
		"migrate_set_parameter multifd-channels 0",
	};
	static const char *const others[] = {
		"migrate_set_parameter", "migrate_set_parameter max-postcopy-bandwidth",
		"migrate_set_parameter max-postcopy-bandwidth 1 2",
		"migrate_set_parameter max-post 1", "migrate_set_parameter urgent-channels",
		"migrate_set_parameter urgent-channels 1 2", "migrate_set_parameter urgent 2",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		assert_int_equal(parse(ours[i]).kind, HMP_PARAMETER);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_int_equal(parse(others[i]).kind, HMP_PASS);
	assert_error("migrate_set_parameter max-postcopy-bandwidth 8E",
		     "max-postcopy-bandwidth is \"8E\"", "wanted less than 8E");
	assert_error("migrate_set_parameter max-postcopy-bandwidth 9223372036854775808",
		     "9223372036854775808", "wanted less than 8E");
	assert_error("migrate_set_parameter max-bandwidth 8796093022208", "max-bandwidth is",
		     "wanted less than 8E");
}

static void test_urgent_channels_are_umems_own(void **state)
{
	(void)state;
	assert_int_equal(parse("migrate_set_parameter urgent-channels 1").kind, HMP_CHANNELS);
	assert_int_equal(parse("migrate_set_parameter urgent-channels 16").channels, 16);
	assert_error("migrate_set_parameter urgent-channels 0", "is \"0\"", "wanted 1 to 16");
	assert_error("migrate_set_parameter urgent-channels 17", "is \"17\"", "wanted 1 to 16");
	assert_error("migrate_set_parameter urgent-channels -1", "is \"-1\"", "wanted 1 to 16");
	assert_error("migrate_set_parameter urgent-channels two", "is \"two\"", "wanted 1 to 16");
}

static void test_what_becomes_of_a_lost_source_is_umems_own(void **state)
{
	(void)state;
	assert_int_equal(parse("migrate_give_up").kind, HMP_GIVE_UP);
	assert_int_equal(parse("migrate_set_parameter lost-source wait").kind, HMP_LOST_SOURCE_IS);
	assert_false(parse("migrate_set_parameter lost-source wait").on);
	assert_int_equal(parse("migrate_set_parameter lost-source poison").kind, HMP_LOST_SOURCE_IS);
	assert_true(parse("migrate_set_parameter lost-source poison").on);
	assert_error("migrate_set_parameter lost-source kill", "is \"kill\"", "wanted wait or poison");
	assert_int_equal(parse("migrate_set_parameter lost-source").kind, HMP_PASS);
	assert_int_equal(parse("help migrate_give_up").kind, HMP_HELP_MIGRATE);
}

static void test_capability_postcopy_ram_is_looked_at(void **state)
{
	static const char *const others[] = {
		"migrate_set_capability", "migrate_set_capability postcopy-ram",
		"migrate_set_capability postcopy-ram yes", "migrate_set_capability xbzrle on",
		"migrate_set_capability postcopy-ram on off",
	};

	(void)state;
	assert_int_equal(parse("migrate_set_capability postcopy-ram on").kind, HMP_POSTCOPY_RAM);
	assert_true(parse("migrate_set_capability postcopy-ram on").on);
	assert_int_equal(parse("migrate_set_capability postcopy-ram off").kind, HMP_POSTCOPY_RAM);
	assert_false(parse("migrate_set_capability postcopy-ram off").on);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_int_equal(parse(others[i]).kind, HMP_PASS);
}

static void test_every_other_line_passes(void **state)
{
	static const char *const lines[] = {
		"info status", "info migrate_capabilities", "infos", "quit", "q", "mig -p tcp:h:1",
		"migrate_set_capability x on", "contx", "device_add e1000", "x/4i $pc",
		"info migrate x", "cpu", "cpu x", "help cont", "MIGRATE -p tcp:h:1",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_int_equal(parse(lines[i]).kind, HMP_PASS);
}

static void test_commands_of_interest_are_known_by_each_name(void **state)
{
	static const struct {
		const char *line;
		enum hmp_kind kind;
	} cases[] = {
		{ "", HMP_EMPTY }, { " \t", HMP_EMPTY },
		{ "info migrate", HMP_INFO_MIGRATE }, { "  info   migrate ", HMP_INFO_MIGRATE },
		{ "info migrate_parameters", HMP_INFO_PARAMETERS },
		{ "migrate_cancel", HMP_CANCEL },
		{ "migrate_start_postcopy", HMP_START_POSTCOPY },
		{ "c", HMP_CONT }, { "cont", HMP_CONT },
		{ "s", HMP_STOP }, { "stop", HMP_STOP },
		{ "system_reset", HMP_GUARDED }, { "loadvm x", HMP_GUARDED },
		{ "gdbserver", HMP_GUARDED },
		{ "help", HMP_HELP }, { "?", HMP_HELP }, { "help migrate", HMP_HELP_MIGRATE },
		{ "? migrate_cancel", HMP_HELP_MIGRATE },
		{ "help migrate_start_postcopy", HMP_HELP_MIGRATE },
		{ "help migrate_set_parameter", HMP_HELP_MIGRATE },
		{ "help migrate_set_capability", HMP_HELP_MIGRATE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(parse(cases[i].line).kind, cases[i].kind);
	assert_string_equal(parse("system_reset").word, "system_reset");
}

static void test_cpu_is_noted(void **state)
{
	struct hmp_command command = parse("cpu 3");

	(void)state;
	assert_int_equal(command.kind, HMP_CPU);
	assert_int_equal(command.cpu, 3);
}

static void test_paused_limit_is_ours(void **state)
{
	(void)state;
	assert_int_equal(parse("migrate_set_parameter paused-limit 0").kind, HMP_PAUSED_LIMIT_IS);
	assert_int_equal(parse("migrate_set_parameter paused-limit 1000000").seconds, 1000000);
	assert_error("migrate_set_parameter paused-limit 1000001", "\"1000001\"", "0 to 1000000 seconds");
	assert_error("migrate_set_parameter paused-limit 5s", "\"5s\"", "seconds");
}

static void test_pause_and_recover(void **state)
{
	static const struct {
		const char *line, *uri, *why_not;
	} lines[] = {
		{ "migrate_recover", "", "" },
		{ "migrate_recover tcp:0:4445", "tcp:0:4445", "" },
		{ "migrate_recover \"exec:a b\"", "exec:a b", "" },
		{ "migrate_recover a b", "", "2 arguments, wanted migrate_recover [URI]" },
		{ "migrate_recover rdma:h:1", "", "\"rdma\"" },
		{ "migrate_recover defer", "", "\"defer\", wanted tcp:" },
		{ "migrate -r tcp:h:1", "tcp:h:1", "" },
		{ "migrate -d -r unix:/x", "unix:/x", "" },
		{ "migrate -r", "", "0 arguments, wanted migrate -r URI" },
		{ "migrate -r tcp:h:1 8", "", "2 arguments, wanted migrate -r URI" },
		{ "migrate -r -p tcp:h:1", "", "flag \"-p\", with -r only -d" },
	};

	(void)state;
	assert_int_equal(parse("migrate_pause").kind, HMP_PAUSE);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct hmp_command command = parse(lines[i].line);

		assert_int_equal(command.kind, HMP_RECOVER);
		if (!*command.error == !!*lines[i].why_not ||
		    !strstr(command.error, lines[i].why_not))
			fail_msg("\"%s\": \"%s\" lacks \"%s\"", lines[i].line, command.error,
				 lines[i].why_not);
		if (!*command.error)
			assert_string_equal(command.uri, lines[i].uri);
	}
	assert_int_equal(parse("help migrate_pause").kind, HMP_HELP_MIGRATE);
	assert_int_equal(parse("help migrate_recover").kind, HMP_HELP_MIGRATE);
}

static void test_migrate_incoming_is_ours_only_where_a_guest_is_expected(void **state)
{
	struct hmp_command command;

	(void)state;
	hmp_parse(&command, "migrate_incoming tcp:0:4444", true);
	assert_int_equal(command.kind, HMP_INCOMING);
	assert_string_equal(command.uri, "tcp:0:4444");
	hmp_parse(&command, "migrate_incoming tcp:0:4444", false);
	assert_int_equal(command.kind, HMP_GUARDED);
	hmp_parse(&command, "migrate_incoming", true);
	assert_int_equal(command.kind, HMP_ERROR);
	hmp_parse(&command, "migrate_incoming rdma:h:1", true);
	assert_int_equal(command.kind, HMP_ERROR);
	assert_non_null(strstr(command.error, "rdma:h:1"));
}

static void test_overlong_lines_pass(void **state)
{
	char line[4096];

	(void)state;
	memset(line, 'a', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	assert_int_equal(parse(line).kind, HMP_PASS);
	for (size_t i = 1; i < sizeof(line) - 1; i += 2)
		line[i] = ' ';
	assert_int_equal(parse(line).kind, HMP_PASS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_migrate_p_is_taken_with_all_its_flags),
		cmocka_unit_test(test_migrate_p_defaults_are_push_and_some_prefault),
		cmocka_unit_test(test_migrate_without_p_is_qemus_or_begins_with_precopy),
		cmocka_unit_test(test_bad_migrate_is_refused_with_what_is_wanted),
		cmocka_unit_test(test_parameters_go_to_qemu_and_ours_are_looked_at),
		cmocka_unit_test(test_urgent_channels_are_umems_own),
		cmocka_unit_test(test_what_becomes_of_a_lost_source_is_umems_own),
		cmocka_unit_test(test_capability_postcopy_ram_is_looked_at),
		cmocka_unit_test(test_every_other_line_passes),
		cmocka_unit_test(test_commands_of_interest_are_known_by_each_name),
		cmocka_unit_test(test_cpu_is_noted),
		cmocka_unit_test(test_pause_and_recover),
		cmocka_unit_test(test_paused_limit_is_ours),
		cmocka_unit_test(test_migrate_incoming_is_ours_only_where_a_guest_is_expected),
		cmocka_unit_test(test_overlong_lines_pass),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
