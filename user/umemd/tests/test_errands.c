// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/errands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "umemd/codec.h"
#include "umemd/tests/cmocka_first.h"

#define PAGES	16

static bool is_in_a_sandbox(pid_t pid)
{
	char path[64], line[128];
	int mode = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		sscanf(line, "Seccomp: %d", &mode);
	fclose(file);
	return mode == 2;
}

static void start(struct errands *errands, const struct errands_setup *setup)
{
	char error[ERRANDS_ERROR_MAX] = "";

	*errands = (struct errands){ 0 };
	if (errands_start(errands, setup, error))
		fail_msg("%s", error);
	assert_true(!errands->pid || is_in_a_sandbox(errands->pid));
}

/* It ends by itself, and well, when nobody can want anything any more. */
static void ends(struct errands *errands)
{
	int status;

	errands_stop(errands);
	assert_int_equal(waitpid(errands->pid, &status, 0), errands->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_nothing_wanted_is_no_process(void **state)
{
	const struct errands_setup setup = { 0 };
	struct errands errands;
	uint64_t page = 0;
	int fd;

	(void)state;
	start(&errands, &setup);
	assert_int_equal(errands.pid, 0);
	assert_int_equal(errands_connect(&errands, 0, &fd), -EPIPE);
	errands_touch(&errands, 0, &page, 1);
	errands_stop(&errands);
}

static void test_connections_come_as_often_as_wanted(void **state)
{
	struct socket_address addresses[2];
	struct errands_setup setup = { .addresses = addresses, .nr_addresses = 2 };
	struct sockaddr_in *closed = (struct sockaddr_in *)&addresses[0].address;
	struct sockaddr_in *open = (struct sockaddr_in *)&addresses[1].address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd, peer;
	struct errands errands;
	char byte = 0;

	(void)state;
	memset(addresses, 0, sizeof(addresses));
	closed->sin_family = open->sin_family = AF_INET;
	closed->sin_addr.s_addr = open->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	closed->sin_port = htons(1);
	addresses[0].size = addresses[1].size = sizeof(*open);
	assert_int_equal(bind(listener, (struct sockaddr *)open, sizeof(*open)), 0);
	assert_int_equal(listen(listener, 8), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)open, &addresses[1].size), 0);

	start(&errands, &setup);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(errands_connect(&errands, 1, &fd), 0);
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
		peer = accept(listener, NULL, NULL);
		assert_true(peer >= 0);
		assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, 5000), 1);
		assert_int_equal(socket_connected(fd), 0);
		assert_int_equal(write(peer, "x", 1), 1);
		assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 5000), 1);
		assert_int_equal(read(fd, &byte, 1), 1);
		/* It is ours alone. */
		close(fd);
		assert_int_equal(read(peer, &byte, 1), 0);
		close(peer);
	}
	/* One that nobody listens at; one that there is not. */
	assert_int_equal(errands_connect(&errands, 0, &fd), 0);
	assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, 5000), 1);
	assert_int_equal(socket_connected(fd), -ECONNREFUSED);
	close(fd);
	assert_int_equal(errands_connect(&errands, 2, &fd), -EINVAL);
	close(listener);
	ends(&errands);
}

static void test_a_process_that_is_gone_is_told(void **state)
{
	struct socket_address address = { .size = sizeof(struct sockaddr_in) };
	struct errands_setup setup = { .addresses = &address, .nr_addresses = 1 };
	struct errands errands;
	int fd;

	(void)state;
	address.address.ss_family = AF_INET;
	start(&errands, &setup);
	kill(errands.pid, SIGKILL);
	waitpid(errands.pid, NULL, 0);
	assert_int_equal(errands_connect(&errands, 0, &fd), -EPIPE);
	errands_stop(&errands);
}

static void test_the_listeners_file_goes_and_no_other(void **state)
{
	char folder[] = "/tmp/umem-errands-XXXXXX", path[64], actual[URI_TEXT_MAX];
	char error[SOCKET_ERROR_MAX];
	struct uri uri = { .kind = URI_UNIX };
	struct socket_listener listener;
	struct errands_setup setup = { .listener = &listener };
	struct errands errands;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	strcpy(uri.rest, path);
	assert_int_equal(socket_listen(&uri, &listener, actual, error), 0);
	start(&errands, &setup);
	/* Not before it is wanted, and not because umemd ended. */
	assert_int_equal(access(path, F_OK), 0);
	ends(&errands);
	assert_int_equal(access(path, F_OK), 0);

	start(&errands, &setup);
	errands_remove(&errands, &listener);
	assert_int_equal(access(path, F_OK), -1);
	assert_string_equal(listener.path, "");
	socket_unlisten(&listener);
	ends(&errands);
	rmdir(folder);
}

/* A child that maps the region, and at a byte says how many of its pages are in memory there. */
static pid_t start_child(int region, int channel)
{
	pid_t pid = fork();

	if (!pid) {
		void *view = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ, MAP_SHARED, region, 0);
		int pagemap = open("/proc/self/pagemap", O_RDONLY);
		uint64_t entries[PAGES];
		char count = 0;

		if (view == MAP_FAILED || write(channel, "x", 1) != 1 || read(channel, &count, 1) != 1 ||
		    pread(pagemap, entries, sizeof(entries), (off_t)((uintptr_t)view / PAGE_BYTES * 8)) !=
		    (ssize_t)sizeof(entries))
			_exit(1);
		count = 0;
		for (int i = 0; i < PAGES; i++)
			count = (char)(count + (entries[i] >> 63));
		_exit(write(channel, &count, 1) != 1);
	}
	return pid;
}

static void test_pages_are_touched_in_the_other_process(void **state)
{
	int region = memfd_create("region", MFD_CLOEXEC), channel[2];
	struct errands_setup setup = {
		.touch = true, .parent = getpid(), .region_fds = &region, .nr_regions = 1,
	};
	const uint64_t pages[] = { 3, 9 };
	struct errands errands;
	char count = 0;
	pid_t child;

	(void)state;
	assert_int_equal(ftruncate(region, PAGES * PAGE_BYTES), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
	child = start_child(region, channel[1]);
	assert_int_equal(read(channel[0], &count, 1), 1);
	start(&errands, &setup);
	errands_touch(&errands, 0, pages, 2);
	errands_touch(&errands, 1, pages, 2);
	ends(&errands);		/* having done all it was told */
	assert_int_equal(write(channel[0], "x", 1), 1);
	assert_int_equal(read(channel[0], &count, 1), 1);
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(channel[0]);
	close(channel[1]);
	close(region);
	/* Pages of a memfd that are nowhere yet come one by one. */
	assert_int_equal(count, 2);
}

static void test_nobody_to_touch_is_no_failure(void **state)
{
	int region = memfd_create("region", MFD_CLOEXEC);
	struct errands_setup setup = {
		.touch = true, .parent = getpid(), .region_fds = &region, .nr_regions = 1,
	};
	struct errands errands;
	uint64_t page = 0;

	(void)state;
	start(&errands, &setup);
	errands_touch(&errands, 0, &page, 1);
	ends(&errands);
	close(region);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_wanted_is_no_process),
		cmocka_unit_test(test_connections_come_as_often_as_wanted),
		cmocka_unit_test(test_a_process_that_is_gone_is_told),
		cmocka_unit_test(test_the_listeners_file_goes_and_no_other),
		cmocka_unit_test(test_pages_are_touched_in_the_other_process),
		cmocka_unit_test(test_nobody_to_touch_is_no_failure),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
