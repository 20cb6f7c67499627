// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A connection: whatever comes, and however it is cut into pieces, the same frames
 * come out of it and then the same end.
 *
 * Input: frame types that are taken (3), whether PAGES have room (1), sizes of the
 * pieces (4), then the bytes of the connection.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/util.h"
#include "umemd/channel.h"

#define ROOM	(512 * 1024)

/**
 * struct result - what came of a connection
 * @hash: of all frames
 * @end: what the last channel_receive() gave
 */
struct result {
	unsigned int frames;
	uint64_t hash, bytes;
	int end;
	char error[CODEC_ERROR_MAX];
};

struct setup {
	uint32_t types;
	bool pages;
};

static int admit(struct channel *channel, const struct frame *frame, char *error)
{
	const struct setup *setup = channel->owner;

	if (setup->types & 1u << frame->type)
		return 0;
	return wrong(error, "frame %s is not taken here", frame_name(frame->type));
}

static uint64_t hash(const void *data, size_t size, uint64_t seed)
{
	return size ? XXH3_64bits_withSeed(data, size, seed) : seed + 1;
}

static void take_frame(struct result *result, const struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	size_t entries = frame->type == FRAME_PAGES ? frame->count * PAGES_ENTRY : frame->length;

	must(frame->length <= FRAME_PAYLOAD_MAX && entries <= frame->length);
	result->frames++;
	result->hash = hash(frame, sizeof(*frame), result->hash);
	result->hash = hash(channel->payload, entries, result->hash);
	result->hash = hash(channel->data, frame->length - entries, result->hash);
}

/* Until no more comes. */
static void receive(struct result *result, struct channel *channel)
{
	do {
		bool whole = channel_has_frame(channel);

		result->end = channel_receive(channel, result->error);
		/* What it promised to have it has. */
		must(!whole || result->end == 1 || result->end == -EPROTO);
		if (result->end == 1)
			take_frame(result, channel);
	} while (result->end == 1);
}

/* @cuts: sizes of pieces, in turn; 0: as much as goes */
static void connection(struct result *result, struct setup *setup, const uint8_t *data,
		       size_t size, const uint8_t cuts[4])
{
	struct watch watch = { .owner = setup };
	struct channel *channel;
	struct loop loop;
	int pair[2], room = ROOM;

	*result = (struct result){ .end = -EAGAIN };
	must(!loop_init(&loop));
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	channel = channel_new(pair[1], "peer", NULL, &result->bytes, &watch, admit);
	must(channel);
	must(!setup->pages || !channel_take_pages(channel));

	for (size_t used = 0, i = 0; used < size && result->end == -EAGAIN; i++) {
		size_t piece = cuts[i % 4] ? min((size_t)cuts[i % 4], size - used) : size - used;
		ssize_t n = write(pair[0], data + used, piece);

		must(n > 0);
		used += (size_t)n;
		receive(result, channel);
	}
	shutdown(pair[0], SHUT_WR);
	if (result->end == -EAGAIN)
		receive(result, channel);
	must(result->end <= 0 && result->end != -EAGAIN);
	must_be_sentence(result->error, sizeof(result->error));
	must(channel_queued(channel) == MAGIC_SIZE && channel->payload_room <= FRAME_PAYLOAD_MAX);
	channel_free(&loop, channel);
	close(pair[0]);
	loop_destroy(&loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t whole[4];
	struct input input = { data, size };
	struct setup setup = { .types = (uint32_t)input_number(&input, 3) };
	struct result results[2];
	uint8_t cuts[4];

	setup.pages = input_u8(&input) & 1;
	for (int i = 0; i < 4; i++)
		cuts[i] = input_u8(&input);
	connection(&results[0], &setup, input.data, input.left, whole);
	connection(&results[1], &setup, input.data, input.left, cuts);
	must(results[0].frames == results[1].frames && results[0].hash == results[1].hash);
	must(results[0].end == results[1].end);
	must(!strcmp(results[0].error, results[1].error));
	return 0;
}
