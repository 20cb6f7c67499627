// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/guests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/runtime.h"

static int setup(void **state)
{
	static struct guests guests;

	guests_add(&guests, 100, "web", "none", "/r/100");
	guests_add(&guests, 200, "db", "running", "/r/200");
	guests_add(&guests, 300, "", "silent", "/r/300");
	guests_add(&guests, 400, "db", "none", "/r/400");
	guests_add(&guests, 500, "100", "none", "/r/500");
	*state = &guests;
	return 0;
}

static int teardown(void **state)
{
	guests_free(*state);
	return 0;
}

static void assert_chooses(const struct guests *guests, const char *wanted, pid_t pid)
{
	char *error;
	const struct guest *guest = guests_choose(guests, wanted, &error);

	assert_non_null(guest);
	assert_null(error);
	assert_int_equal(guest->pid, pid);
}

static void assert_refuses(const struct guests *guests, const char *wanted, const char *words)
{
	char *error;

	assert_null(guests_choose(guests, wanted, &error));
	if (!strstr(error, words))
		fail_msg("\"%s\" does not say \"%s\"", error, words);
	free(error);
}

static void test_by_process_or_by_name_and_the_process_counts_more(void **state)
{
	assert_chooses(*state, "100", 100);
	assert_chooses(*state, "300", 300);
	assert_chooses(*state, "web", 100);
}

static void test_who_cannot_be_told_is_refused_with_all_of_them(void **state)
{
	static const char all[] = "100 (web), 200 (db), 300, 400 (db), 500 (100)";

	assert_refuses(*state, NULL, "5 umem-qemus run, wanted --guest with one of: ");
	assert_refuses(*state, NULL, all);
	assert_refuses(*state, "mail", "--guest is \"mail\", wanted one of: ");
	assert_refuses(*state, "mail", all);
	assert_refuses(*state, "", all);
	assert_refuses(*state, "0100", all);
	assert_refuses(*state, "db", "the name of 2 guests");
	assert_refuses(*state, "db", all);
}

static void test_the_only_one_need_not_be_named(void **state)
{
	struct guests guests = { 0 };

	(void)state;
	assert_refuses(&guests, NULL, "no umem-qemu of this user runs, wanted one");
	assert_refuses(&guests, "web", "no umem-qemu of this user runs, wanted one");
	guests_add(&guests, 7, "", "none", "/r/7");
	assert_chooses(&guests, NULL, 7);
	assert_refuses(&guests, "8", "wanted one of: 7");
	guests_free(&guests);
}

static void test_table_has_a_line_each_and_nothing_for_terminals(void **state)
{
	struct guests guests = { 0 };
	json_t *json;
	char *table;

	(void)state;
	guests_add(&guests, 7, "a\033[2Jb", "none", "/r/7");
	guests_add(&guests, 8, "\xff", "running", "/r/8");
	json = guests_json(&guests);
	table = json_dumps(json, JSON_COMPACT);
	assert_string_equal(table, "[{\"pid\":7,\"name\":\"a?[2Jb\",\"state\":\"none\"},"
			    "{\"pid\":8,\"name\":\"?\",\"state\":\"running\"}]");
	free(table);
	json_decref(json);
	free(guests.guest[1].name);
	guests.guest[1].name = strdup("");
	table = guests_table(&guests);
	assert_string_equal(table, "     PID  NAME                 STATE\n"
			    "       7  a?[2Jb               none\n"
			    "       8  -                    running\n");
	free(table);
	guests_free(&guests);
}

/* A process that has ended: its number is nobody's for now. */
static pid_t dead_pid(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	return pid;
}

static char *make_socket(const char *folder, pid_t pid, int *fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char *path = runtime_file(folder, pid, RUNTIME_SOCKET);

	strcpy(address.sun_path, path);
	*fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(*fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return path;
}

static bool has_guest(const struct guests *guests, pid_t pid, const char *name,
		      const char *state)
{
	for (size_t i = 0; i < guests->nr; i++) {
		if (guests->guest[i].pid == pid)
			return !strcmp(guests->guest[i].name, name) &&
			       !strcmp(guests->guest[i].state, state);
	}
	return false;
}

static void test_who_listens_is_found_and_what_was_left_behind_is_removed(void **state)
{
	static const char reply[] = "{\"ok\":true,\"guest\":{\"pid\":1,\"name\":\"web\"},"
				    "\"info\":{\"status\":\"advise\"}}\n";
	char folder[] = "/tmp/umem-test-guests-XXXXXX";
	char *live, *stale;
	struct guests guests;
	int fd, stale_fd;
	pid_t server, dead = dead_pid();

	(void)state;
	assert_non_null(mkdtemp(folder));
	setenv("XDG_RUNTIME_DIR", folder, 1);
	live = make_socket(folder, getpid(), &fd);
	stale = make_socket(folder, dead, &stale_fd);
	close(stale_fd);
	assert_int_equal(listen(fd, 1), 0);
	server = fork();
	if (!server) {
		char request[100];
		int client = accept(fd, NULL, NULL);
		bool asked = read(client, request, sizeof(request)) > 0;
		ssize_t n = write(client, reply, strlen(reply));

		_exit(!asked || n != (ssize_t)strlen(reply));
	}
	guests_find(&guests);
	assert_true(has_guest(&guests, getpid(), "web", "advise"));
	assert_false(has_guest(&guests, dead, "", "silent"));
	assert_int_equal(access(stale, F_OK), -1);
	assert_int_equal(access(live, F_OK), 0);
	waitpid(server, NULL, 0);
	guests_free(&guests);
	close(fd);
	unlink(live);
	free(live);
	free(stale);
	rmdir(folder);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_by_process_or_by_name_and_the_process_counts_more),
		test(test_who_cannot_be_told_is_refused_with_all_of_them),
		cmocka_unit_test(test_the_only_one_need_not_be_named),
		cmocka_unit_test(test_table_has_a_line_each_and_nothing_for_terminals),
		cmocka_unit_test(test_who_listens_is_found_and_what_was_left_behind_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
