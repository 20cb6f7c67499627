// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Frames and events in any order: the state never leaves the table of the protocol,
 * what is refused changes nothing, and what GO decided stays decided.
 *
 * Input: the role (1), then for each step what (1) and on which channel (1).
 */
#include "fuzz.h"

#include <errno.h>

#include "umemd/session.h"

#define TO(state)	(1u << SESSION_##state)

/* Where each state may lead to in one step, besides to itself. */
static const uint32_t next[2][SESSION_STATES] = {
	[ROLE_SOURCE] = {
		[SESSION_NONE] = TO(HELLO),
		[SESSION_HELLO] = TO(PREPARE),
		[SESSION_PREPARE] = TO(ADVISE),
		[SESSION_ADVISE] = TO(LISTEN),
		[SESSION_LISTEN] = TO(READY),
		[SESSION_READY] = TO(RUNNING),
		[SESSION_RUNNING] = TO(PAUSED) | TO(END),
		[SESSION_PAUSED] = TO(RESUME),
		[SESSION_RESUME] = TO(RUNNING) | TO(PAUSED) | TO(END),
	},
	[ROLE_DESTINATION] = {
		[SESSION_NONE] = TO(PREPARE),
		[SESSION_PREPARE] = TO(ADVISE),
		[SESSION_ADVISE] = TO(LISTEN),
		[SESSION_LISTEN] = TO(READY),
		[SESSION_READY] = TO(RUNNING) | TO(PAUSED) | TO(RESUME),
		[SESSION_RUNNING] = TO(PAUSED) | TO(RESUME) | TO(END),
		/* To the end without RUNNING: the source was given up. */
		[SESSION_PAUSED] = TO(RESUME) | TO(END),
		[SESSION_RESUME] = TO(RUNNING) | TO(PAUSED) | TO(END),
	},
};

static const uint32_t after_go = TO(RUNNING) | TO(PAUSED) | TO(RESUME) | TO(END);

static void check_step(const struct session *before, const struct session *after)
{
	must(after->role == before->role);
	must(after->state < SESSION_STATES && session_state_name(after->state)[0]);
	must(after->state == before->state ||
	     next[before->role][before->state] & 1u << after->state);
	must(after->gone || !before->gone);
	must(!after->gone || after_go & 1u << after->state);
	/* A guest that has moved cannot be had back. */
	must(after->gone || after->state != SESSION_RUNNING);
}

static int take_frame(struct session *session, uint8_t what, uint8_t channel, char *error)
{
	struct frame frame = { .type = (uint16_t)(1 + what % (FRAME_TYPES - 1)) };
	enum channel_kind kind = channel % 3;
	struct session before = *session;
	int admitted = session_admits(session, kind, &frame, error);
	int err;

	must(!memcmp(&before, session, sizeof(before)));
	err = session_frame(session, kind, &frame, error);
	must(err == admitted && (!err || err == -EPROTO));
	return err;
}

static int take_event(struct session *session, uint8_t what, char *error)
{
	enum session_event event = what % SESSION_EVENTS;
	int err = session_event(session, event, error);

	must(!err || err == -EBUSY || (err == -ENOTCONN && event == EVENT_LOST));
	/* The connection may break at any time. */
	must(err != -EBUSY || event != EVENT_LOST);
	must(event != EVENT_CANCEL || err || !session->gone);
	return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct session session;

	session_init(&session, input_u8(&input) & 1 ? ROLE_SOURCE : ROLE_DESTINATION);
	while (input.left) {
		char error[CODEC_ERROR_MAX] = "";
		struct session before = session;
		uint8_t what = input_u8(&input);
		int err = what & 0x80 ? take_event(&session, what & 0x7f, error) :
					take_frame(&session, what, input_u8(&input), error);

		if (err) {
			must_be_sentence(error, sizeof(error));
			must(!memcmp(&before, &session, sizeof(before)));
		} else {
			check_step(&before, &session);
		}
	}
	return 0;
}
