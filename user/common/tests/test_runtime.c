// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/runtime.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void test_xdg_runtime_dir_comes_first_if_it_is_a_path(void **state)
{
	char *folders[RUNTIME_FOLDERS_MAX];
	size_t nr;

	(void)state;
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	nr = runtime_folders(folders);
	assert_string_equal(folders[0], "/run/user/7");
	while (nr)
		free(folders[--nr]);
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	nr = runtime_folders(folders);
	assert_string_equal(folders[0], geteuid() ? folders[nr - 1] : "/run/umem");
	assert_int_equal(strncmp(folders[nr - 1], "/tmp/umem-", 10), 0);
	while (nr)
		free(folders[--nr]);
	unsetenv("XDG_RUNTIME_DIR");
}

static void test_name_of_a_socket_is_understood_again(void **state)
{
	static const char *const others[] = {
		"umem-qemu-.sock", "umem-qemu-12", "umem-qemu-12.sock2", "umem-qemu--1.sock",
		"umem-qemu-99999999999999999999.sock", "umem-qemu-4294967297.sock", "other", "",
		"umem-qemu- 1.sock",
	};
	char *path = runtime_file("/x", 4711, RUNTIME_SOCKET);

	(void)state;
	assert_string_equal(path, "/x/umem-qemu-4711.sock");
	assert_int_equal(runtime_file_pid(path + 3, RUNTIME_SOCKET), 4711);
	free(path);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_int_equal(runtime_file_pid(others[i], RUNTIME_SOCKET), 0);
	assert_int_equal(runtime_file_pid("umem-qemu-12.record", RUNTIME_RECORD), 12);
	assert_int_equal(runtime_file_pid("umem-qemu-12.record.new", RUNTIME_RECORD), 0);
}

static void assert_unsafe(const char *folder, const char *words)
{
	char *error = NULL;

	assert_int_equal(runtime_make(folder, &error), -1);
	assert_non_null(strstr(error, folder));
	assert_non_null(strstr(error, words));
	free(error);
}

static void test_only_a_folder_of_ones_own_is_taken(void **state)
{
	char folder[] = "/tmp/umem-test-runtime-XXXXXX";
	char path[80], target[80];
	char *error = NULL;
	struct stat st;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/made", folder);
	assert_int_equal(runtime_make(path, &error), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(runtime_make(path, &error), 0);

	chmod(path, 0777);
	assert_unsafe(path, "0777");
	chmod(path, 0700);
	snprintf(target, sizeof(target), "%s/link", folder);
	assert_int_equal(symlink(path, target), 0);
	assert_unsafe(target, "wanted a folder");
	unlink(target);
	rmdir(path);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	assert_unsafe(path, "wanted a folder");
	unlink(path);
	assert_unsafe("/tmp/umem-test-not-there/x", "cannot be made");
	rmdir(folder);
}

static void test_connecting_says_why_not(void **state)
{
	char path[200];

	(void)state;
	assert_int_equal(runtime_connect("/tmp/umem-test-not-there"), -ENOENT);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(runtime_connect(path), -ENAMETOOLONG);
}

static void test_a_listener_that_is_stuck_is_given_up(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "" };
	char folder[] = "/tmp/umem-test-runtime-XXXXXX";
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), fds[8], nr = 0, err;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", folder);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	while (nr < 8 && (err = runtime_connect(address.sun_path)) >= 0)
		fds[nr++] = err;
	assert_in_range(nr, 1, 7);
	assert_int_equal(err, -EAGAIN);
	while (nr)
		close(fds[--nr]);
	close(listener);
	assert_int_equal(runtime_connect(address.sun_path), -ECONNREFUSED);
	unlink(address.sun_path);
	rmdir(folder);
}

static void assert_not_listened(const char *path, const char *words)
{
	char *error = NULL;

	assert_int_equal(runtime_listen(path, true, &error), -1);
	if (!strstr(error, words))
		fail_msg("\"%s\" lacks \"%s\"", error, words);
	free(error);
}

static void test_only_a_socket_where_nobody_listens_is_replaced(void **state)
{
	char folder[] = "/tmp/umem-test-runtime-XXXXXX";
	char path[200], *error = NULL;
	int listener, fd;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	assert_int_equal(runtime_clear(path), 0);
	listener = runtime_listen(path, true, &error);
	assert_true(listener >= 0);
	fd = runtime_connect(path);
	assert_true(fd >= 0);
	close(fd);
	assert_not_listened(path, "somebody listens at it");
	assert_int_equal(runtime_clear(path), -EADDRINUSE);
	close(listener);

	listener = runtime_listen(path, true, &error);
	assert_true(listener >= 0);
	close(listener);
	assert_int_equal(runtime_clear(path), 0);
	assert_int_equal(access(path, F_OK), -1);

	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	assert_not_listened(path, "is there and no socket, wanted nothing there");
	assert_int_equal(runtime_clear(path), -EEXIST);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	assert_not_listened("/tmp/umem-test-not-there/s", "No such file or directory");
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_not_listened(path, "has 199 characters, a socket's path has at most 107");
	rmdir(folder);
}

static void test_a_socket_of_ones_own_is_closed_to_others(void **state)
{
	char folder[] = "/tmp/umem-test-runtime-XXXXXX";
	char path[80], *error = NULL;
	mode_t mask = umask(0022);
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	for (int own = 0; own < 2; own++) {
		fd = runtime_listen(path, own, &error);
		assert_true(fd >= 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, own ? 0600 : 0755);
		close(fd);
	}
	assert_int_equal(umask(mask), 0022);
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_xdg_runtime_dir_comes_first_if_it_is_a_path),
		cmocka_unit_test(test_name_of_a_socket_is_understood_again),
		cmocka_unit_test(test_only_a_folder_of_ones_own_is_taken),
		cmocka_unit_test(test_connecting_says_why_not),
		cmocka_unit_test(test_a_listener_that_is_stuck_is_given_up),
		cmocka_unit_test(test_only_a_socket_where_nobody_listens_is_replaced),
		cmocka_unit_test(test_a_socket_of_ones_own_is_closed_to_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
