/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What both sides of a migration have and do alike: the session, its channels,
 * what the end of one means, and the turns of the loop. The roles, source.c and
 * destination.c, say what is done with what comes.
 */
#ifndef UMEMD_SIDE_H
#define UMEMD_SIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "umemd/channel.h"
#include "umemd/launcher.h"
#include "umemd/loop.h"
#include "umemd/options.h"
#include "umemd/progress.h"
#include "umemd/session.h"
#include "umemd/stream.h"
#include "umemd/ticket.h"

#define SIDE_KINDS	3	/* of channels */
#define SIDE_NAME_MAX	(URI_TEXT_MAX + CHANNEL_PEER_MAX)

/**
 * struct side_role - what the roles do each in its way; @owner is theirs
 * @turn: the loop is about to wait: do what can be done now
 * @tick: some time has passed
 * @wait_ns: how long @turn has nothing to do; the loop may wait that long
 * @set_wants: what descriptors of the role's own are watched for
 * @may_receive: is there room for what comes on the channel?
 * @has_more: is there something to send on the channel that it does not have yet? May be NULL
 * @admits: is there more against a frame than the session has? May be NULL. Returns as
 *	session_admits()
 * @connected: a channel that was connecting is now, or failed; may be NULL
 * @take: a frame came that the session takes
 * @over: the session did not survive the loss of its connection
 * @paused: it did. Returns what is done about it, NULL if it is not paused
 * @command: of the launcher
 * @count: bring progress up to date
 */
struct side_role {
	enum session_role role;
	void (*turn)(void *owner);
	void (*tick)(void *owner, uint64_t now);
	uint64_t (*wait_ns)(const void *owner);
	void (*set_wants)(void *owner);
	bool (*may_receive)(const void *owner, const struct channel *channel);
	bool (*has_more)(void *owner, const struct channel *channel);
	int (*admits)(const void *owner, const struct channel *channel,
		      const struct frame *frame, char *error);
	void (*connected)(void *owner, struct channel *channel);
	void (*take)(void *owner, struct channel *channel);
	void (*over)(void *owner, const char *why);
	const char *(*paused)(void *owner);
	void (*command)(void *owner, const char *name, json_t *object);
	void (*count)(void *owner);
};

/**
 * struct side - one end of a migration
 * @name: of the other side, for messages
 * @channels: by kind and index; NULL where there is none
 * @nr: places in use of each kind: none is there beyond, some may be empty
 * @credentials: for TLS; NULL: without it
 * @stream: of fd: and exec:; NULL where each channel is a connection of its own
 * @lost_ns: when a channel that ended ends the rest; 0: none did
 * @paused_told: the launcher knows why it is paused
 */
struct side {
	const struct options *options;
	const struct side_role *role;
	void *owner;
	char name[SIDE_NAME_MAX];

	struct loop loop;
	struct launcher launcher;
	struct session session;
	struct progress progress;
	struct credentials *credentials;
	struct stream *stream;
	struct channel *channels[SIDE_KINDS][CHANNELS_MAX];
	unsigned int nr[SIDE_KINDS];
	uint64_t features;
	uint8_t session_id[SESSION_SIZE];
	struct watch state;	/* QEMU's end of the device state */

	bool warned;		/* that it is not encrypted */
	uint64_t ping_ns;
	uint64_t lost_ns;
	char lost_why[CODEC_ERROR_MAX + 128];
	bool paused_told;

	bool done;
	int exit_status;
};

/* For every place of a channel of @kind; the body looks whether one is there. */
#define side_for_each(side, kind, channel)						\
	for (unsigned int i_ = 0; i_ < (side)->nr[kind]; i_++)				\
		if (((channel) = (side)->channels[kind][i_]))

/**
 * side_init - nothing is connected yet
 *
 * Return: 0 or -errno: the launcher cannot be reached.
 */
int side_init(struct side *side, const struct side_role *role, void *owner,
	      const struct options *options);

/**
 * side_load_credentials - if TLS is wanted; to be done before anything is connected
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 or -EINVAL.
 */
int side_load_credentials(struct side *side, char *error);

/* What its channels have to have: none where all of the stream is encrypted. */
static inline const struct credentials *side_channel_credentials(const struct side *side)
{
	return side->stream ? NULL : side->credentials;
}

/* Turns the loop until side_finish(). */
void side_run(struct side *side);

/* Ends the channels and the stream, and lets the last words to the launcher out. */
void side_destroy(struct side *side);

/* The first call counts. */
void side_finish(struct side *side, int exit_status);

/* This side cannot go on: the launcher and the other side are told why. */
void side_fail(struct side *side, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The other side is out of reach or makes no sense: the end, or a pause. */
void side_lost(struct side *side, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/**
 * side_add - a connection becomes a channel of the session
 * @bytes: what went over it so far
 */
void side_add(struct side *side, struct channel *channel, enum channel_kind kind,
	      unsigned int index, uint64_t bytes);
void side_close_channels(struct side *side);

/* A control channel is connected: say once if who listens on the way can read it. */
void side_warn_if_plain(struct side *side, const struct channel *channel);

/* NULL unless it is there. */
struct channel *side_control(const struct side *side);

/* Is there a channel of each kind, connected? The first: the others may come and go. */
bool side_is_joined(const struct side *side);

/**
 * side_idlest - the channel of a kind with least on its way
 * @idle: of those that are not busy
 *
 * So one connection that is slow does not get what another could carry.
 *
 * Return: NULL if none is connected, and stays.
 */
struct channel *side_idlest(const struct side *side, enum channel_kind kind, bool idle);

/* Ends a channel without a word. */
void side_drop(struct side *side, struct channel *channel);

/* What a send gave: true if the connection is still good. */
bool side_sent(struct side *side, struct channel *channel, int err);

/* A frame without payload, on control. Return: as side_sent(). */
bool side_say(struct side *side, enum frame_type type, uint16_t flags);

/* Read what has come on a channel for which there was no room before. */
void side_receive(struct side *side, enum channel_kind kind, unsigned int index);

/**
 * side_tell_session - what was agreed on, for a umemd that has to go on with it
 * @index: of our regions, in the order of the source's numbers; NULL: it is ours
 */
void side_tell_session(struct side *side, const uint32_t *index);

/**
 * side_go_on - take over the session of a umemd that has ended
 * @index: filled as side_tell_session() has it
 * @run: what GO says
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 or -errno.
 */
int side_go_on(struct side *side, uint32_t *index, bool *run, char *error);

/* Tell the launcher how far it is. */
void side_progress(struct side *side);

/**
 * side_open_state - the descriptor of the device state, not watched for anything yet
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 or -errno.
 */
int side_open_state(struct side *side, void (*ready)(void *owner, uint32_t events), char *error);

/* Here all of it was read, or written. */
void side_close_state(struct side *side);

/**
 * side_check_region - does the descriptor of a region have the region's length?
 * @error: CODEC_ERROR_MAX bytes, if not a sentence
 *
 * Return: 0 or -EINVAL.
 */
int side_check_region(const struct side *side, uint32_t index, char *error);

#endif
