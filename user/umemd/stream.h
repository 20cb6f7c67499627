/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fd: and exec: URIs: one stream, on which the three channels share. The roles
 * speak to sockets, as with tcp: and unix:; between those and the stream this
 * moves records (mux.h), within the same loop.
 */
#ifndef UMEMD_STREAM_H
#define UMEMD_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/uri.h"
#include "umemd/loop.h"
#include "umemd/mux.h"
#include "umemd/tls.h"

#define STREAM_IN_MAX		65536
#define STREAM_OUT_MAX		(MUX_HEADER + MUX_DATA_MAX)

struct stream;

/**
 * struct stream_channel - the near end of a socket that a role holds the other of
 * @readable: it may have something for the stream
 * @deaf: the role is not there any more; what comes is dropped
 * @shut: the role was told that nothing more comes
 * @ring: MUX_WINDOW bytes for what came and the role has not taken; NULL until needed
 */
struct stream_channel {
	struct stream *stream;
	struct watch watch;
	bool readable, deaf, shut;
	uint8_t *ring;
	size_t ring_start, ring_used;
};

/**
 * struct stream - the stream and its channels; not to be touched from outside
 * @tls: all of it is in there; NULL: it goes as it is
 * @opened: the destination: the source opened a channel, here is a socket of it
 * @command: of exec:; 0 else
 * @broken: why it is of no more use; empty while it is
 */
struct stream {
	struct loop *loop;
	struct mux mux;
	struct watch watch;
	struct tls *tls;
	struct stream_channel channels[MUX_CHANNELS];
	void (*opened)(void *owner, int fd);
	void *owner;
	bool finishing;
	pid_t command;
	char broken[CODEC_ERROR_MAX];

	bool magic_seen;
	enum channel_kind data_channel;
	uint32_t data_left;
	uint8_t in[STREAM_IN_MAX];
	size_t in_start, in_used;
	uint8_t out[STREAM_OUT_MAX];
	size_t out_start, out_used;
};

/**
 * stream_open - begin to use the stream of a URI
 * @credentials: for TLS; NULL: without it
 * @opened: NULL for the source
 * @owner: for @opened
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: the stream; NULL.
 */
struct stream *stream_open(struct loop *loop, const struct uri *uri,
			   const struct credentials *credentials,
			   void (*opened)(void *owner, int fd), void *owner, char *error);

/**
 * stream_connect - a channel of the source
 * @fd: a connected socket, the caller's
 *
 * Return: 0; -EBUSY the channel was there before; -ENOTCONN; another negative errno.
 */
int stream_connect(struct stream *stream, enum channel_kind channel, int *fd);

/* Moves what can be moved. To be called before each turn of the loop. */
void stream_turn(struct stream *stream);

/* Why it is of no more use; NULL while it is. */
const char *stream_broken(const struct stream *stream);

/* Has every channel come and gone? Then nothing can come any more. */
bool stream_is_over(const struct stream *stream);

/**
 * stream_close - send what the roles said last, then end the stream
 *
 * The roles have closed their sockets. Waits a moment for the other side. A
 * command ends by itself, once its input does. Does nothing to NULL.
 */
void stream_close(struct stream *stream);

#endif
