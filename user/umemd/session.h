/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which frame and which command may come when, and what it leads to. No
 * descriptors, no time: the roles ask here before they act.
 */
#ifndef UMEMD_SESSION_H
#define UMEMD_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "umemd/codec.h"

enum session_role {
	ROLE_SOURCE,
	ROLE_DESTINATION,
};

enum session_state {
	SESSION_NONE,		/* no peer yet */
	SESSION_HELLO,		/* source: HELLO is on its way */
	SESSION_PREPARE,	/* agreed; channels join, memory is made ready */
	SESSION_ADVISE,		/* device state is on its way */
	SESSION_LISTEN,		/* device state is complete */
	SESSION_READY,		/* the destination could run the guest */
	SESSION_RUNNING,	/* GO was said */
	SESSION_PAUSED,		/* connection lost, everything is kept */
	SESSION_RESUME,		/* connected again, bitmaps and channels come */
	SESSION_END,		/* every page is present */
	SESSION_STATES
};

/* What happens at this side; frames are what happens at the other. */
enum session_event {
	EVENT_CONNECTED,	/* source: connected, HELLO or RESUME goes out */
	EVENT_PREPARED,		/* destination: channels are there, memory is ready */
	EVENT_STATE_END,	/* source: QEMU closed its stream */
	EVENT_STOPPED,		/* source: the guest is stopped */
	EVENT_READY,		/* destination: QEMU loaded its state */
	EVENT_GO,		/* source: the guest is to go over */
	EVENT_CANCEL,		/* source: the user changed his mind */
	EVENT_COMPLETE,		/* destination: every page is present */
	EVENT_LOST,		/* a connection broke */
	EVENT_GIVE_UP,		/* destination: the source will not come back */
	SESSION_EVENTS
};

struct session {
	enum session_role role;
	enum session_state state;
	bool gone;		/* GO was said or heard */
	bool cancelled;		/* destination: the source said that it keeps the guest */
};

void session_init(struct session *session, enum session_role role);

/**
 * session_go_on - this session was begun by a umemd that has ended
 * @gone: GO was said or heard; else, at the destination, it may have been
 */
void session_go_on(struct session *session, bool gone);
const char *session_state_name(enum session_state state);

/**
 * session_knows - is @claimed the secret of this session?
 * @id: of this session, SESSION_SIZE bytes, as @claimed
 *
 * Takes as long for a wrong guess as for a right one. A session that nobody began has none.
 */
bool session_knows(const struct session *session, const uint8_t *id, const uint8_t *claimed);

/**
 * session_frame - a frame came
 * @kind: the channel it came on
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0, and the state has changed if the frame changes it; -EPROTO this
 * frame may not come now or not there.
 */
int session_frame(struct session *session, enum channel_kind kind, const struct frame *frame,
		  char *error);

/**
 * session_admits - would session_frame() take it?
 *
 * For a look at the header before memory is given to the payload.
 */
int session_admits(const struct session *session, enum channel_kind kind,
		   const struct frame *frame, char *error);

/**
 * session_event - something happened here
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 and the state has changed if need be; -EBUSY it may not happen now.
 * EVENT_LOST gives -ENOTCONN if the session cannot survive it.
 */
int session_event(struct session *session, enum session_event event, char *error);

#endif
