// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/channel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "umemd/tests/cmocka_first.h"
#include "umemd/tests/folder.h"

static struct loop loop;
static struct channel *channel;
static int peer;
static uint64_t bytes;
static char error[CODEC_ERROR_MAX];
static uint16_t not_admitted;

static int admit(struct channel *asked, const struct frame *frame, char *text)
{
	assert_ptr_equal(asked, channel);
	if (frame->type != not_admitted)
		return 0;
	strcpy(text, "not here");
	return -EPROTO;
}

/* With TLS: of the peer. */
static char folder[64];
static struct credentials *credentials[2];
static struct tls *peer_tls;

static int setup(void **state)
{
	struct watch watch = { .priority = PRIORITY_CONTROL };
	int fds[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) || loop_init(&loop))
		return -1;
	bytes = 0;
	not_admitted = 0;
	channel = channel_new(fds[0], "peer", credentials[1], &bytes, &watch, admit);
	peer = fds[1];
	return channel ? channel_take_pages(channel) : -1;
}

static int setup_tls(void **state)
{
	struct credentials_setup wanted = { .kind = CREDENTIALS_PSK, .folder = folder };

	strcpy(folder, "/tmp/umem-test-channel-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	folder_keys(folder, NULL);
	for (int i = 0; i < 2; i++)
		credentials[i] = credentials_load(&wanted, i, error);
	if (!credentials[0] || !credentials[1] || setup(state))
		return -1;
	peer_tls = tls_new(credentials[0], peer);
	return !peer_tls;
}

static int teardown(void **state)
{
	(void)state;
	channel_free(&loop, channel);
	loop_destroy(&loop);
	tls_free(peer_tls);
	peer_tls = NULL;
	if (peer >= 0)
		close(peer);
	for (int i = 0; i < 2; i++) {
		credentials_free(credentials[i]);
		credentials[i] = NULL;
	}
	folder_remove(folder);
	return 0;
}

static void shake_hands(void)
{
	for (int i = 0; i < 20 && peer_tls && channel_shakes_hands(channel); i++) {
		assert_in_range(-tls_handshake(peer_tls), 0, EAGAIN);
		assert_int_equal(channel_receive(channel, error), -EAGAIN);
	}
	assert_false(channel_shakes_hands(channel));
	if (peer_tls && !tls_is_up(peer_tls))
		assert_int_equal(tls_handshake(peer_tls), 0);
}

static void put(const void *data, size_t size)
{
	struct iovec iov = { (void *)(uintptr_t)data, size };

	shake_hands();
	while (peer_tls && iov.iov_len) {
		ssize_t n = tls_send(peer_tls, &iov, 1);

		assert_true(n > 0);
		iov.iov_base = (uint8_t *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
	}
	if (!peer_tls)
		assert_int_equal(write(peer, data, size), size);
}

static ssize_t get(void *data, size_t size)
{
	shake_hands();
	return peer_tls ? tls_receive(peer_tls, data, size) : read(peer, data, size);
}

static size_t make_frame(uint8_t *out, struct frame frame, const void *payload)
{
	frame_encode(out, &frame);
	if (frame.length)
		memcpy(out + FRAME_HEADER, payload, frame.length);
	return FRAME_HEADER + frame.length;
}

static int receive(void)
{
	error[0] = '\0';
	return channel_receive(channel, error);
}

static void test_magic_goes_first(void **state)
{
	uint8_t seen[64];

	(void)state;
	assert_true(channel_busy(channel));
	assert_int_equal(channel_say(channel, FRAME_PING, 0), 0);
	assert_false(channel_busy(channel));
	assert_int_equal(read(peer, seen, sizeof(seen)), MAGIC_SIZE + FRAME_HEADER);
	assert_memory_equal(seen, MAGIC, MAGIC_SIZE);
	assert_int_equal(seen[MAGIC_SIZE], FRAME_PING);
	assert_int_equal(bytes, MAGIC_SIZE + FRAME_HEADER);
}

static void test_two_frames_at_once(void **state)
{
	uint8_t out[256];
	size_t size = 0;

	(void)state;
	memcpy(out, MAGIC, MAGIC_SIZE);
	size = MAGIC_SIZE;
	size += make_frame(out + size, (struct frame){ FRAME_STATE, 0, 5, 0, 0 }, "hello");
	size += make_frame(out + size, (struct frame){ .type = FRAME_STATE_END }, NULL);
	put(out, size);
	assert_int_equal(receive(), 1);
	assert_int_equal(channel->frame.type, FRAME_STATE);
	assert_memory_equal(channel->payload, "hello", 5);
	/* The second came along: no poll would tell of it. */
	assert_true(channel_has_frame(channel));
	assert_int_equal(receive(), 1);
	assert_int_equal(channel->frame.type, FRAME_STATE_END);
	assert_false(channel_has_frame(channel));
	assert_int_equal(receive(), -EAGAIN);
}

static void test_pages_cut_at_every_byte(void **state)
{
	static uint8_t page[PAGE_BYTES], out[3 * (PAGE_BYTES + 64)];
	uint8_t payload[2 * PAGES_ENTRY + PAGE_BYTES];
	const struct page_entry full = { 4096, 1, false, 0 }, zero = { 8192, 2, true, 0 };
	size_t size, frames = 0;
	int err;

	(void)state;
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t)(i * 7);
	page_entry_encode(payload, &full);
	page_entry_encode(payload + PAGES_ENTRY, &zero);
	memcpy(payload + 2 * PAGES_ENTRY, page, PAGE_BYTES);
	memcpy(out, MAGIC, MAGIC_SIZE);
	size = MAGIC_SIZE;
	for (int i = 0; i < 2; i++)
		size += make_frame(out + size,
				   (struct frame){ FRAME_PAGES, 0, sizeof(payload), 0, 2 }, payload);
	for (size_t i = 0; i < size; i++) {
		put(out + i, 1);
		while ((err = receive()) == 1) {
			frames++;
			assert_int_equal(channel->frame.type, FRAME_PAGES);
			assert_memory_equal(channel->payload, payload, 2 * PAGES_ENTRY);
			assert_memory_equal(channel->data, page, PAGE_BYTES);
			assert_int_equal((uintptr_t)channel->data % PAGE_BYTES, 0);
			memset(channel->data, 0, PAGE_BYTES);
		}
		assert_int_equal(err, -EAGAIN);
	}
	assert_int_equal(frames, 2);
	assert_int_equal(bytes, size + (peer_tls ? MAGIC_SIZE : 0));	/* it has sent that */
}

static void test_the_end_is_told_wherever_it_comes(void **state)
{
	uint8_t out[64];

	(void)state;
	memcpy(out, MAGIC, MAGIC_SIZE);
	put(out, MAGIC_SIZE);
	make_frame(out, (struct frame){ FRAME_STATE, 0, 5, 0, 0 }, "hello");
	put(out, FRAME_HEADER + 2);
	assert_int_equal(receive(), -EAGAIN);
	close(peer);
	peer = -1;
	assert_int_equal(receive(), 0);
	assert_string_equal(error, "the peer closed the connection");
	assert_int_equal(channel_say(channel, FRAME_PING, 0), -EPIPE);
}

static void test_the_end_within_the_magic_shows_what_came(void **state)
{
	(void)state;
	put("UM", 2);
	assert_int_equal(receive(), -EAGAIN);
	close(peer);
	peer = -1;
	assert_int_equal(receive(), -EPROTO);
	assert_non_null(strstr(error, "got \"UM\", wanted \"UMEM\""));
}

static void test_noise_is_refused(void **state)
{
	(void)state;
	put("GET / HTTP/1.1\r\n\r\n", 18);
	assert_int_equal(receive(), -EPROTO);
	assert_non_null(strstr(error, "got \"GET / HT\""));
}

static void test_a_hostile_length_takes_no_memory(void **state)
{
	uint8_t out[FRAME_HEADER];
	struct frame frame = { FRAME_STATE, 0, UINT32_MAX, 0, 0 };

	(void)state;
	frame_encode(out, &frame);
	put(MAGIC, MAGIC_SIZE);
	put(out, sizeof(out));
	assert_int_equal(receive(), -EPROTO);
	assert_non_null(strstr(error, "frame STATE has 4294967295 bytes"));
	assert_int_equal(channel->payload_room, 0);
}

static void test_who_is_not_admitted_gets_no_memory(void **state)
{
	uint8_t out[FRAME_HEADER];
	struct frame frame = { FRAME_STATE, 0, STATE_MAX, 0, 0 };

	(void)state;
	not_admitted = FRAME_STATE;
	frame_encode(out, &frame);
	put(MAGIC, MAGIC_SIZE);
	put(out, sizeof(out));
	assert_int_equal(receive(), -EPROTO);
	assert_string_equal(error, "not here");
	assert_int_equal(channel->payload_room, 0);
}

static void test_what_is_queued_is_bounded_and_complete(void **state)
{
	static uint8_t payload[STATE_MAX], seen[65536];
	struct frame frame = { FRAME_STATE, 0, STATE_MAX, 0, 0 };
	size_t got = 0;
	int sent = 0, err;
	ssize_t n;

	(void)state;
	while (!(err = channel_send(channel, &frame, payload)))
		assert_true(++sent < 1000);
	assert_int_equal(err, -ENOBUFS);
	assert_true(channel_queued(channel) <= CHANNEL_OUT_MAX);
	assert_int_equal(channel_flush(channel), -EAGAIN);
	for (;;) {
		n = get(seen, sizeof(seen));
		if (n <= 0)
			break;
		got += (size_t)n;
		channel_flush(channel);
	}
	assert_int_equal(got, MAGIC_SIZE + (size_t)sent * (FRAME_HEADER + STATE_MAX));
	assert_false(channel_busy(channel));
}

static void test_pages_leave_from_where_they_lie(void **state)
{
	static uint8_t pages[PAGES_MAX][PAGE_BYTES], seen[65536];
	uint8_t head[FRAME_HEADER + PAGES_MAX * PAGES_ENTRY];
	struct iovec iov[CHANNEL_IOV_MAX] = { { head, sizeof(head) } };
	size_t got = 0, wrong = 0, whole = MAGIC_SIZE + sizeof(head) + sizeof(pages);
	ssize_t n;

	(void)state;
	memset(head, 'h', sizeof(head));
	for (int i = 0; i < PAGES_MAX; i++) {
		memset(pages[i], i, PAGE_BYTES);
		iov[1 + i] = (struct iovec){ pages[i], PAGE_BYTES };
	}
	assert_int_equal(channel_send_pages(channel, iov, CHANNEL_IOV_MAX), 0);
	while (got < whole) {
		n = get(seen, sizeof(seen));
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++, got++) {
			if (got >= MAGIC_SIZE + sizeof(head))
				wrong += seen[i] != (got - MAGIC_SIZE - sizeof(head)) / PAGE_BYTES;
		}
		assert_in_range(-channel_flush(channel), 0, EAGAIN);
	}
	assert_int_equal(wrong, 0);
	assert_false(channel_busy(channel));
	assert_true(get(seen, sizeof(seen)) < 0);
}

static void test_tls_nothing_goes_before_the_handshake(void **state)
{
	uint8_t seen[64];

	(void)state;
	assert_int_equal(channel_say(channel, FRAME_PING, 0), 0);
	assert_true(channel_busy(channel));
	assert_true(channel_wants_write(channel));	/* to begin: a client has to */
	assert_int_equal(receive(), -EAGAIN);
	assert_false(channel_wants_write(channel));
	assert_int_equal(channel_flush(channel), -EAGAIN);
	assert_int_equal(read(peer, seen, sizeof(seen)), -1);
	assert_int_equal(bytes, 0);
	shake_hands();
	assert_false(channel_busy(channel));
	assert_int_equal(get(seen, sizeof(seen)), MAGIC_SIZE + FRAME_HEADER);
	assert_memory_equal(seen, MAGIC, MAGIC_SIZE);
	assert_int_equal(bytes, MAGIC_SIZE + FRAME_HEADER);
}

/* Three frames in a record: the first is taken, a poll tells of no other. */
static void test_tls_what_is_decrypted_is_told(void **state)
{
	uint8_t out[256];
	size_t size = MAGIC_SIZE;
	struct pollfd poll_fd = { .fd = channel->watch.fd, .events = POLLIN };
	int lowat = 0;
	socklen_t lowat_size = sizeof(lowat);

	(void)state;
	memcpy(out, MAGIC, MAGIC_SIZE);
	for (int i = 0; i < 3; i++)
		size += make_frame(out + size, (struct frame){ FRAME_STATE, 0, 5, 0, 0 }, "hello");
	put(out, size - 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(receive(), 1);
		assert_int_equal(poll(&poll_fd, 1, 0), 0);
		assert_true(channel_has_more(channel));
	}
	assert_int_equal(receive(), -EAGAIN);
	assert_false(channel_has_more(channel));
	/* Of the bytes that are there to poll for, none says how many come out. */
	assert_int_equal(getsockopt(channel->watch.fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, &lowat_size),
			 0);
	assert_int_equal(lowat, 1);
	put(out + size - 2, 2);
	assert_int_equal(receive(), 1);
}

static void test_tls_plain_peer_is_refused(void **state)
{
	uint8_t seen[16];

	(void)state;
	assert_int_equal(write(peer, MAGIC, MAGIC_SIZE), MAGIC_SIZE);
	assert_int_equal(receive(), -EPROTO);
	assert_string_equal(error, "it speaks without TLS, wanted TLS: set tls-creds at both sides");
	assert_int_equal(read(peer, seen, sizeof(seen)), 7);
	assert_int_equal(magic_check(seen, 7, MAGIC, error), -EPROTO);
	assert_non_null(strstr(error, "it speaks TLS, wanted none: set tls-creds at both sides, or at neither"));
}

static void test_tls_peer_is_refused_without(void **state)
{
	static const uint8_t hello[] = { 22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3 };

	(void)state;
	put(hello, sizeof(hello));
	assert_int_equal(receive(), -EPROTO);
	assert_non_null(strstr(error, "it speaks TLS, wanted none"));
}

#define channel_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define tls_test(f) { #f " with TLS", f, setup_tls, teardown, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		channel_test(test_magic_goes_first),
		channel_test(test_two_frames_at_once),
		channel_test(test_pages_cut_at_every_byte),
		channel_test(test_the_end_is_told_wherever_it_comes),
		channel_test(test_the_end_within_the_magic_shows_what_came),
		channel_test(test_noise_is_refused),
		channel_test(test_a_hostile_length_takes_no_memory),
		channel_test(test_who_is_not_admitted_gets_no_memory),
		channel_test(test_what_is_queued_is_bounded_and_complete),
		channel_test(test_pages_leave_from_where_they_lie),
		channel_test(test_tls_peer_is_refused_without),
		tls_test(test_two_frames_at_once),
		tls_test(test_pages_cut_at_every_byte),
		tls_test(test_noise_is_refused),
		tls_test(test_a_hostile_length_takes_no_memory),
		tls_test(test_what_is_queued_is_bounded_and_complete),
		tls_test(test_pages_leave_from_where_they_lie),
		tls_test(test_tls_nothing_goes_before_the_handshake),
		tls_test(test_tls_what_is_decrypted_is_told),
		tls_test(test_tls_plain_peer_is_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
