/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The line to the program that started this one: events out, commands in. */
#ifndef UMEMD_LAUNCHER_H
#define UMEMD_LAUNCHER_H

#include <stdbool.h>

#include "common/jsonl.h"
#include "umemd/loop.h"

struct launcher {
	struct watch watch;
	struct loop *loop;
	struct jsonl jsonl;
	bool gone;
	/* Takes a command; @object stays the launcher's. */
	void (*command)(void *owner, const char *name, json_t *object);
	/* The other end closed or broke: nobody listens any more. */
	void (*lost)(void *owner);
	void *owner;
};

/* Return: 0 or -errno. @command, @lost, @owner of @launcher are set already. */
int launcher_init(struct launcher *launcher, struct loop *loop, int fd);

/* Sends an event; takes @event over. */
void launcher_send(struct launcher *launcher, json_t *event);

void launcher_state(struct launcher *launcher, const char *state);

/* {"event": @event, "message": ...}; also goes to the log. */
void launcher_message(struct launcher *launcher, const char *event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Wait a moment for the last events to leave, then forget it all. */
void launcher_finish(struct launcher *launcher);

#endif
