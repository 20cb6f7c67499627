// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"
#include "umemd/tests/folder.h"

/* Both ends of a stream, in one loop. */
struct ends {
	struct loop loop;
	struct stream *source, *destination;
	int opened[MUX_CHANNELS];
	unsigned int nr_opened;
	char folder[64];
	struct credentials *credentials[2];
};

static struct ends ends;
static char error[CODEC_ERROR_MAX];

static void opened(void *owner, int fd)
{
	(void)owner;
	ends.opened[ends.nr_opened++] = fd;
}

static struct stream *open_uri(const char *text, bool accepts)
{
	char why[URI_ERROR_MAX];
	struct uri uri;

	assert_int_equal(uri_parse(&uri, text, why, sizeof(why)), 0);
	return stream_open(&ends.loop, &uri, ends.credentials[accepts], accepts ? opened : NULL, NULL, error);
}

static struct stream *open_fd(int fd, bool accepts)
{
	char text[16];

	sprintf(text, "fd:%d", fd);
	return open_uri(text, accepts);
}

static int setup(void **state)
{
	(void)state;
	memset(&ends, 0, sizeof(ends));
	return loop_init(&ends.loop);
}

static int setup_tls(void **state)
{
	struct credentials_setup wanted = { .kind = CREDENTIALS_PSK, .folder = ends.folder };

	if (setup(state) || !mkdtemp(strcpy(ends.folder, "/tmp/umem-test-stream-XXXXXX")))
		return -1;
	folder_keys(ends.folder, NULL);
	for (int i = 0; i < 2; i++)
		ends.credentials[i] = credentials_load(&wanted, i, error);
	return !ends.credentials[0] || !ends.credentials[1];
}

static void open_ends(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ends.source = open_fd(pair[0], false);
	ends.destination = open_fd(pair[1], true);
	assert_non_null(ends.source);
	assert_non_null(ends.destination);
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < ends.nr_opened; i++)
		close(ends.opened[i]);
	stream_close(ends.source);
	stream_close(ends.destination);
	loop_destroy(&ends.loop);
	for (int i = 0; i < 2; i++)
		credentials_free(ends.credentials[i]);
	folder_remove(ends.folder);
	return 0;
}

static void turn(void)
{
	if (ends.source)
		stream_turn(ends.source);
	if (ends.destination)
		stream_turn(ends.destination);
	assert_int_equal(loop_turn(&ends.loop, NSEC_PER_MSEC), 0);
}

static void turns(int count)
{
	while (count--)
		turn();
}

/* A channel of which both sides are known. */
static int connect_channel(enum channel_kind kind, int *far)
{
	unsigned int before = ends.nr_opened;
	char byte;
	int near;

	assert_int_equal(stream_connect(ends.source, kind, &near), 0);
	assert_int_equal(write(near, "!", 1), 1);
	for (int i = 0; i < 100 && ends.nr_opened == before; i++)
		turn();
	assert_int_equal(ends.nr_opened, before + 1);
	*far = ends.opened[before];
	for (int i = 0; i < 100 && recv(*far, &byte, 1, MSG_PEEK) != 1; i++)
		turn();
	assert_int_equal(read(*far, &byte, 1), 1);
	return near;
}

static void test_bytes_pass_both_ways_and_ends_too(void **state)
{
	char text[8] = "";
	int near, far;

	(void)state;
	open_ends();
	near = connect_channel(CHANNEL_CONTROL, &far);
	assert_int_equal(write(far, "answer", 6), 6);
	turns(10);
	assert_int_equal(read(near, text, sizeof(text)), 6);
	assert_memory_equal(text, "answer", 6);

	shutdown(far, SHUT_WR);
	turns(10);
	assert_int_equal(read(near, text, sizeof(text)), 0);
	assert_int_equal(write(near, "late", 4), 4);
	turns(10);
	assert_int_equal(read(far, text, sizeof(text)), 4);
	close(near);
	turns(10);
	assert_int_equal(read(far, text, sizeof(text)), 0);
	assert_true(stream_is_over(ends.source));
	assert_true(stream_is_over(ends.destination));
	assert_null(stream_broken(ends.source));
}

static void test_channel_that_nobody_reads_holds_up_no_other(void **state)
{
	static char chunk[65536];
	int bulk, bulk_far, urgent, urgent_far, idle = 0;
	size_t sent = 0, got = 0;
	ssize_t n;

	(void)state;
	open_ends();
	bulk = connect_channel(CHANNEL_BULK, &bulk_far);
	urgent = connect_channel(CHANNEL_URGENT, &urgent_far);
	while (idle < 20) {
		memset(chunk, (int)(sent / sizeof(chunk)), sizeof(chunk));
		n = write(bulk, chunk, sizeof(chunk));
		sent += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		turn();
	}
	assert_in_range(sent, MUX_WINDOW, 2 * MUX_WINDOW);

	for (int i = 0; i < 300; i++) {
		assert_int_equal(write(urgent, chunk, 16384), 16384);
		for (n = 0; n < 16384;) {
			ssize_t part = read(urgent_far, chunk, sizeof(chunk));

			n += part > 0 ? part : 0;
			turn();
		}
	}
	for (idle = 0; idle < 50 && got < sent;) {
		n = read(bulk_far, chunk, sizeof(chunk));
		got += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		turn();
	}
	assert_int_equal(got, sent);
	close(bulk);
	close(urgent);
}

static void test_channel_that_was_closed_takes_and_drops(void **state)
{
	static char chunk[65536];
	size_t sent = 0;
	int near, far;

	(void)state;
	open_ends();
	near = connect_channel(CHANNEL_BULK, &far);
	close(far);
	ends.nr_opened = 0;
	while (sent < 4 * MUX_WINDOW) {
		ssize_t n = write(near, chunk, sizeof(chunk));

		sent += n > 0 ? (size_t)n : 0;
		turn();
	}
	assert_int_equal(read(near, chunk, 1), 0);
	close(near);
}

static void test_what_was_said_last_arrives(void **state)
{
	char text[8] = "";
	int near, far;

	(void)state;
	open_ends();
	near = connect_channel(CHANNEL_CONTROL, &far);
	assert_int_equal(write(near, "error", 5), 5);
	close(near);
	shutdown(far, SHUT_WR);
	turns(2);
	stream_close(ends.source);
	ends.source = NULL;
	turns(10);
	assert_int_equal(read(far, text, sizeof(text)), 5);
	assert_memory_equal(text, "error", 5);
	assert_int_equal(read(far, text, sizeof(text)), 0);
	assert_true(stream_is_over(ends.destination));
}

static void expect_broken(const char *sent, size_t size, const char *part)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ends.destination = open_fd(pair[0], true);
	assert_int_equal(write(pair[1], sent, size), size);
	shutdown(pair[1], SHUT_WR);
	turns(10);
	assert_non_null(stream_broken(ends.destination));
	if (!strstr(stream_broken(ends.destination), part))
		fail_msg("said \"%s\", wanted \"%s\"", stream_broken(ends.destination), part);
	stream_close(ends.destination);
	ends.destination = NULL;
	close(pair[1]);
}

static void test_nonsense_breaks_the_stream_and_is_told(void **state)
{
	(void)state;
	expect_broken("SSH-2.0-OpenSSH\r\n", 17, "got \"SSH-2.0-\", wanted \"UMUX\"; this is an SSH server");
	expect_broken("UMEM\r\n\x1a\n", 8, "this is a connection of tcp: or unix:");
	expect_broken("hello", 5, "got \"hello\", wanted \"UMUX\"");
	expect_broken("UMUX\r\n\x1a\n\x07\x01\0\0\x01\0\0\0", 16, "channel 7, wanted 0 to 2");
	expect_broken("UMUX\r\n\x1a\n", 8, "the stream ended");
}

/* One end has no TLS: both say so. */
static void expect_mixed(bool tls_at_destination)
{
	struct stream *with, *without;

	credentials_free(ends.credentials[!tls_at_destination]);
	ends.credentials[!tls_at_destination] = NULL;
	open_ends();
	with = tls_at_destination ? ends.destination : ends.source;
	without = tls_at_destination ? ends.source : ends.destination;
	turns(20);
	assert_non_null(stream_broken(with));
	assert_string_equal(stream_broken(with),
			    "it speaks without TLS, wanted TLS: set tls-creds at both sides");
	assert_non_null(stream_broken(without));
	assert_non_null(strstr(stream_broken(without), "it speaks TLS, wanted none"));
}

static void test_tls_at_the_source_only(void **state)
{
	(void)state;
	expect_mixed(false);
}

static void test_tls_at_the_destination_only(void **state)
{
	(void)state;
	expect_mixed(true);
}

static void test_command_is_told_with_its_end(void **state)
{
	(void)state;
	ends.source = open_uri("exec:exit 7", false);
	for (int i = 0; i < 2000 && !stream_broken(ends.source); i++)
		turn();
	assert_non_null(strstr(stream_broken(ends.source), "the command exited with status 7"));
	stream_close(ends.source);
	ends.source = open_uri("exec:kill -9 $$", false);
	for (int i = 0; i < 2000 && !stream_broken(ends.source); i++)
		turn();
	assert_non_null(strstr(stream_broken(ends.source), "was killed by signal 9 (Killed)"));
}

static void test_unfit_descriptors_are_refused(void **state)
{
	int pair[2];

	(void)state;
	assert_int_equal(pipe(pair), 0);
	assert_null(open_fd(pair[0], false));
	assert_non_null(strstr(error, "open for reading only, wanted both directions"));
	assert_null(open_fd(pair[1], false));
	assert_non_null(strstr(error, "open for writing only"));
	close(pair[0]);
	close(pair[1]);
	assert_null(open_fd(pair[0], false));
	assert_non_null(strstr(error, "is not open, wanted one that was inherited"));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define tls_test(name) { #name " with TLS", name, setup_tls, teardown, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_bytes_pass_both_ways_and_ends_too),
		test(test_channel_that_nobody_reads_holds_up_no_other),
		test(test_channel_that_was_closed_takes_and_drops),
		test(test_what_was_said_last_arrives),
		test(test_nonsense_breaks_the_stream_and_is_told),
		test(test_command_is_told_with_its_end),
		test(test_unfit_descriptors_are_refused),
		tls_test(test_bytes_pass_both_ways_and_ends_too),
		tls_test(test_channel_that_nobody_reads_holds_up_no_other),
		tls_test(test_channel_that_was_closed_takes_and_drops),
		tls_test(test_what_was_said_last_arrives),
		tls_test(test_tls_at_the_source_only),
		tls_test(test_tls_at_the_destination_only),
	};

	signal(SIGPIPE, SIG_IGN);	/* as the program does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
