// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/control.h"

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

#include "common/runtime.h"
#include "umem-qemu/loop.h"

#define CROWD	100

struct served {
	char folder[64], path[80];
	struct control *control;
	unsigned int requests;
	struct loop_timer timer;
	bool fired;
};

static void serve(void *context, const struct request *request, struct control_answer *answer)
{
	struct served *served = context;

	served->requests++;
	answer->reply = json_pack("{s:b, s:i}", "ok", 1, "kind", request->kind);
	answer->watch = request->kind == REQUEST_WATCH;
}

static void fired(void *context)
{
	struct served *served = context;

	served->fired = true;
}

/* Until nothing has happened for a moment. */
static void turn(struct served *served)
{
	served->timer = (struct loop_timer){ .fn = fired, .context = served };
	served->fired = false;
	loop_timer_set(&served->timer, 20);
	while (!served->fired)
		loop_once();
}

static int setup(void **state)
{
	struct served *served = calloc(1, sizeof(*served));
	char *error;

	strcpy(served->folder, "/tmp/umem-test-control-XXXXXX");
	if (!mkdtemp(served->folder))
		return -1;
	snprintf(served->path, sizeof(served->path), "%s/c", served->folder);
	served->control = control_open(served->path, serve, served, &error);
	*state = served;
	return served->control ? 0 : -1;
}

static int teardown(void **state)
{
	struct served *served = *state;

	control_close(served->control);
	assert_int_equal(access(served->path, F_OK), -1);
	rmdir(served->folder);
	free(served);
	return 0;
}

static int client(struct served *served)
{
	int fd = runtime_connect(served->path);

	assert_true(fd >= 0);
	return fd;
}

static void put(struct served *served, int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	turn(served);
}

/* What has come; "" nothing, NULL the other side hung up. */
static const char *got(int fd)
{
	static char text[32768];
	ssize_t n = read(fd, text, sizeof(text) - 1);

	if (!n)
		return NULL;
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void assert_error(int fd, const char *words)
{
	const char *text = got(fd);

	if (!text || strncmp(text, "{\"error\":\"", 10) || !strstr(text, words))
		fail_msg("got \"%s\", wanted an error with \"%s\"", text ? text : "(hung up)",
			 words);
}

static void assert_only_answers(struct served *served, int fd)
{
	put(served, fd, "{\"cmd\":\"info\"}\n");
	assert_string_equal(got(fd), "{\"ok\":true,\"kind\":2}\n");
}

static void test_only_its_owner_can_connect(void **state)
{
	struct served *served = *state;
	struct stat st;

	assert_int_equal(stat(served->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_each_line_has_its_reply_in_order(void **state)
{
	struct served *served = *state;
	const char *text;
	int fd = client(served);

	put(served, fd, "{\"cmd\":\"info\"}\n\n{\"cmd\":\"nonsense\"}\n{\"cmd\":\"can");
	put(served, fd, "cel\"}\n");
	text = got(fd);
	assert_ptr_equal(strstr(text, "{\"ok\":true,\"kind\":2}\n"
				"{\"error\":\"cmd is \\\"nonsense\\\", wanted one of"), text);
	assert_non_null(strstr(text, "\"}\n{\"ok\":true,\"kind\":1}\n"));
	assert_int_equal(served->requests, 2);
	close(fd);
	turn(served);
}

static void test_garbage_is_told_and_changes_nothing(void **state)
{
	static const char *const garbage[] = {
		"hello\n", "[1,2]\n", "{\"cmd\":\"migrate\"\n", "\xff\xfe\x80\n", "\"info\"\n",
		"{\"cmd\":\"info\",\"cmd\":\"cancel\"}\n", "{\"cmd\":\"in\\u0000fo\"}\n", "7\n",
	};
	struct served *served = *state;
	int fd = client(served);

	for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
		put(served, fd, garbage[i]);
		assert_error(fd, "line \\\"");
	}
	assert_int_equal(served->requests, 0);
	assert_only_answers(served, fd);
	close(fd);
	turn(served);
}

static void test_too_long_a_line_ends_the_connection_alone(void **state)
{
	struct served *served = *state;
	int fd = client(served), other = client(served);
	char line[CONTROL_LINE_MAX + 3];

	memset(line, ' ', sizeof(line));
	strcpy(line + CONTROL_LINE_MAX + 1, "\n");
	put(served, fd, line);
	turn(served);
	assert_error(fd, "more than 4096 characters");
	assert_null(got(fd));
	assert_int_equal(served->requests, 0);
	assert_only_answers(served, other);
	close(fd);
	close(other);
	turn(served);
}

static void test_a_hundred_connections_are_answered_or_refused(void **state)
{
	struct served *served = *state;
	int fds[CROWD];

	for (int i = 0; i < CROWD; i++) {
		fds[i] = client(served);
		turn(served);
	}
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		assert_only_answers(served, fds[i]);
	for (int i = CONTROL_CLIENTS_MAX; i < CROWD; i++) {
		assert_error(fds[i], "64 clients are connected, wanted fewer");
		assert_null(got(fds[i]));
	}
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		assert_int_equal(write(fds[i], "\n", 1), 1);
	for (int i = 0; i < CROWD; i++)
		close(fds[i]);
	fds[0] = client(served);
	assert_only_answers(served, fds[0]);
	close(fds[0]);
	turn(served);
}

static void test_who_watches_hears_all_until_the_last(void **state)
{
	struct served *served = *state;
	int fd = client(served), other = client(served);

	assert_false(control_watched(NULL));
	assert_false(control_watched(served->control));
	put(served, fd, "{\"cmd\":\"watch\"}\n");
	assert_string_equal(got(fd), "{\"ok\":true,\"kind\":3}\n");
	assert_true(control_watched(served->control));
	shutdown(fd, SHUT_WR);
	turn(served);
	control_tell(served->control, json_pack("{s:s}", "event", "state"), false);
	control_tell(served->control, json_pack("{s:s}", "event", "end"), true);
	control_tell(served->control, json_pack("{s:s}", "event", "state"), false);
	turn(served);
	assert_string_equal(got(fd), "{\"event\":\"state\"}\n{\"event\":\"end\"}\n");
	assert_false(control_watched(served->control));
	assert_string_equal(got(other), "");
	close(fd);
	close(other);
	turn(served);
}

static void test_a_watcher_that_does_not_read_is_dropped(void **state)
{
	struct served *served = *state;
	int fd = client(served), good = client(served);
	char big[1024];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	put(served, fd, "{\"cmd\":\"watch\"}\n");
	for (int i = 0; i < 4000 && control_watched(served->control); i++)
		control_tell(served->control, json_pack("{s:s}", "event", big), false);
	assert_false(control_watched(served->control));
	turn(served);
	assert_only_answers(served, good);
	close(fd);
	close(good);
	turn(served);
}

static void test_a_client_that_leaves_without_reading_does_no_harm(void **state)
{
	struct served *served = *state;
	int fd = client(served), other;

	assert_true(write(fd, "{\"cmd\":\"watch\"}\n{\"cmd\":\"info\"}\n", 31) == 31);
	close(fd);
	turn(served);
	control_tell(served->control, json_pack("{s:s}", "event", "state"), false);
	turn(served);
	assert_false(control_watched(served->control));
	other = client(served);
	assert_only_answers(served, other);
	close(other);
	turn(served);
}

static void test_only_a_dead_socket_is_replaced(void **state)
{
	struct served *served = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct control *control;
	char path[80], *error;
	FILE *file;
	int fd;

	assert_null(control_open(served->path, serve, served, &error));
	assert_non_null(strstr(error, "somebody listens at it, wanted nothing there"));
	free(error);

	snprintf(path, sizeof(path), "%s/n", served->folder);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	control = control_open(path, serve, served, &error);
	assert_non_null(control);
	control_close(control);

	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	assert_null(control_open(path, serve, served, &error));
	assert_non_null(strstr(error, "no socket"));
	free(error);
	unlink(path);
}

static void test_the_default_is_in_the_runtime_folder(void **state)
{
	struct served *served = *state;
	struct control *control;
	char *error, *path;

	setenv("XDG_RUNTIME_DIR", served->folder, 1);
	control = control_open_default(serve, served, &error);
	assert_non_null(control);
	path = runtime_file(served->folder, getpid(), RUNTIME_SOCKET);
	assert_int_equal(access(path, F_OK), 0);
	control_close(control);
	assert_int_equal(access(path, F_OK), -1);
	free(path);
	unsetenv("XDG_RUNTIME_DIR");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_only_its_owner_can_connect),
		test(test_each_line_has_its_reply_in_order),
		test(test_garbage_is_told_and_changes_nothing),
		test(test_too_long_a_line_ends_the_connection_alone),
		test(test_a_hundred_connections_are_answered_or_refused),
		test(test_who_watches_hears_all_until_the_last),
		test(test_a_watcher_that_does_not_read_is_dropped),
		test(test_a_client_that_leaves_without_reading_does_no_harm),
		test(test_only_a_dead_socket_is_replaced),
		test(test_the_default_is_in_the_runtime_folder),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
