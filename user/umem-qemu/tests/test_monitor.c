// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/monitor.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
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

#include "umem-qemu/loop.h"

#define GREETING	"umem-qemu " UMEM_VERSION " monitor - type 'help' for more information\n(qemu) "

struct seen {
	char folder[64], path[80];
	struct monitor *monitor;
	char lines[8192];	/* each with a '|' behind it */
	bool hold;		/* lines are not done at once */
};

static void line(void *context, struct monitor *monitor, const char *text)
{
	struct seen *seen = context;

	assert_true(strlen(seen->lines) + strlen(text) + 2 < sizeof(seen->lines));
	strcat(seen->lines, text);
	strcat(seen->lines, "|");
	if (seen->hold)
		return;
	if (*text) {
		monitor_print(monitor, "did ");
		monitor_print(monitor, text);
		monitor_print(monitor, "\n");
	}
	monitor_ready(monitor);
}

static int setup(void **state)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	char *error;

	strcpy(seen->folder, "/tmp/umem-test-monitor-XXXXXX");
	if (!mkdtemp(seen->folder))
		return -1;
	snprintf(seen->path, sizeof(seen->path), "%s/m", seen->folder);
	seen->monitor = monitor_open_unix(seen->path, false, line, seen, &error);
	if (!seen->monitor)
		return -1;
	monitor_start(seen->monitor);
	*state = seen;
	return 0;
}

static int teardown(void **state)
{
	struct seen *seen = *state;

	monitor_close(seen->monitor);
	assert_int_equal(access(seen->path, F_OK), -1);
	rmdir(seen->folder);
	free(seen);
	return 0;
}

static int client(struct seen *seen)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path, seen->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void do_nothing(void *context)
{
	(void)context;
}

/* All that can be done now is done. */
static void turn(void)
{
	for (int i = 0; i < 10; i++) {
		struct loop_timer timer = { .fn = do_nothing };

		loop_timer_set(&timer, 1);
		loop_once();
		loop_timer_clear(&timer);
	}
}

static void put(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	turn();
}

static void assert_says(int fd, const char *want)
{
	char text[16384];
	ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[n > 0 ? n : 0] = '\0';
	assert_string_equal(text, want);
}

static void test_lines_are_answered_one_after_another(void **state)
{
	struct seen *seen = *state;
	int fd = client(seen);

	turn();
	assert_says(fd, GREETING);
	put(fd, "info sta");
	assert_string_equal(seen->lines, "");
	put(fd, "tus\r\n\nstop\n");
	assert_string_equal(seen->lines, "info status||stop|");
	assert_says(fd, "did info status\n(qemu) (qemu) did stop\n(qemu) ");
	close(fd);
	turn();
}

static void test_next_line_waits_until_the_one_before_is_done(void **state)
{
	struct seen *seen = *state;
	int fd = client(seen);

	turn();
	seen->hold = true;
	put(fd, "migrate\ninfo\n");
	assert_string_equal(seen->lines, "migrate|");
	seen->hold = false;
	assert_says(fd, GREETING);
	monitor_ready(seen->monitor);
	assert_string_equal(seen->lines, "migrate|info|");
	assert_says(fd, "(qemu) did info\n(qemu) ");
	close(fd);
	turn();
}

static void test_client_that_closes_its_side_still_reads_its_answers(void **state)
{
	struct seen *seen = *state;
	int fd = client(seen);

	put(fd, "a\nb\n");
	shutdown(fd, SHUT_WR);
	turn();
	assert_says(fd, GREETING "did a\n(qemu) did b\n(qemu) ");
	assert_int_equal(recv(fd, seen->lines, 1, MSG_DONTWAIT), 0);
	close(fd);
}

static void test_clients_are_served_one_after_another(void **state)
{
	struct seen *seen = *state;
	int first = client(seen), second;

	turn();
	second = client(seen);
	put(second, "second\n");
	assert_says(second, "");
	assert_says(first, GREETING);
	put(first, "first\n");
	assert_string_equal(seen->lines, "first|");
	close(first);
	turn();
	assert_string_equal(seen->lines, "first|second|");
	assert_says(second, GREETING "did second\n(qemu) ");
	close(second);
	turn();
}

static void test_lines_of_a_client_that_left_are_still_done(void **state)
{
	struct seen *seen = *state;
	int fd = client(seen);

	assert_int_equal(write(fd, "a\nb\n", 4), 4);
	close(fd);
	turn();
	assert_string_equal(seen->lines, "a|b|");
}

static void test_client_after_one_that_left_in_the_middle_waits_for_the_line(void **state)
{
	struct seen *seen = *state;
	int fd = client(seen);

	turn();
	seen->hold = true;
	put(fd, "migrate\n");
	close(fd);
	turn();
	fd = client(seen);
	seen->hold = false;
	put(fd, "info\n");
	assert_string_equal(seen->lines, "migrate|");
	monitor_print(seen->monitor, "migrate: done\n");
	monitor_ready(seen->monitor);
	turn();
	assert_string_equal(seen->lines, "migrate|info|");
	close(fd);
	turn();
}

static void test_overlong_line_is_dropped_and_told(void **state)
{
	struct seen *seen = *state;
	char text[6000];
	int fd = client(seen);

	turn();
	assert_says(fd, GREETING);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	put(fd, text);
	put(fd, "x\ngood\n");
	assert_string_equal(seen->lines, "good|");
	assert_says(fd, "the line has more than 4095 characters and was dropped\n(qemu) did good\n(qemu) ");
	close(fd);
	turn();
}

static void test_many_lines_at_once_need_no_deep_stack(void **state)
{
	struct seen *seen = *state;
	char text[4001];
	int fd = client(seen);

	memset(text, '\n', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	put(fd, text);
	assert_int_equal(strlen(seen->lines), 4000);
	close(fd);
	turn();
}

static void test_answer_longer_than_the_socket_takes_is_sent_on(void **state)
{
	struct seen *seen = *state;
	char *answer = malloc(1 << 20), *text = malloc(1 << 20);
	size_t got = 0;
	int fd = client(seen);

	turn();
	assert_says(fd, GREETING);
	memset(answer, 'y', (1 << 20) - 1);
	answer[(1 << 20) - 1] = '\0';
	monitor_print(seen->monitor, answer);
	for (int i = 0; i < 1000 && got < (1 << 20) - 1; i++) {
		ssize_t n = recv(fd, text, 1 << 20, MSG_DONTWAIT);

		got += n > 0 ? (size_t)n : 0;
		turn();
	}
	assert_int_equal(got, (1 << 20) - 1);
	close(fd);
	turn();
	free(answer);
	free(text);
}

static void test_progress_off_a_terminal_is_a_line_a_second_at_most(void **state)
{
	struct seen *seen = *state;
	int fd = client(seen);

	turn();
	assert_says(fd, GREETING);
	seen->hold = true;
	put(fd, "migrate\n");
	for (int i = 0; i < 5; i++)
		monitor_progress(seen->monitor, 0, "migrate: early");
	assert_says(fd, "");
	usleep(1010000);
	for (int i = 0; i < 5; i++)
		monitor_progress(seen->monitor, 5, "migrate: 5 %");
	assert_says(fd, "migrate: 5 %\n");
	monitor_ready(seen->monitor);
	assert_says(fd, "(qemu) ");
	close(fd);
	turn();
}

static void test_socket_left_behind_is_replaced_but_no_other_file(void **state)
{
	struct seen *seen = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct monitor *monitor;
	char path[80], *error;
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "%s/n", seen->folder);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	monitor = monitor_open_unix(path, false, line, seen, &error);
	assert_non_null(monitor);
	assert_null(monitor_open_unix(path, false, line, seen, &error));
	assert_non_null(strstr(error, "somebody listens at it"));
	free(error);
	monitor_close(monitor);

	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	assert_null(monitor_open_unix(path, false, line, seen, &error));
	assert_non_null(strstr(error, "no socket"));
	free(error);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_lines_are_answered_one_after_another),
		test(test_next_line_waits_until_the_one_before_is_done),
		test(test_client_that_closes_its_side_still_reads_its_answers),
		test(test_clients_are_served_one_after_another),
		test(test_lines_of_a_client_that_left_are_still_done),
		test(test_client_after_one_that_left_in_the_middle_waits_for_the_line),
		test(test_overlong_line_is_dropped_and_told),
		test(test_many_lines_at_once_need_no_deep_stack),
		test(test_answer_longer_than_the_socket_takes_is_sent_on),
		test(test_progress_off_a_terminal_is_a_line_a_second_at_most),
		test(test_socket_left_behind_is_replaced_but_no_other_file),
	};

	signal(SIGPIPE, SIG_IGN);	/* as the program does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
