// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/session.h"

#include <errno.h>
#include <stdio.h>

#include "common/util.h"

#define IN(state)	(1u << SESSION_##state)
#define ON(channel)	(1u << CHANNEL_##channel)
#define SAME		SESSION_STATES

#define MOVING		(IN(ADVISE) | IN(LISTEN) | IN(READY) | IN(RUNNING))
#define CONNECTED	(IN(PREPARE) | MOVING | IN(RESUME) | IN(END))
#define BEFORE_GO	(IN(HELLO) | IN(PREPARE) | IN(ADVISE) | IN(LISTEN) | IN(READY))

static const char *const state_names[SESSION_STATES] = {
	[SESSION_NONE] = "none",
	[SESSION_HELLO] = "hello",
	[SESSION_PREPARE] = "prepare",
	[SESSION_ADVISE] = "advise",
	[SESSION_LISTEN] = "listen",
	[SESSION_READY] = "ready",
	[SESSION_RUNNING] = "running",
	[SESSION_PAUSED] = "paused",
	[SESSION_RESUME] = "resume",
	[SESSION_END] = "end",
};

static const char *const event_names[SESSION_EVENTS] = {
	[EVENT_CONNECTED] = "connected",
	[EVENT_PREPARED] = "prepared",
	[EVENT_STATE_END] = "end of the device state",
	[EVENT_STOPPED] = "stopped",
	[EVENT_READY] = "ready",
	[EVENT_GO] = "go",
	[EVENT_CANCEL] = "cancel",
	[EVENT_COMPLETE] = "complete",
	[EVENT_LOST] = "connection lost",
	[EVENT_GIVE_UP] = "give up",
};

struct frame_row {
	uint32_t states;
	uint32_t channels;
	enum session_state next;
};

/* What each side takes from the other. A type that is not here never comes. */
static const struct frame_row frame_rows[2][FRAME_TYPES] = {
	[ROLE_SOURCE] = {
		[FRAME_HELLO_ACK] = { IN(HELLO), ON(CONTROL), SESSION_PREPARE },
		[FRAME_REFUSE] = { IN(HELLO) | IN(PREPARE) | MOVING | IN(RESUME),
				   ON(CONTROL) | ON(URGENT) | ON(BULK), SAME },
		[FRAME_PREPARED] = { IN(PREPARE) | IN(RESUME), ON(CONTROL), SESSION_ADVISE },
		[FRAME_READY] = { IN(LISTEN), ON(CONTROL), SESSION_READY },
		/* Urgent may overtake the PREPARED that control still carries. */
		[FRAME_REQUEST] = { CONNECTED, ON(URGENT), SAME },
		[FRAME_END] = { IN(RUNNING) | IN(RESUME), ON(CONTROL), SESSION_END },
		[FRAME_ERROR] = { CONNECTED, ON(CONTROL), SAME },
		[FRAME_BITMAP] = { IN(RESUME), ON(CONTROL), SAME },
		[FRAME_PING] = { CONNECTED | IN(HELLO), ON(CONTROL), SAME },
		[FRAME_LEAVE] = { CONNECTED, ON(URGENT) | ON(BULK), SAME },
	},
	[ROLE_DESTINATION] = {
		[FRAME_HELLO] = { IN(NONE), ON(CONTROL), SESSION_PREPARE },
		[FRAME_RESUME] = { IN(READY) | IN(RUNNING) | IN(PAUSED) | IN(RESUME) | IN(END),
				   ON(CONTROL), SESSION_RESUME },
		[FRAME_STATE] = { IN(ADVISE), ON(CONTROL), SAME },
		[FRAME_STATE_END] = { IN(ADVISE), ON(CONTROL), SESSION_LISTEN },
		[FRAME_GO] = { IN(READY), ON(CONTROL), SESSION_RUNNING },
		[FRAME_PAGES] = { MOVING | IN(END), ON(URGENT) | ON(BULK), SAME },
		[FRAME_ALL_SENT] = { MOVING | IN(END), ON(BULK), SAME },
		[FRAME_END] = { IN(END), ON(CONTROL), SAME },
		[FRAME_ERROR] = { CONNECTED, ON(CONTROL), SAME },
		[FRAME_CANCEL] = { BEFORE_GO, ON(CONTROL), SAME },
		[FRAME_PING] = { CONNECTED, ON(CONTROL), SAME },
		[FRAME_LEAVE] = { CONNECTED, ON(URGENT) | ON(BULK), SAME },
		/* Control may overtake what bulk still carries. */
		[FRAME_SYNC] = { IN(ADVISE) | IN(LISTEN), ON(BULK), SAME },
		[FRAME_DISCARD] = { IN(ADVISE), ON(CONTROL), SAME },
		[FRAME_PUBLISH] = { IN(ADVISE), ON(CONTROL), SAME },
	},
};

struct event_row {
	uint32_t states;
	enum session_state next;
};

static const struct event_row event_rows[2][SESSION_EVENTS] = {
	[ROLE_SOURCE] = {
		[EVENT_STATE_END] = { IN(ADVISE), SESSION_LISTEN },
		[EVENT_STOPPED] = { IN(ADVISE) | IN(LISTEN), SAME },
		[EVENT_GO] = { IN(READY), SESSION_RUNNING },
		[EVENT_CANCEL] = { IN(NONE) | BEFORE_GO, SAME },
	},
	[ROLE_DESTINATION] = {
		[EVENT_PREPARED] = { IN(PREPARE), SESSION_ADVISE },
		[EVENT_READY] = { IN(LISTEN), SESSION_READY },
		/* The guest may discard what is left while nobody is connected. */
		[EVENT_COMPLETE] = { IN(RUNNING) | IN(PAUSED), SESSION_END },
	},
};

void session_init(struct session *session, enum session_role role)
{
	*session = (struct session){ .role = role, .state = SESSION_NONE };
}

void session_go_on(struct session *session, bool gone)
{
	session->state = SESSION_PAUSED;
	session->gone = gone;
}

const char *session_state_name(enum session_state state)
{
	return state_names[state];
}

bool session_knows(const struct session *session, const uint8_t *id, const uint8_t *claimed)
{
	uint8_t differs = session->state == SESSION_NONE;

	for (int i = 0; i < SESSION_SIZE; i++)
		differs |= id[i] ^ claimed[i];
	return !differs;
}

int session_admits(const struct session *session, enum channel_kind kind,
		   const struct frame *frame, char *error)
{
	const struct frame_row *row = &frame_rows[session->role][frame->type];

	if (!(row->channels & 1u << kind)) {
		snprintf(error, CODEC_ERROR_MAX, "frame %s does not belong on the %s channel",
			 frame_name(frame->type), channel_name(kind));
		return -EPROTO;
	}
	if (!(row->states & 1u << session->state)) {
		snprintf(error, CODEC_ERROR_MAX, "frame %s may not come in state %s",
			 frame_name(frame->type), state_names[session->state]);
		return -EPROTO;
	}
	return 0;
}

int session_frame(struct session *session, enum channel_kind kind, const struct frame *frame,
		  char *error)
{
	const struct frame_row *row = &frame_rows[session->role][frame->type];
	int err = session_admits(session, kind, frame, error);

	if (err)
		return err;
	/* RESUME is said only after GO, which may be what was lost. */
	if (frame->type == FRAME_GO || frame->type == FRAME_RESUME)
		session->gone = true;
	if (frame->type == FRAME_CANCEL)
		session->cancelled = true;
	if (frame->type == FRAME_PREPARED && session->state == SESSION_RESUME)
		session->state = SESSION_RUNNING;
	else if (frame->type == FRAME_RESUME && session->state == SESSION_END)
		session->state = SESSION_END;
	else if (row->next != SAME)
		session->state = row->next;
	return 0;
}

/* Connecting, preparing, losing and giving up depend on what was before. */
static int connection_event(struct session *session, enum session_event event)
{
	switch (event) {
	case EVENT_CONNECTED:
		if (session->role != ROLE_SOURCE)
			return -EBUSY;
		if (session->state == SESSION_NONE)
			session->state = SESSION_HELLO;
		else if (session->state == SESSION_PAUSED)
			session->state = SESSION_RESUME;
		else
			return -EBUSY;
		return 0;
	case EVENT_PREPARED:
		if (session->state != SESSION_RESUME)
			return -EBUSY;
		session->state = SESSION_RUNNING;
		return 0;
	case EVENT_LOST:
		/*
		 * Before GO the source has the guest and the session is worth
		 * nothing; a destination that said READY cannot know whether GO
		 * was said, so it has to wait for the source to come back, unless
		 * that has said that it was not.
		 */
		if (session->state == SESSION_END)
			return 0;
		if (session->cancelled)
			return -ENOTCONN;
		if (!session->gone &&
		    (session->role == ROLE_SOURCE || session->state != SESSION_READY) &&
		    session->state != SESSION_PAUSED)
			return -ENOTCONN;
		session->state = SESSION_PAUSED;
		return 0;
	case EVENT_GIVE_UP:
		/* Without GO the guest may run at the source. */
		if (session->role != ROLE_DESTINATION || !session->gone ||
		    (session->state != SESSION_PAUSED && session->state != SESSION_RESUME))
			return -EBUSY;
		session->state = SESSION_END;
		return 0;
	default:
		return -EBUSY;
	}
}

int session_event(struct session *session, enum session_event event, char *error)
{
	const struct event_row *row = &event_rows[session->role][event];
	int err;

	if (row->states & 1u << session->state) {
		if (row->next != SAME)
			session->state = row->next;
		if (event == EVENT_GO)
			session->gone = true;
		return 0;
	}
	err = connection_event(session, event);
	if (err)
		snprintf(error, CODEC_ERROR_MAX, "\"%s\" is not possible in state %s",
			 event_names[event], state_names[session->state]);
	return err;
}
