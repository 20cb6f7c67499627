/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections that have not said what they want. They get little: few places, little
 * time, memory for one frame. A session's connections are not among them. Whoever comes
 * when all places are taken gets one from those who have most of them.
 */
#ifndef UMEMD_STRANGERS_H
#define UMEMD_STRANGERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util.h"
#include "umemd/channel.h"
#include "umemd/launcher.h"
#include "umemd/loop.h"
#include "umemd/socket.h"

#define STRANGERS_MAX		(16 + 2 * CHANNELS_MAX)	/* all channels may come at once */
#define STRANGERS_NS		(10 * NSEC_PER_SEC)	/* to introduce itself */

struct strangers;

/**
 * struct stranger - a place for one
 * @channel: its connection; NULL: the place is free
 * @origin: see socket_accept()
 * @bytes: what went over it
 * @refused: it was told no; wait for it to read that
 */
struct stranger {
	struct strangers *strangers;
	struct channel *channel;
	uint64_t origin;
	uint64_t deadline_ns;
	uint64_t bytes;
	bool refused;
};

/**
 * struct strangers - who has come and not joined
 * @credentials: that those who come have to match; NULL: they come without TLS
 * @shook_hands: with one of them, in this turn of the loop
 * @introduced: one sent HELLO, JOIN or RESUME, which is its channel's frame: it is to
 *	be taken in or refused
 * @deaf: nobody is let in before the next tick: there is no descriptor for him
 * @told: messages about strangers since @told_since_ns, and
 * @untold: how many more there would have been
 */
struct strangers {
	struct loop *loop;
	struct launcher *launcher;
	const struct credentials *credentials;
	bool shook_hands;
	void (*introduced)(void *owner, struct stranger *stranger);
	void *owner;

	struct socket_listener listening;
	struct watch listener;
	struct stranger places[STRANGERS_MAX];
	bool deaf;

	uint64_t told_since_ns;
	unsigned int told, untold;
};

void strangers_init(struct strangers *strangers, struct loop *loop, struct launcher *launcher,
		    void (*introduced)(void *owner, struct stranger *stranger), void *owner);

/**
 * strangers_listen - let them come
 * @actual: URI with the real port
 * @error: SOCKET_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 or -errno.
 */
int strangers_listen(struct strangers *strangers, const struct uri *uri,
		     char actual[URI_TEXT_MAX], char *error);

/**
 * strangers_take_listener - let them come to a socket that listens already
 * @error: SOCKET_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 or -errno.
 */
int strangers_take_listener(struct strangers *strangers, int fd, char *error);

/**
 * strangers_add - one has come
 * @fd: its connection, taken over
 * @origin: see socket_accept(); 0 where nobody else can come
 */
void strangers_add(struct strangers *strangers, int fd, const char *peer, uint64_t origin);

/* Says no, and waits a moment for that to be read. */
void strangers_refuse(struct stranger *stranger, enum refuse_code code, const char *text);

/* Without a word. */
void strangers_dismiss(struct stranger *stranger);

/**
 * strangers_release - it is no stranger any more
 *
 * Return: its connection, which is the caller's now.
 */
struct channel *strangers_release(struct stranger *stranger);

bool strangers_any(const struct strangers *strangers);

/* Sends those away who have had their time. To be called a few times a second. */
void strangers_tick(struct strangers *strangers, uint64_t now);

/* What their descriptors are watched for. To be called before each turn of the loop. */
void strangers_set_wants(struct strangers *strangers);

/* Those still there are dismissed, and nobody else can come. */
void strangers_destroy(struct strangers *strangers);

#endif
