/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection: magic, frames in, frames out, all without waiting and with
 * bounded memory.
 */
#ifndef UMEMD_CHANNEL_H
#define UMEMD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "umemd/codec.h"
#include "umemd/loop.h"
#include "umemd/tls.h"

#define CHANNEL_PEER_MAX	128
#define CHANNEL_OUT_MAX		(256 * 1024)	/* bytes queued, STATE and BITMAP included */
#define CHANNEL_IOV_MAX		(PAGES_MAX + 1)

struct channel;

/* How far a channel has come that is to end before the others do. */
enum channel_end {
	CHANNEL_STAYS,
	CHANNEL_LEAVING,	/* nothing new goes on it */
	CHANNEL_SAID_LEAVE,
	CHANNEL_HEARD_LEAVE,	/* and said it: what comes next is its end */
};

/* Asked at each header, before memory is taken for what follows. */
typedef int (*channel_admit)(struct channel *channel, const struct frame *frame, char *error);

/**
 * struct channel - a connection
 * @watch: its owner is the channel itself
 * @owner: who uses the channel
 * @kind: of a channel of a session; and
 * @index: which of its kind it is
 * @connecting: writable will mean that it is connected, or failed to
 * @held: nothing may go on it before the next SYNC
 * @frame: after channel_receive() gave 1: the header
 * @payload: and what follows it; of PAGES the entries only
 * @data: of PAGES: the contents of the pages, page aligned
 * @bytes: where the traffic of both directions is counted
 * @heard_ns: when something last came
 * @under_way: bytes sent that the kernel, when last asked, did not know to have arrived
 * @tls: all of it is in there; NULL: it goes as it is
 */
struct channel {
	struct watch watch;
	void *owner;
	enum channel_kind kind;
	unsigned int index;
	bool connecting, held;
	enum channel_end end;
	char peer[CHANNEL_PEER_MAX];
	channel_admit admit;
	uint64_t *bytes;
	uint64_t heard_ns;
	uint64_t under_way;
	struct tls *tls;

	struct frame frame;
	uint8_t *payload;
	uint8_t *data;

	bool magic_seen, in_payload;
	uint8_t magic[MAGIC_SIZE];
	uint8_t header[FRAME_HEADER];
	size_t magic_have, header_have;
	size_t payload_room, payload_size, payload_have;
	size_t data_size, data_have;
	int lowat;	/* SO_RCVLOWAT */

	uint8_t *out;
	size_t out_start, out_used, out_room;
	struct iovec iov[CHANNEL_IOV_MAX];
	unsigned int iov_next, iov_count;
};

/**
 * channel_new - take over a connected or connecting socket and say the magic
 * @fd: closed by channel_free()
 * @peer: for messages
 * @credentials: for TLS, whose handshake channel_receive() makes; NULL: without it
 * @bytes: see struct channel
 * @watch: priority and ready are taken from it, and owner becomes the channel's;
 *	watches for nothing yet
 *
 * Return: the channel or NULL (out of memory; @fd is then closed).
 */
struct channel *channel_new(int fd, const char *peer, const struct credentials *credentials,
			    uint64_t *bytes, const struct watch *watch, channel_admit admit);
void channel_free(struct loop *loop, struct channel *channel);

/**
 * channel_take_pages - this channel will receive PAGES: get the memory for it
 *
 * Return: 0 or -ENOMEM.
 */
int channel_take_pages(struct channel *channel);

/**
 * channel_receive - read up to one frame
 * @error: CODEC_ERROR_MAX bytes, for a sentence on -EPROTO and other failures
 *
 * Return: 1 a frame is there, valid until the next call; 0 the peer closed;
 * -EAGAIN not complete yet; -EPROTO nonsense came; another negative errno.
 */
int channel_receive(struct channel *channel, char *error);

/**
 * channel_has_frame - will channel_receive() give a frame without reading?
 *
 * It may have come along with the one before, and no poll tells of it.
 */
bool channel_has_frame(const struct channel *channel);

/* Is there more to channel_receive() that no poll tells of, a whole frame or less? */
bool channel_has_more(const struct channel *channel);

/* Has it a handshake to make before anything can go or come? */
bool channel_shakes_hands(const struct channel *channel);

/**
 * channel_send - queue a frame and send what goes
 *
 * Return: 0; -ENOBUFS more than CHANNEL_OUT_MAX would be queued; -ENOMEM;
 * another negative errno: the connection is gone.
 */
int channel_send(struct channel *channel, const struct frame *frame, const void *payload);

/* A frame without payload. */
int channel_say(struct channel *channel, enum frame_type type, uint16_t flags);

/**
 * channel_send_pages - send a PAGES frame from where its parts lie
 * @iov: header and entries, then the pages; must stay until channel_busy() is false
 *
 * May be called only while channel_busy() is false. Return: as channel_send().
 */
int channel_send_pages(struct channel *channel, const struct iovec *iov, unsigned int count);

/**
 * channel_flush - send what is queued
 *
 * Return: 0 nothing left; -EAGAIN; another negative errno.
 */
int channel_flush(struct channel *channel);

/* Is something queued? */
bool channel_busy(const struct channel *channel);

/* Can it go on once it is writable? Then watch for EPOLLOUT. */
bool channel_wants_write(const struct channel *channel);
size_t channel_queued(const struct channel *channel);

/* Bytes that were sent and, as far as this side knows, not received. */
uint64_t channel_under_way(struct channel *channel);

#endif
