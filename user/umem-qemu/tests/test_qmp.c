// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct peer {
	struct qmp qmp;
	int ours, theirs;
	int fd;			/* a descriptor that came with a command */
	char sent[1 << 16];	/* what came last */
	unsigned int readies;
	char ready_error[64];
	char event[64];
	char event_data[64];
	uint64_t event_us;
	char replies[512];	/* "1:ok 2:words " */
};

static void ready(void *context, const char *error)
{
	struct peer *peer = context;

	peer->readies++;
	snprintf(peer->ready_error, sizeof(peer->ready_error), "%s", error ? error : "");
}

static void event(void *context, const struct qmp_event *event)
{
	struct peer *peer = context;
	const char *status = json_string_value(json_object_get(event->data, "status"));

	snprintf(peer->event, sizeof(peer->event), "%s", event->name);
	snprintf(peer->event_data, sizeof(peer->event_data), "%s", status ? status : "");
	peer->event_us = event->time_us;
}

static const struct qmp_ops ops = { .ready = ready, .event = event };

struct tag {
	struct peer *peer;
	int number;
};

static void reply(void *context, json_t *result, const char *error)
{
	struct tag *tag = context;
	const char *text = json_is_string(result) ? json_string_value(result) : "ok";
	size_t used = strlen(tag->peer->replies);

	assert_true(!!result != !!error);
	snprintf(tag->peer->replies + used, sizeof(tag->peer->replies) - used, "%d:%s ",
		 tag->number, error ? error : text);
}

static int setup(void **state)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
		return -1;
	peer->ours = fds[0];
	peer->theirs = fds[1];
	peer->fd = -1;
	qmp_init(&peer->qmp, peer->ours, &ops, peer);
	*state = peer;
	return 0;
}

static int teardown(void **state)
{
	struct peer *peer = *state;

	qmp_destroy(&peer->qmp);
	close(peer->ours);
	close(peer->theirs);
	if (peer->fd >= 0)
		close(peer->fd);
	free(peer);
	return 0;
}

static void put(struct peer *peer, const char *text)
{
	assert_int_equal(write(peer->theirs, text, strlen(text)), strlen(text));
	assert_int_equal(qmp_receive(&peer->qmp), 1);
}

/* What QEMU would read now, with the descriptor that came along. */
static ssize_t take(struct peer *peer)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { peer->sent, sizeof(peer->sent) - 1 };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t n = recvmsg(peer->theirs, &message, 0);

	peer->sent[n > 0 ? n : 0] = '\0';
	header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&peer->fd, CMSG_DATA(header), sizeof(int));
	return n;
}

static void greet(struct peer *peer)
{
	put(peer, "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n");
	take(peer);
	put(peer, "{\"return\": {}, \"id\": 1}\r\n");
}

static void test_greeting_is_answered_by_qmp_capabilities(void **state)
{
	struct peer *peer = *state;

	put(peer, "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n");
	take(peer);
	assert_string_equal(peer->sent, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
	assert_int_equal(peer->readies, 0);
	put(peer, "{\"return\": {}, \"id\": 1}\r\n");
	assert_int_equal(peer->readies, 1);
	assert_string_equal(peer->ready_error, "");
}

/* Who adopts a QEMU that waits for a page has something to ask before it says hello. */
static void test_what_is_asked_before_the_greeting_comes_after_it(void **state)
{
	struct peer *peer = *state;
	struct tag tags[2] = { { peer, 1 }, { peer, 2 } };

	qmp_execute(&peer->qmp, "x", NULL, -1, reply, &tags[0]);
	qmp_execute(&peer->qmp, "y", NULL, -1, reply, &tags[1]);
	assert_false(qmp_unsent(&peer->qmp));
	assert_int_equal(take(peer), -1);
	put(peer, "{\"QMP\": {}}\n");
	qmp_execute(&peer->qmp, "z", NULL, -1, NULL, NULL);
	take(peer);
	assert_string_equal(peer->sent, "{\"execute\":\"qmp_capabilities\",\"id\":3}\n"
			    "{\"execute\":\"x\",\"id\":1}\n{\"execute\":\"y\",\"id\":2}\n"
			    "{\"execute\":\"z\",\"id\":4}\n");
	put(peer, "{\"return\": {}, \"id\": 3}\n{\"return\": {}, \"id\": 1}\n");
	put(peer, "{\"return\": {}, \"id\": 2}\n");
	assert_int_equal(peer->readies, 1);
	assert_string_equal(peer->replies, "1:ok 2:ok ");
}

static void test_refused_capabilities_are_told(void **state)
{
	struct peer *peer = *state;

	put(peer, "{\"QMP\": {}}\n{\"error\": {\"class\": \"x\", \"desc\": \"no\"}, \"id\": 1}\n");
	assert_string_equal(peer->ready_error, "no");
}

static void test_replies_find_their_commands_by_id(void **state)
{
	struct peer *peer = *state;
	struct tag tags[3] = { { peer, 1 }, { peer, 2 }, { peer, 3 } };

	greet(peer);
	for (int i = 0; i < 3; i++)
		qmp_execute(&peer->qmp, "x", NULL, -1, reply, &tags[i]);
	put(peer, "{\"return\": \"b\", \"id\": 3}\n{\"error\": {\"desc\": \"no\"}, \"id\": 4}\n");
	put(peer, "{\"return\": {}, \"id\": 2}\n");
	assert_string_equal(peer->replies, "2:b 3:no 1:ok ");
}

static void test_unknown_id_disturbs_nobody(void **state)
{
	struct peer *peer = *state;
	struct tag tag = { peer, 1 };

	greet(peer);
	qmp_execute(&peer->qmp, "x", NULL, -1, reply, &tag);
	put(peer, "{\"return\": {}, \"id\": 99}\n{\"error\": {\"desc\": \"x\"}}\n");
	assert_string_equal(peer->replies, "");
	put(peer, "{\"error\": {}, \"id\": 2}\n");
	assert_string_equal(peer->replies, "1:QEMU gave no reason ");
}

static void test_events_come_with_name_data_and_time(void **state)
{
	struct peer *peer = *state;

	put(peer, "{\"timestamp\": {\"seconds\": 1763695800, \"microseconds\": 123456}, \"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}\n");
	assert_string_equal(peer->event, "MIGRATION");
	assert_string_equal(peer->event_data, "active");
	assert_int_equal(peer->event_us, 1763695800123456);
	put(peer, "{\"timestamp\": {\"seconds\": -1, \"microseconds\": -1}, \"event\": \"STOP\"}\n");
	assert_string_equal(peer->event, "STOP");
	assert_int_equal(peer->event_us, 0);
}

static void test_arguments_are_sent(void **state)
{
	struct peer *peer = *state;

	greet(peer);
	qmp_execute(&peer->qmp, "migrate", json_pack("{s:s}", "uri", "fd:\n"), -1, NULL, NULL);
	take(peer);
	assert_string_equal(peer->sent, "{\"execute\":\"migrate\",\"id\":2,\"arguments\":{\"uri\":\"fd:\\n\"}}\n");
}

static void test_descriptor_goes_with_its_command_and_is_closed_here(void **state)
{
	struct peer *peer = *state;
	int fds[2];
	char c;

	greet(peer);
	assert_int_equal(pipe(fds), 0);
	qmp_execute(&peer->qmp, "getfd", NULL, fds[1], NULL, NULL);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	take(peer);
	assert_true(peer->fd >= 0);
	assert_int_equal(write(peer->fd, "!", 1), 1);
	assert_int_equal(read(fds[0], &c, 1), 1);
	close(peer->fd);
	peer->fd = -1;
	assert_int_equal(read(fds[0], &c, 1), 0);
	close(fds[0]);
}

static void test_what_does_not_fit_is_sent_later_and_in_order(void **state)
{
	struct peer *peer = *state;
	char *filler = malloc(100000);
	unsigned int lines = 0;
	int fds[2];

	greet(peer);
	memset(filler, 'x', 99999);
	filler[99999] = '\0';
	for (int i = 0; i < 20; i++)
		qmp_execute(&peer->qmp, "x", json_pack("{s:s}", "f", filler), -1, NULL, NULL);
	assert_int_equal(pipe(fds), 0);
	qmp_execute(&peer->qmp, "getfd", NULL, fds[1], NULL, NULL);
	assert_true(qmp_unsent(&peer->qmp));
	assert_int_equal(qmp_flush(&peer->qmp), -EAGAIN);
	for (;;) {
		if (take(peer) <= 0 && !qmp_unsent(&peer->qmp))
			break;
		for (const char *c = peer->sent; *c; c++)
			lines += *c == '\n';
		qmp_flush(&peer->qmp);
	}
	assert_int_equal(lines, 21);
	assert_true(peer->fd >= 0);
	close(fds[0]);
	free(filler);
}

static void test_half_a_line_waits_for_its_end(void **state)
{
	struct peer *peer = *state;

	put(peer, "{\"event\": \"ST");
	assert_string_equal(peer->event, "");
	put(peer, "OP\"}\n");
	assert_string_equal(peer->event, "STOP");
}

static void test_nonsense_is_passed_over(void **state)
{
	struct peer *peer = *state;

	put(peer, "rubbish\n[1]\n{}\n{\"event\": 5}\n{\"event\": \"STOP\"}\n");
	assert_string_equal(peer->event, "STOP");
}

static void test_close_is_seen_and_open_commands_get_an_error(void **state)
{
	struct peer *peer = *state;
	struct tag tag = { peer, 7 };

	greet(peer);
	qmp_execute(&peer->qmp, "x", NULL, -1, reply, &tag);
	shutdown(peer->theirs, SHUT_RDWR);
	assert_int_equal(qmp_receive(&peer->qmp), 0);
	assert_string_equal(peer->replies, "");
	qmp_destroy(&peer->qmp);
	assert_string_equal(peer->replies, "7:QEMU is gone ");
	qmp_init(&peer->qmp, peer->ours, &ops, peer);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_greeting_is_answered_by_qmp_capabilities),
		test(test_what_is_asked_before_the_greeting_comes_after_it),
		test(test_refused_capabilities_are_told),
		test(test_replies_find_their_commands_by_id),
		test(test_unknown_id_disturbs_nobody),
		test(test_events_come_with_name_data_and_time),
		test(test_arguments_are_sent),
		test(test_descriptor_goes_with_its_command_and_is_closed_here),
		test(test_what_does_not_fit_is_sent_later_and_in_order),
		test(test_half_a_line_waits_for_its_end),
		test(test_nonsense_is_passed_over),
		test(test_close_is_seen_and_open_commands_get_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
