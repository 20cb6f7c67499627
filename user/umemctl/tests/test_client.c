// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/client.h"

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
#include <sys/un.h>
#include <unistd.h>

struct served {
	char folder[64], path[80];
	int listener, peer;
	struct client client;
};

static int setup(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct served *served = calloc(1, sizeof(*served));

	strcpy(served->folder, "/tmp/umem-test-client-XXXXXX");
	if (!mkdtemp(served->folder))
		return -1;
	snprintf(served->path, sizeof(served->path), "%s/c", served->folder);
	strcpy(address.sun_path, served->path);
	served->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(served->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(served->listener, 1) || client_open(&served->client, served->path))
		return -1;
	served->peer = accept(served->listener, NULL, NULL);
	*state = served;
	return 0;
}

static int teardown(void **state)
{
	struct served *served = *state;

	client_close(&served->client);
	if (served->peer >= 0)
		close(served->peer);
	close(served->listener);
	unlink(served->path);
	rmdir(served->folder);
	free(served);
	return 0;
}

/* What umem-qemu says is there before it is asked: one thread is enough. */
static void says(struct served *served, const char *text)
{
	assert_int_equal(write(served->peer, text, strlen(text)), strlen(text));
}

static json_t *ask(struct served *served, char **error)
{
	return client_ask(&served->client, json_pack("{s:s}", "cmd", "info"), error);
}

static void assert_fails(struct served *served, const char *words)
{
	char *error = NULL;

	assert_null(ask(served, &error));
	assert_non_null(error);
	if (!strstr(error, words))
		fail_msg("\"%s\" does not say \"%s\"", error, words);
	free(error);
}

static void test_a_command_is_a_line_and_its_reply_comes_back(void **state)
{
	struct served *served = *state;
	char line[100] = "", *error;
	json_t *reply;

	says(served, "{\"ok\":true,\"n\":5}\n{\"event\":\"end\"}\n");
	reply = ask(served, &error);
	assert_null(error);
	assert_int_equal(json_integer_value(json_object_get(reply, "n")), 5);
	json_decref(reply);
	assert_true(read(served->peer, line, sizeof(line) - 1) > 0);
	assert_string_equal(line, "{\"cmd\":\"info\"}\n");
	reply = client_next(&served->client, 0, &error);
	assert_string_equal(json_string_value(json_object_get(reply, "event")), "end");
	json_decref(reply);
	assert_null(client_next(&served->client, 10, &error));
	assert_non_null(strstr(error, "no answer in 10 ms"));
	free(error);
}

static void test_an_error_is_told_in_its_words(void **state)
{
	says(*state, "{\"error\":\"no migration is under way\"}\n");
	assert_fails(*state, "no migration is under way");
}

static void test_what_makes_no_sense_is_an_error(void **state)
{
	says(*state, "{\"ok\":1}\n");
	assert_fails(*state, "neither ok nor an error");
	says(*state, "{\"error\":\"\"}\n");
	assert_fails(*state, "neither ok nor an error");
	says(*state, "hello\n");
	assert_fails(*state, "line \"hello\" is not JSON");
}

static void test_a_closed_connection_is_told(void **state)
{
	struct served *served = *state;

	shutdown(served->peer, SHUT_WR);
	assert_fails(served, "has closed the connection");
	close(served->peer);
	served->peer = -1;
	assert_fails(served, "does not take the command");
}

static void test_nobody_there_is_an_errno(void **state)
{
	struct served *served = *state;
	struct client client;

	close(served->listener);
	assert_int_equal(client_open(&client, served->path), -ECONNREFUSED);
	assert_int_equal(client_open(&client, "/tmp/umem-test-not-there"), -ENOENT);
	served->listener = -1;
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_a_command_is_a_line_and_its_reply_comes_back),
		test(test_an_error_is_told_in_its_words),
		test(test_what_makes_no_sense_is_an_error),
		test(test_a_closed_connection_is_told),
		test(test_nobody_there_is_an_errno),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
