/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: programs give commands there, one JSON object a line, and are
 * answered in the same way, in order. Every client is served at once. Only the user
 * who runs umem-qemu, and root, can connect.
 *
 * Replies are {"ok":true,...} or {"error":"..."}. After "watch" events follow,
 * {"event":"state"|"progress"|"message"|"end",...}; "end" is the last.
 */
#ifndef UMEM_QEMU_CONTROL_H
#define UMEM_QEMU_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

#include "umem-qemu/request.h"

#define CONTROL_CLIENTS_MAX	64
#define CONTROL_LINE_MAX	4096

struct control;

/**
 * struct control_answer - what a client is told
 * @reply: the reply; never NULL
 * @event: follows the reply, or NULL
 * @watch: events are to follow
 */
struct control_answer {
	json_t *reply;
	json_t *event;
	bool watch;
};

typedef void control_fn(void *context, const struct request *request,
			struct control_answer *answer);

/**
 * control_open - listen at @path
 * @error: on failure a sentence, the caller's
 *
 * A socket where nobody listens any more is replaced, nothing else is.
 */
struct control *control_open(const char *path, control_fn *fn, void *context, char **error);

/**
 * control_open_default - listen where umemctl looks, see common/runtime.h
 */
struct control *control_open_default(control_fn *fn, void *context, char **error);
void control_close(struct control *control);

/**
 * control_watched - somebody wants to know
 * @control: may be NULL: nobody
 */
bool control_watched(const struct control *control);

/**
 * control_tell - an event for those who watch
 * @control: may be NULL
 * @event: taken over
 * @last: nothing more will follow
 */
void control_tell(struct control *control, json_t *event, bool last);

#endif
