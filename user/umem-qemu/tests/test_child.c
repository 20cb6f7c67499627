// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/child.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(const char *script, const struct child_setup *how)
{
	char *argv[] = { "sh", "-c", (char *)script, NULL };
	struct child_setup setup = *how;
	pid_t pid;

	setup.path = "/bin/sh";
	setup.argv = argv;
	pid = child_start(&setup);
	assert_true(pid > 0);
	return child_wait(pid);
}

static void test_only_the_descriptors_named_are_inherited(void **state)
{
	char script[128];
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	snprintf(script, sizeof(script), "[ -e /proc/self/fd/%d ] && [ ! -e /proc/self/fd/%d ]",
		 fds[1], fds[0]);
	assert_int_equal(run(script, &(struct child_setup){ .fds = &fds[1], .nr_fds = 1 }), 0);
	assert_int_equal(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
	close(fds[0]);
	close(fds[1]);
}

static void test_blocked_signals_and_sigpipe_are_as_new(void **state)
{
	sigset_t set, before;

	(void)state;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &before);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(WTERMSIG(run("kill -TERM $$; sleep 5", &(struct child_setup){ 0 })), SIGTERM);
	assert_int_equal(WTERMSIG(run("kill -PIPE $$; sleep 5", &(struct child_setup){ 0 })), SIGPIPE);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static void test_no_input_reads_end_of_file(void **state)
{
	(void)state;
	assert_int_equal(run("! read -r line", &(struct child_setup){ .no_input = true }), 0);
}

static void test_no_output_goes_nowhere(void **state)
{
	(void)state;
	assert_int_equal(run("[ /proc/self/fd/1 -ef /dev/null ]",
			     &(struct child_setup){ .no_output = true }), 0);
}

static void test_own_session_is_led_by_the_child(void **state)
{
	(void)state;
	assert_int_equal(run("read -r pid comm st ppid pgrp session rest </proc/$$/stat; [ $session = $$ ]",
			     &(struct child_setup){ .own_session = true }), 0);
	assert_int_equal(run("read -r pid comm st ppid pgrp session rest </proc/$$/stat; [ $session != $$ ]",
			     &(struct child_setup){ 0 }), 0);
}

static int nice_of(const struct child_setup *setup)
{
	return WEXITSTATUS(run("read -r pid comm st ppid pgrp session tty group flags a b c d e f g h prio nice rest </proc/$$/stat; exit $((nice + 20))",
			       setup)) - 20;
}

static void test_what_we_start_is_in_a_hurry_only_if_it_is_told_to(void **state)
{
	const struct child_setup hurry = { .hurry = true }, usual = { 0 };
	int status, best = nice_of(&hurry);
	pid_t pid;

	(void)state;
	assert_int_equal(nice_of(&usual), getpriority(PRIO_PROCESS, 0));
	pid = fork();
	if (!pid) {
		int before = getpriority(PRIO_PROCESS, 0);

		child_hurry(0);
		child_hurry(0);
		_exit(getpriority(PRIO_PROCESS, 0) != best || nice_of(&usual) != before ||
		      nice_of(&hurry) != best);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_exec_that_fails_is_an_errno(void **state)
{
	char *argv[] = { "x", NULL };

	(void)state;
	assert_int_equal(child_start(&(struct child_setup){ .path = "/nonexistent", .argv = argv }),
			 -ENOENT);
	assert_int_equal(child_start(&(struct child_setup){ .path = "/etc/passwd", .argv = argv }),
			 -EACCES);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void test_ends_are_told_in_words_and_numbers(void **state)
{
	char *text;
	int status;

	(void)state;
	status = run("exit 3", &(struct child_setup){ 0 });
	text = child_ended(status);
	assert_string_equal(text, "exited with status 3");
	assert_int_equal(child_exit_status(status), 3);
	free(text);
	status = run("kill -9 $$", &(struct child_setup){ 0 });
	text = child_ended(status);
	assert_string_equal(text, "was killed by signal 9 (Killed)");
	assert_int_equal(child_exit_status(status), 137);
	free(text);
}

static void test_programs_are_found_as_a_shell_finds_them(void **state)
{
	char *found = child_find("sh");

	(void)state;
	assert_non_null(found);
	assert_int_equal(access(found, X_OK), 0);
	free(found);
	found = child_find("/bin/sh");
	assert_string_equal(found, "/bin/sh");
	free(found);
	assert_null(child_find("no-such-program-at-all"));
	assert_null(child_find("/etc/passwd"));
	assert_null(child_find("/bin"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_the_descriptors_named_are_inherited),
		cmocka_unit_test(test_blocked_signals_and_sigpipe_are_as_new),
		cmocka_unit_test(test_no_input_reads_end_of_file),
		cmocka_unit_test(test_no_output_goes_nowhere),
		cmocka_unit_test(test_own_session_is_led_by_the_child),
		cmocka_unit_test(test_what_we_start_is_in_a_hurry_only_if_it_is_told_to),
		cmocka_unit_test(test_exec_that_fails_is_an_errno),
		cmocka_unit_test(test_ends_are_told_in_words_and_numbers),
		cmocka_unit_test(test_programs_are_found_as_a_shell_finds_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
