// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The one stream of fd: and exec: URIs: whatever comes on it, each channel gets what
 * was sent to it, in order, and nothing else; what goes out keeps to the rules.
 *
 * Input: 1 for the source (1), then steps: a byte of enum step and its arguments.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "umemd/stream.h"

#define SENT_MAX	(4 * 1024 * 1024)

enum step {
	STEP_RECORD,	/* channel, type (1), number (2): a header, and what it says follows */
	STEP_RAW,	/* length (1), bytes */
	STEP_SAY,	/* a role writes: channel, steps of 256 bytes (1) */
	STEP_READ,	/* a role reads: channel, steps of 256 bytes (1) */
	STEP_CLOSE,	/* a role goes: channel */
	STEP_CREDIT,	/* for all that came: channel */
	STEP_CONNECT,	/* the source opens: channel */
	STEP_END,	/* of the stream */
	STEPS
};

/**
 * struct role - who speaks on a channel of the stream
 * @fd: -1: not there, or gone
 * @number: the channel it turned out to be; the destination finds out by reading
 * @read: bytes that it read
 */
struct role {
	int fd, number;
	size_t read;
};

/* What was sent on a channel, as far as anyone can tell from outside. */
struct sent {
	uint8_t *bytes;
	size_t used;
};

static struct stream *stream;
static struct role roles[MUX_CHANNELS];
static struct sent sent[MUX_CHANNELS];
static struct mux mux;		/* of the other side; sends what it likes */
static uint64_t owed[MUX_CHANNELS];	/* credit for what came */
static uint8_t partial[MUX_HEADER];	/* of what was sent */
static size_t nr_partial;
static uint32_t data_left;
static uint8_t data_channel;
static uint8_t *out;
static size_t nr_out;
static uint32_t out_left;
static bool magic_sent, magic_seen;
static int peer;
static uint32_t value;		/* of the next byte, which does not repeat soon */

static void opened(void *owner, int fd)
{
	(void)owner;
	for (int i = 0; i < MUX_CHANNELS; i++) {
		if (roles[i].fd >= 0)
			continue;
		must(!fcntl(fd, F_SETFL, O_NONBLOCK));
		roles[i] = (struct role){ .fd = fd, .number = -1 };
		return;
	}
	close(fd);
}

/* The bytes as a demultiplexer without any rules would have them. */
static void note(const uint8_t *bytes, size_t size)
{
	uint32_t number;

	for (size_t i = 0; i < size; i++) {
		if (data_left) {
			struct sent *to = &sent[data_channel];

			must(to->used < SENT_MAX);
			to->bytes[to->used++] = bytes[i];
			data_left--;
			continue;
		}
		partial[nr_partial++] = bytes[i];
		if (!magic_sent && nr_partial == MAGIC_SIZE) {
			magic_sent = true;
			nr_partial = 0;
		} else if (magic_sent && nr_partial == MUX_HEADER) {
			nr_partial = 0;
			data_channel = partial[0] % MUX_CHANNELS;
			number = partial[4] | (uint32_t)partial[5] << 8 |
				 (uint32_t)partial[6] << 16 | (uint32_t)partial[7] << 24;
			if (partial[1] == MUX_DATA)
				data_left = number;
			/* More than was sent, and the stream breaks. */
			else if (partial[1] == MUX_CREDIT && number <= MUX_WINDOW)
				mux.channels[data_channel].allowed += number;
		}
	}
}

static void send_bytes(const uint8_t *bytes, size_t size)
{
	ssize_t n = send(peer, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0)
		note(bytes, (size_t)n);
}

static void send_record(uint8_t channel, uint8_t type, uint32_t number)
{
	static uint8_t bytes[MUX_HEADER + UINT16_MAX];
	struct mux_record record = { channel, type, number };
	size_t data = type == MUX_DATA ? number : 0;

	mux_encode(bytes, &record);
	for (size_t i = 0; i < data; i++)
		bytes[MUX_HEADER + i] = (uint8_t)((value = value * 1664525 + 1013904223) >> 24);
	send_bytes(bytes, MUX_HEADER + data);
}

/* What the stream says: records that may come, as the other side would see it. */
static void take_out(void)
{
	struct mux_record record;
	char error[CODEC_ERROR_MAX];
	size_t taken;

	for (;; nr_out -= taken, memmove(out, out + taken, nr_out)) {
		taken = min((size_t)out_left, nr_out);
		out_left -= (uint32_t)taken;
		if (taken)
			continue;
		if (nr_out < MUX_HEADER)
			return;
		taken = MUX_HEADER;
		if (!magic_seen) {
			must(!magic_check(out, MAGIC_SIZE, MUX_MAGIC, error));
			magic_seen = true;
			continue;
		}
		/* This side never sent anything by its own count: credit may come at any time. */
		if (out[1] == MUX_CREDIT) {
			must(out[0] < MUX_CHANNELS);
			continue;
		}
		must(!mux_receive(&mux, out, &record, error));
		if (record.type == MUX_DATA) {
			out_left = record.number;
			owed[record.channel] += record.number;
		}
	}
}

static void listen_to_stream(void)
{
	ssize_t n;

	while ((n = recv(peer, out + nr_out, STREAM_OUT_MAX, MSG_DONTWAIT)) > 0) {
		nr_out += (size_t)n;
		take_out();
	}
}

/* Whose bytes are these? The destination's roles know by the first only. */
static void take_in(struct role *role, const uint8_t *bytes, size_t size)
{
	bool any = false;

	for (int i = 0; i < MUX_CHANNELS; i++) {
		const struct sent *from = &sent[i];

		if (role->number >= 0 && role->number != i)
			continue;
		if (from->used >= role->read + size &&
		    !memcmp(from->bytes + role->read, bytes, size)) {
			any = true;
			if (size > 8)	/* more than chance */
				role->number = i;
			break;
		}
	}
	must(any);
	role->read += size;
}

static void role_reads(struct role *role, size_t size)
{
	static uint8_t bytes[255 * 256];
	ssize_t n;

	if (role->fd < 0)
		return;
	n = recv(role->fd, bytes, min(size, sizeof(bytes)), MSG_DONTWAIT);
	if (n > 0)
		take_in(role, bytes, (size_t)n);
}

static void role_goes(struct role *role)
{
	if (role->fd >= 0)
		close(role->fd);
	role->fd = -1;
}

static void step(struct input *input, bool source)
{
	static const uint8_t words[255 * 256];
	enum step step = input_u8(input) % STEPS;
	uint8_t channel = step == STEP_RAW || step == STEP_END ? 0 : input_u8(input);
	struct role *role = &roles[channel % MUX_CHANNELS];
	const uint8_t *bytes;
	size_t size;

	switch (step) {
	case STEP_RECORD:
		size = input_u8(input);		/* the type */
		send_record(channel, (uint8_t)size, input_u16(input));
		break;
	case STEP_RAW:
		size = input_u8(input);
		bytes = input_bytes(input, &size);
		send_bytes(bytes, size);
		break;
	case STEP_SAY:
		if (role->fd >= 0)
			send(role->fd, words, 256 * input_u8(input), MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case STEP_READ:
		role_reads(role, 256 * input_u8(input));
		break;
	case STEP_CLOSE:
		role_goes(role);
		break;
	case STEP_CREDIT:
		channel %= MUX_CHANNELS;
		if (owed[channel]) {
			send_record(channel, MUX_CREDIT, (uint32_t)owed[channel]);
			owed[channel] = 0;
		}
		break;
	case STEP_CONNECT:
		if (source && role->fd < 0 && role->number < 0 &&
		    !stream_connect(stream, channel % MUX_CHANNELS, &role->fd)) {
			must(!fcntl(role->fd, F_SETFL, O_NONBLOCK));
			role->number = channel % MUX_CHANNELS;
			role->read = 0;
		}
		break;
	case STEP_END:
		shutdown(peer, SHUT_WR);
		break;
	case STEPS:
		break;
	}
}

static void begin(void)
{
	for (int i = 0; i < MUX_CHANNELS; i++) {
		roles[i] = (struct role){ .fd = -1, .number = -1 };
		if (!sent[i].bytes)
			sent[i].bytes = malloc(SENT_MAX);
		must(sent[i].bytes);
		sent[i].used = 0;
		owed[i] = 0;
	}
	if (!out)
		out = malloc(2 * STREAM_OUT_MAX + MUX_HEADER);
	must(out);
	nr_partial = nr_out = 0;
	value = 0;
	data_left = out_left = 0;
	magic_sent = magic_seen = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	bool source = input_u8(&input) & 1;
	struct uri uri = { .kind = URI_FD };
	char error[CODEC_ERROR_MAX];
	struct loop loop;
	int pair[2];

	begin();
	must(!loop_init(&loop));
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	peer = pair[0];
	uri.fd = pair[1];
	mux_init(&mux, source);
	stream = stream_open(&loop, &uri, NULL, source ? NULL : opened, NULL, error);
	must(stream);
	/* What was opened, and ended before anything was said, ends with END, too. */
	for (int i = 0; i < MUX_CHANNELS; i++)
		mux_open(&mux, (enum channel_kind)i);

	while (input.left) {
		step(&input, source);
		stream_turn(stream);
		must(!loop_turn(&loop, 0));
		listen_to_stream();
		if (stream_broken(stream))
			must_be_sentence(stream_broken(stream), CODEC_ERROR_MAX);
		for (int i = 0; i < MUX_CHANNELS; i++)
			must(stream->channels[i].ring_used <= MUX_WINDOW);
	}
	for (int i = 0; i < MUX_CHANNELS; i++) {
		role_reads(&roles[i], 255 * 256);
		role_goes(&roles[i]);
	}
	shutdown(peer, SHUT_WR);	/* else it waits for more */
	stream_close(stream);
	loop_destroy(&loop);
	close(peer);
	return 0;
}
