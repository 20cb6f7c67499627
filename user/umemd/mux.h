/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The three channels of a session on one stream: what a record says, whether it
 * may come, and which goes next. No descriptors: stream.h moves the bytes.
 */
#ifndef UMEMD_MUX_H
#define UMEMD_MUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "umemd/codec.h"

#define MUX_MAGIC	"UMUX\r\n\x1a\n"
#define MUX_HEADER	8
#define MUX_DATA_MAX	16384		/* bytes of one DATA */
#define MUX_WINDOW	(1024u * 1024)	/* bytes a side sends on a channel before CREDIT comes */
#define MUX_CHANNELS	3

enum mux_type {
	MUX_DATA = 1,
	MUX_END = 2,
	MUX_CREDIT = 3,
};

/**
 * struct mux_record - a header
 * @number: MUX_DATA: bytes that follow; MUX_CREDIT: bytes more that may be sent
 */
struct mux_record {
	enum channel_kind channel;
	enum mux_type type;
	uint32_t number;
};

/**
 * struct mux_channel - both directions of one channel
 * @opened: the source sent on it, or is about to
 * @ending: our side has said all it has to say; END is to go
 * @ended: END was sent
 * @peer_ended: END came
 * @credit: bytes we may send
 * @allowed: bytes the other side may send
 * @taken: bytes of it that were taken and not allowed again yet
 */
struct mux_channel {
	bool opened, ending, ended, peer_ended;
	uint32_t credit, allowed, taken;
};

/**
 * struct mux - one side of a stream
 * @accepts: the other side opens channels
 * @last: of control and urgent: whose data went last
 */
struct mux {
	bool accepts;
	enum channel_kind last;
	struct mux_channel channels[MUX_CHANNELS];
};

/**
 * mux_init - nothing is open, every window is full
 * @accepts: true for the destination
 */
void mux_init(struct mux *mux, bool accepts);

/**
 * mux_open - the source: something will be sent on @channel
 *
 * Return: 0; -EBUSY it was opened before: a channel is there once a stream.
 */
int mux_open(struct mux *mux, enum channel_kind channel);

void mux_encode(uint8_t bytes[MUX_HEADER], const struct mux_record *record);

/**
 * mux_receive - a header came
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Of MUX_DATA, whether there is room for what follows is already checked.
 *
 * Return: 0; -EPROTO it is none, or may not come now.
 */
int mux_receive(struct mux *mux, const uint8_t bytes[MUX_HEADER], struct mux_record *record,
		char *error);

/* @bytes of what came on @channel need no more room. */
void mux_taken(struct mux *mux, enum channel_kind channel, uint32_t bytes);

/* Our side of @channel ended: what it said before was all sent. */
void mux_end(struct mux *mux, enum channel_kind channel);

/* May anything be sent on @channel, so that it is worth looking for some? */
bool mux_may_send(const struct mux *mux, enum channel_kind channel);

/**
 * mux_next - what to send next
 * @ready: bit @channel is set if there is something to be sent on it
 * @record: set; of MUX_DATA, @number is the most that may go
 *
 * CREDIT first; then END and DATA of control and urgent in turn, then of bulk.
 * To be followed by mux_sent() if it is sent.
 *
 * Return: whether there is anything.
 */
bool mux_next(const struct mux *mux, unsigned int ready, struct mux_record *record);

/* @record goes, with the @number that it really has. */
void mux_sent(struct mux *mux, const struct mux_record *record);

/* Has every channel that was opened ended in both directions? And was any? */
bool mux_is_over(const struct mux *mux);

#endif
