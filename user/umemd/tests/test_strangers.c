// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/strangers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "umemd/tests/cmocka_first.h"
#include "umemd/tests/folder.h"

#define MINE	7	/* an origin, and that of */
#define THEIRS	8	/* somebody else */

static struct loop loop;
static struct launcher launcher;
static struct strangers strangers;
static struct jsonl heard;	/* by the launcher's other end */
static int control[2];
static unsigned int introductions;
static struct channel *adopted;
static struct credentials *credentials[2];	/* client, server */
static char folder[64];

static void introduced(void *owner, struct stranger *stranger)
{
	assert_ptr_equal(owner, &introductions);
	introductions++;
	if (stranger->channel->frame.type == FRAME_JOIN) {
		assert_null(adopted);
		adopted = strangers_release(stranger);
	} else {
		strangers_refuse(stranger, REFUSE_BUSY, "not now");
	}
}

static int setup(void **state)
{
	(void)state;
	log_init("test", LOG_LEVEL_ERROR);
	introductions = 0;
	if (loop_init(&loop) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
		return -1;
	fcntl(control[1], F_SETFL, O_NONBLOCK);
	memset(&launcher, 0, sizeof(launcher));
	jsonl_init(&heard, control[1], 65536, 65536);
	strangers_init(&strangers, &loop, &launcher, introduced, &introductions);
	return launcher_init(&launcher, &loop, control[0]);
}

static int teardown(void **state)
{
	(void)state;
	channel_free(&loop, adopted);
	adopted = NULL;
	strangers_destroy(&strangers);
	for (int i = 0; i < 2; i++) {
		credentials_free(credentials[i]);
		credentials[i] = NULL;
	}
	if (folder[0])
		folder_remove(folder);
	folder[0] = '\0';
	launcher_finish(&launcher);
	jsonl_destroy(&heard);
	close(control[0]);
	close(control[1]);
	loop_destroy(&loop);
	return 0;
}

/* Our end of one that has come. */
static int come(uint64_t origin)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	strangers_add(&strangers, pair[1], "somebody", origin);
	return pair[0];
}

static void turn(void)
{
	strangers_set_wants(&strangers);
	assert_int_equal(loop_turn(&loop, 0), 0);
}

static bool is_there(int fd)
{
	char bytes[256];
	ssize_t n;

	do {
		n = read(fd, bytes, sizeof(bytes));
	} while (n > 0);
	return n < 0 && errno == EAGAIN;
}

/* Messages to the launcher, and whether one has @part. */
static unsigned int messages(const char *part, bool *found)
{
	char error[JSONL_ERROR_MAX];
	unsigned int count = 0;
	json_t *object;

	*found = false;
	jsonl_receive(&heard);
	while (jsonl_next(&heard, &object, error) == 1) {
		const char *text = json_string_value(json_object_get(object, "message"));

		count++;
		*found |= strstr(text, part) != NULL;
		json_decref(object);
	}
	return count;
}

static void expect_message(const char *part)
{
	bool found;

	messages(part, &found);
	if (!found)
		fail_msg("nobody said \"%s\"", part);
}

static const uint8_t join[MAGIC_SIZE + FRAME_HEADER + JOIN_BYTES] = {
	'U', 'M', 'E', 'M', '\r', '\n', 0x1a, '\n', FRAME_JOIN, 0, 0, 0, JOIN_BYTES,
	[MAGIC_SIZE + FRAME_HEADER + SESSION_SIZE] = CHANNEL_URGENT,
};

static void test_one_that_speaks_byte_by_byte_is_heard(void **state)
{
	int fd = come(MINE);

	(void)state;
	for (size_t i = 0; i < sizeof(join); i++) {
		assert_int_equal(introductions, 0);
		assert_int_equal(write(fd, &join[i], 1), 1);
		turn();
		turn();
	}
	assert_int_equal(introductions, 1);
	assert_non_null(adopted);
	assert_false(strangers_any(&strangers));
	close(fd);
}

static void test_what_is_no_introduction_is_refused(void **state)
{
	uint8_t pages[sizeof(join)];
	int fd = come(MINE);

	(void)state;
	memcpy(pages, join, sizeof(join));
	pages[MAGIC_SIZE] = FRAME_STATE;
	assert_int_equal(write(fd, pages, sizeof(pages)), sizeof(pages));
	turn();
	assert_int_equal(introductions, 0);
	expect_message("frame STATE came first");
	/* It stays until it has read that, or for a moment. */
	assert_true(strangers_any(&strangers));
	close(fd);
	turn();
	turn();
	assert_false(strangers_any(&strangers));
}

/* The limits are those of a frame: nobody gets memory for more. */
static void test_a_long_introduction_is_refused_at_its_header(void **state)
{
	uint8_t hello[MAGIC_SIZE + FRAME_HEADER];
	int fd = come(MINE);

	(void)state;
	memcpy(hello, join, sizeof(hello));
	hello[MAGIC_SIZE] = FRAME_HELLO;
	memset(hello + MAGIC_SIZE + 4, 0xff, 4);
	assert_int_equal(write(fd, hello, sizeof(hello)), sizeof(hello));
	turn();
	assert_int_equal(introductions, 0);
	expect_message("frame HELLO");
	close(fd);
}

static void want_tls(void)
{
	struct credentials_setup setup = { .kind = CREDENTIALS_PSK, .folder = folder };
	char error[CODEC_ERROR_MAX];

	strcpy(folder, "/tmp/umem-test-strangers-XXXXXX");
	assert_non_null(mkdtemp(folder));
	folder_keys(folder, NULL);
	for (int i = 0; i < 2; i++) {
		credentials[i] = credentials_load(&setup, i, error);
		if (!credentials[i])
			fail_msg("%s", error);
	}
	strangers.credentials = credentials[1];
}

static unsigned int answered(const int *fds, size_t count)
{
	unsigned int nr = 0;
	char byte;

	for (size_t i = 0; i < count; i++)
		nr += recv(fds[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
	return nr;
}

static void test_in_a_turn_one_hand_is_shaken(void **state)
{
	struct iovec hello = { (void *)(uintptr_t)join, sizeof(join) };
	struct tls *tls[3];
	int fds[3];

	(void)state;
	want_tls();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = come(MINE);
		tls[i] = tls_new(credentials[0], fds[i]);
		assert_int_equal(tls_handshake(tls[i]), -EAGAIN);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		assert_int_equal(answered(fds, ARRAY_SIZE(fds)), i);
		turn();
	}
	assert_int_equal(answered(fds, ARRAY_SIZE(fds)), 3);
	assert_int_equal(tls_handshake(tls[1]), 0);
	assert_int_equal(tls_send(tls[1], &hello, 1), sizeof(join));
	turn();
	assert_int_equal(introductions, 1);
	assert_non_null(adopted);
	strangers_tick(&strangers, now_ns() + STRANGERS_NS);
	expect_message("it did not make the handshake of TLS within 10 seconds");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		tls_free(tls[i]);
		close(fds[i]);
	}
}

/* An alert that a peer without TLS knows, too; closing at once could take it back. */
static void test_who_speaks_without_tls_can_read_why_it_is_refused(void **state)
{
	uint8_t got[16] = { 0 };
	int fd;

	(void)state;
	want_tls();
	fd = come(MINE);
	assert_int_equal(write(fd, join, sizeof(join)), sizeof(join));
	turn();
	expect_message("it speaks without TLS, wanted TLS");
	assert_true(strangers_any(&strangers));
	assert_true(read(fd, got, sizeof(got)) > 2);
	assert_memory_equal(got, ((uint8_t[]){ 21, 3 }), 2);
	assert_int_equal(read(fd, got, sizeof(got)), 0);
	strangers_tick(&strangers, now_ns() + STRANGERS_NS);
	assert_false(strangers_any(&strangers));
	close(fd);
}

static void test_the_silent_are_sent_away_when_their_time_is_over(void **state)
{
	int fd = come(MINE), slow = come(MINE);

	(void)state;
	assert_int_equal(write(slow, join, 20), 20);
	turn();
	strangers_tick(&strangers, now_ns() + STRANGERS_NS - NSEC_PER_SEC);
	assert_true(is_there(fd) && is_there(slow));
	assert_int_equal(write(slow, join + 20, 1), 1);
	turn();
	strangers_tick(&strangers, now_ns() + STRANGERS_NS);
	assert_false(is_there(fd) || is_there(slow));
	assert_false(strangers_any(&strangers));
	expect_message("it did not introduce itself within 10 seconds");
	close(fd);
	close(slow);
}

static void test_the_oldest_of_one_origin_gives_way(void **state)
{
	int fds[STRANGERS_MAX], last;

	(void)state;
	for (int i = 0; i < STRANGERS_MAX; i++)
		fds[i] = come(THEIRS);
	assert_true(is_there(fds[0]));
	last = come(THEIRS);
	assert_false(is_there(fds[0]));
	assert_true(is_there(fds[1]) && is_there(last));
	close(last);
	for (int i = 0; i < STRANGERS_MAX; i++)
		close(fds[i]);
}

static void test_a_crowd_takes_no_place_from_another_origin(void **state)
{
	int mine = come(MINE), fds[1000];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = come(THEIRS);
		if (i >= STRANGERS_MAX)
			close(fds[i - STRANGERS_MAX]);
	}
	assert_int_equal(write(mine, join, sizeof(join)), sizeof(join));
	for (int i = 0; i < STRANGERS_MAX && !introductions; i++)
		turn();
	assert_int_equal(introductions, 1);
	close(mine);
	for (size_t i = ARRAY_SIZE(fds) - STRANGERS_MAX; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void test_the_refused_give_way_before_all_others(void **state)
{
	uint8_t hello[MAGIC_SIZE + FRAME_HEADER + 40] = MAGIC;
	int fds[STRANGERS_MAX], refused;

	(void)state;
	hello[MAGIC_SIZE] = FRAME_HELLO;
	hello[MAGIC_SIZE + 4] = 40;
	hello[MAGIC_SIZE + 12] = 1;
	for (int i = 0; i < STRANGERS_MAX - 1; i++)
		fds[i] = come(THEIRS);
	refused = come(MINE);
	assert_int_equal(write(refused, hello, sizeof(hello)), sizeof(hello));
	turn();
	fds[STRANGERS_MAX - 1] = come(THEIRS);
	assert_false(is_there(refused));
	for (int i = 0; i < STRANGERS_MAX; i++) {
		assert_true(is_there(fds[i]));
		close(fds[i]);
	}
	close(refused);
}

static void test_a_flood_is_told_in_few_words(void **state)
{
	unsigned int count;
	bool found;

	(void)state;
	strangers_tick(&strangers, now_ns());
	for (int i = 0; i < 1000; i++) {
		int fd = come(THEIRS);

		assert_int_equal(write(fd, "GET / HT", 8), 8);
		turn();
		close(fd);
	}
	count = messages("this is a browser", &found);
	assert_true(found);
	assert_int_equal(count, 16);
	strangers_tick(&strangers, now_ns() + STRANGERS_NS);
	count = messages("984 more connections were sent away", &found);
	assert_true(found);
	assert_int_equal(count, 1);
}

/* Without descriptors the loop sleeps, and somebody gives way to whoever comes next. */
static void test_out_of_descriptors_it_is_quiet_and_makes_room(void **state)
{
	struct uri uri = { .kind = URI_TCP, .host = "127.0.0.1" };
	struct sockaddr_in there = { .sin_family = AF_INET };
	char actual[URI_TEXT_MAX], error[SOCKET_ERROR_MAX];
	struct rlimit before, few;
	unsigned int port = 0;
	int from, silent;

	(void)state;
	assert_int_equal(strangers_listen(&strangers, &uri, actual, error), 0);
	sscanf(actual, "tcp:127.0.0.1:%u", &port);
	there.sin_port = htons((uint16_t)port);
	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	silent = come(MINE);
	from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(from, (struct sockaddr *)&there, sizeof(there)), 0);
	assert_int_equal(write(from, join, sizeof(join)), sizeof(join));

	getrlimit(RLIMIT_NOFILE, &before);
	few = before;
	few.rlim_cur = (rlim_t)from + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	turn();
	assert_int_equal(strangers.listener.events, 0);
	assert_false(is_there(silent));
	strangers_tick(&strangers, now_ns());
	assert_int_equal(strangers.listener.events, EPOLLIN);
	turn();
	setrlimit(RLIMIT_NOFILE, &before);
	assert_int_equal(introductions, 1);
	close(from);
	close(silent);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_one_that_speaks_byte_by_byte_is_heard),
		test(test_what_is_no_introduction_is_refused),
		test(test_a_long_introduction_is_refused_at_its_header),
		test(test_in_a_turn_one_hand_is_shaken),
		test(test_who_speaks_without_tls_can_read_why_it_is_refused),
		test(test_the_silent_are_sent_away_when_their_time_is_over),
		test(test_the_oldest_of_one_origin_gives_way),
		test(test_a_crowd_takes_no_place_from_another_origin),
		test(test_the_refused_give_way_before_all_others),
		test(test_a_flood_is_told_in_few_words),
		test(test_out_of_descriptors_it_is_quiet_and_makes_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
