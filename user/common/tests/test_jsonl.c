// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/jsonl.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_LINE	8192
#define MAX_UNSENT	65536

struct pair {
	struct jsonl jsonl;
	int ours, theirs;
};

static int setup(void **state)
{
	static struct pair pair;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
		return -1;
	pair.ours = fds[0];
	pair.theirs = fds[1];
	jsonl_init(&pair.jsonl, pair.ours, MAX_LINE, MAX_UNSENT);
	*state = &pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	jsonl_destroy(&pair->jsonl);
	close(pair->ours);
	if (pair->theirs >= 0)
		close(pair->theirs);
	return 0;
}

static void put(struct pair *pair, const char *text)
{
	assert_int_equal(write(pair->theirs, text, strlen(text)), strlen(text));
	assert_int_equal(jsonl_receive(&pair->jsonl), 1);
}

static void expect_number(struct pair *pair, int wanted)
{
	char error[JSONL_ERROR_MAX];
	json_t *object;

	assert_int_equal(jsonl_next(&pair->jsonl, &object, error), 1);
	assert_int_equal(json_integer_value(json_object_get(object, "n")), wanted);
	json_decref(object);
}

static void expect_nothing(struct pair *pair)
{
	char error[JSONL_ERROR_MAX];
	json_t *object;

	assert_int_equal(jsonl_next(&pair->jsonl, &object, error), 0);
	assert_null(object);
}

static void test_several_objects_in_one_read(void **state)
{
	struct pair *pair = *state;

	put(pair, "{\"n\":1}\n\n{\"n\":2}\r\n{\"n\":");
	expect_number(pair, 1);
	expect_number(pair, 2);
	expect_nothing(pair);
	put(pair, "3}\n");
	expect_number(pair, 3);
	expect_nothing(pair);
	assert_int_equal(jsonl_receive(&pair->jsonl), -EAGAIN);
}

static void test_cut_at_every_byte(void **state)
{
	static const char text[] = "{\"n\":42}\n";
	struct pair *pair = *state;
	char one[2] = "";

	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		expect_nothing(pair);
		one[0] = text[i];
		put(pair, one);
	}
	expect_number(pair, 42);
}

static void test_end_of_stream(void **state)
{
	struct pair *pair = *state;

	close(pair->theirs);
	pair->theirs = -1;
	assert_int_equal(jsonl_receive(&pair->jsonl), 0);
	assert_int_equal(jsonl_send(&pair->jsonl, json_pack("{s:i}", "n", 1)), -EPIPE);
}

static void test_bad_lines_are_told_and_passed_over(void **state)
{
	struct pair *pair = *state;
	char error[JSONL_ERROR_MAX];
	json_t *object;

	put(pair, "GET / HTTP/1.1\n[1]\n{\"n\":1,\"n\":2}\n{\"n\":5}\n");
	assert_int_equal(jsonl_next(&pair->jsonl, &object, error), -EPROTO);
	assert_non_null(strstr(error, "line \"GET / HTTP/1.1\" is not JSON"));
	assert_int_equal(jsonl_next(&pair->jsonl, &object, error), -EPROTO);
	assert_non_null(strstr(error, "line \"[1]\" is not a JSON object"));
	assert_int_equal(jsonl_next(&pair->jsonl, &object, error), -EPROTO);
	assert_non_null(strstr(error, "duplicate"));
	expect_number(pair, 5);
}

static void test_a_line_without_end_is_refused(void **state)
{
	struct pair *pair = *state;
	char text[1025], error[JSONL_ERROR_MAX];
	json_t *object;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (size_t sent = 0; sent < MAX_LINE; sent += sizeof(text) - 1) {
		put(pair, text);
		expect_nothing(pair);
	}
	put(pair, "x");
	assert_int_equal(jsonl_next(&pair->jsonl, &object, error), -EMSGSIZE);
	assert_string_equal(error, "a line has more than 8192 characters");
}

static void test_objects_arrive_as_lines(void **state)
{
	struct pair *pair = *state;
	char seen[64] = "";

	assert_int_equal(jsonl_send(&pair->jsonl, json_pack("{s:s}", "event", "a\nb\x7f")), 0);
	assert_true(read(pair->theirs, seen, sizeof(seen) - 1) > 0);
	assert_string_equal(seen, "{\"event\":\"a\\nb\x7f\"}\n");
	assert_int_equal(jsonl_send(&pair->jsonl, NULL), -ENOMEM);
}

static void test_a_peer_that_does_not_read_is_bounded(void **state)
{
	struct pair *pair = *state;
	static char text[4000];
	char seen[65536];
	int sent = 0, err, newlines = 0;
	ssize_t n;

	memset(text, 'y', sizeof(text) - 1);
	while (!(err = jsonl_send(&pair->jsonl, json_pack("{s:s}", "t", text)))) {
		assert_true(jsonl_unsent(&pair->jsonl) <= MAX_UNSENT);
		assert_true(++sent < 1000);
	}
	assert_int_equal(err, -ENOBUFS);
	assert_true(jsonl_unsent(&pair->jsonl) > 0);
	assert_int_equal(jsonl_flush(&pair->jsonl), -EAGAIN);

	/* Nothing that was accepted is lost, nothing that was refused comes. */
	for (;;) {
		n = read(pair->theirs, seen, sizeof(seen));
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			newlines += seen[i] == '\n';
		jsonl_flush(&pair->jsonl);
	}
	assert_int_equal(jsonl_unsent(&pair->jsonl), 0);
	assert_int_equal(newlines, sent);
}

static void test_pipes_work_too(void **state)
{
	struct jsonl writer, reader;
	char error[JSONL_ERROR_MAX];
	json_t *object;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	jsonl_init(&writer, fds[1], MAX_LINE, MAX_UNSENT);
	jsonl_init(&reader, fds[0], MAX_LINE, MAX_UNSENT);
	assert_int_equal(jsonl_send(&writer, json_pack("{s:b}", "yes", 1)), 0);
	assert_int_equal(jsonl_receive(&reader), 1);
	assert_int_equal(jsonl_next(&reader, &object, error), 1);
	assert_true(json_is_true(json_object_get(object, "yes")));
	json_decref(object);
	jsonl_destroy(&writer);
	jsonl_destroy(&reader);
	close(fds[0]);
	close(fds[1]);
}

#define with_pair(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(test_several_objects_in_one_read),
		with_pair(test_cut_at_every_byte),
		with_pair(test_end_of_stream),
		with_pair(test_bad_lines_are_told_and_passed_over),
		with_pair(test_a_line_without_end_is_refused),
		with_pair(test_objects_arrive_as_lines),
		with_pair(test_a_peer_that_does_not_read_is_bounded),
		cmocka_unit_test(test_pipes_work_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
