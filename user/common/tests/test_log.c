// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char seen[16384];

/* What comes out on standard error while the message is printed. */
static const char *printed(enum log_level level, const char *text)
{
	int fds[2], saved;
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	saved = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	log_message(level, "%s", text);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	n = read(fds[0], seen, sizeof(seen) - 1);
	close(fds[0]);
	seen[n > 0 ? n : 0] = '\0';
	return seen;
}

static void test_program_and_level_come_first(void **state)
{
	(void)state;
	log_init("tester", LOG_LEVEL_INFO);
	assert_string_equal(printed(LOG_LEVEL_ERROR, "port 1 is taken"),
			    "tester: error: port 1 is taken\n");
	assert_string_equal(printed(LOG_LEVEL_WARNING, "slow"), "tester: warning: slow\n");
	assert_string_equal(printed(LOG_LEVEL_INFO, "hello"), "tester: hello\n");
}

static void test_less_important_than_the_level_is_silent(void **state)
{
	(void)state;
	log_init("tester", LOG_LEVEL_WARNING);
	assert_string_equal(printed(LOG_LEVEL_INFO, "hello"), "");
	assert_string_equal(printed(LOG_LEVEL_DEBUG, "hello"), "");
	assert_string_equal(printed(LOG_LEVEL_WARNING, "hello"), "tester: warning: hello\n");
}

static void test_control_characters_are_shown_not_sent(void **state)
{
	(void)state;
	log_init("tester", LOG_LEVEL_INFO);
	assert_string_equal(printed(LOG_LEVEL_INFO, "a\x1b[2J\nb\x7f"),
			    "tester: a\\x1b[2J\\x0ab\\x7f\n");
}

static void test_long_text_is_cut_and_still_one_line(void **state)
{
	char text[8192];
	const char *out;

	(void)state;
	log_init("tester", LOG_LEVEL_INFO);
	memset(text, '\n', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	out = printed(LOG_LEVEL_INFO, text);
	assert_true(strlen(out) > 2048);
	assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_program_and_level_come_first),
		cmocka_unit_test(test_less_important_than_the_level_is_silent),
		cmocka_unit_test(test_control_characters_are_shown_not_sent),
		cmocka_unit_test(test_long_text_is_cut_and_still_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
