// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/record.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/runtime.h"
#include "common/text.h"

/* A runtime folder of the test's own. */
static int setup(void **state)
{
	char *folder = text_copy("/tmp/umem-test-record-XXXXXX");

	if (!mkdtemp(folder))
		return -1;
	setenv("XDG_RUNTIME_DIR", folder, 1);
	*state = folder;
	return 0;
}

static int teardown(void **state)
{
	char *command = text_format("rm -r %s", (char *)*state);
	int status = system(command);

	free(command);
	free(*state);
	return status;
}

static char *write_for(const char *folder, pid_t pid, const char *name, const char *who,
		       pid_t lives)
{
	json_t *record = json_pack("{s:s, s:o}", "name", name, who, process_json(lives));
	char *path = runtime_file(folder, pid, RUNTIME_RECORD);
	char *why = record_write(path, record);

	if (why)
		fail_msg("%s", why);
	json_decref(record);
	return path;
}

static char *write_named(const char *folder, pid_t pid, const char *name)
{
	return write_for(folder, pid, name, "qemu", getpid());
}

static void found(const char *target, const char *path)
{
	char *at, *error;
	json_t *record = record_find(target, &at, &error);

	if (!record)
		fail_msg("%s: %s", target, error);
	assert_string_equal(at, path);
	json_decref(record);
	free(at);
}

static void not_found(const char *target, const char *words)
{
	char *at, *error;

	assert_null(record_find(target, &at, &error));
	assert_null(at);
	if (!strstr(error, words))
		fail_msg("%s: \"%s\" lacks \"%s\"", target, error, words);
	free(error);
}

static void test_record_is_found_by_pid_name_or_path(void **state)
{
	char *web = write_named(*state, 71, "web"), *db = write_named(*state, 72, "db");

	found("71", web);
	found("db", db);
	found(web, web);
	not_found("mail", "no umem-qemu that has left a record, wanted one of: 7");
	not_found("7", "71 (web)");
	not_found("/tmp/nowhere/at.all", "No such file");
	free(db);
	db = write_named(*state, 73, "web");
	not_found("web", "more than one");
	found("73", db);
	free(web);
	free(db);
}

static void test_record_replaces_the_one_before_and_is_nobody_elses(void **state)
{
	char *path = write_named(*state, 71, "web"), *error, *at;
	json_t *record;
	struct stat st;

	free(write_named(*state, 71, "db"));
	record = record_find("71", &at, &error);
	assert_string_equal(json_string_value(json_object_get(record, "name")), "db");
	json_decref(record);
	free(at);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	chmod(path, 0640);
	not_found(path, "mode 0640, wanted a file of user");
	not_found("71", "no umem-qemu");
	chmod(path, 0600);
	assert_int_equal(truncate(path, 3), 0);
	not_found(path, "no record of a umem-qemu");
	free(path);
}

static void test_record_that_cannot_be_written_leaves_the_old_one(void **state)
{
	char *path = write_named(*state, 71, "web");
	char *next = text_format("%s.new", path), *why;
	json_t *record = json_object();

	assert_int_equal(symlink("/dev/null", next), 0);	/* nor is another's link followed */
	why = record_write(path, record);
	assert_non_null(strstr(why, "cannot be written"));
	found("web", path);
	json_decref(record);
	free(why);
	free(next);
	free(path);
}

static pid_t start(void)
{
	pid_t pid = fork();

	if (!pid) {
		pause();
		_exit(0);
	}
	return pid;
}

static void test_record_of_a_guest_that_is_no_more_is_removed(void **state)
{
	pid_t ended = start();
	char *dead = write_for(*state, 71, "web", "qemu", ended), *alone, *web;

	kill(ended, SIGKILL);
	assert_int_equal(waitpid(ended, NULL, 0), ended);
	web = write_named(*state, 72, "web");
	alone = write_for(*state, 73, "db", "umemd", getpid());
	found("web", web);
	assert_int_equal(access(dead, F_OK), -1);
	found("db", alone);		/* its umemd still serves */
	free(dead);
	free(alone);
	free(web);
}

static void test_one_claim_at_a_time(void **state)
{
	char *path = write_named(*state, 71, "web"), *error = NULL;
	int first = record_claim(path, &error), second;

	assert_true(first >= 0);
	assert_int_equal(record_claim(path, &error), -1);
	assert_non_null(strstr(error, "another umem-qemu is adopting"));
	free(error);
	close(first);
	second = record_claim(path, &error);
	assert_true(second >= 0);
	close(second);
	unlink(path);
	assert_int_equal(record_claim(path, &error), -1);
	free(error);
	free(path);
}

static void test_process_is_told_from_a_later_one_of_its_number(void **state)
{
	pid_t pid = start();
	json_t *process = process_json(pid);
	json_t *later = json_deep_copy(process);
	int fd, status;

	(void)state;
	assert_int_equal(process_pid(process), pid);
	json_object_set_new(later, "started", json_integer(json_integer_value(
				json_object_get(process, "started")) + 1));
	assert_int_equal(process_open(later), -ESRCH);
	fd = process_open(process);
	assert_true(fd >= 0);
	assert_int_equal(process_kill(fd), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WTERMSIG(status), SIGKILL);
	assert_int_equal(process_open(process), -ESRCH);
	assert_int_equal(process_open(NULL), -ESRCH);
	json_decref(process);
	json_decref(later);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_record_is_found_by_pid_name_or_path, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_record_replaces_the_one_before_and_is_nobody_elses, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_record_that_cannot_be_written_leaves_the_old_one, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_record_of_a_guest_that_is_no_more_is_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_claim_at_a_time, setup, teardown),
		cmocka_unit_test(test_process_is_told_from_a_later_one_of_its_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
