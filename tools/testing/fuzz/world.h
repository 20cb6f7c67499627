/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All of umemd but its main(), in this process, and what is around it: the other
 * side, the launcher, QEMU's end of the device state, the kernel and the clock do
 * what the input says, one step in each turn of umemd's loop. Real descriptors carry
 * it; the linker puts __wrap_*() in place of what would reach out of the process.
 *
 * A step is a byte of enum step and its arguments:
 *
 * CONNECT	a connection to the destination; the number is the next in turn
 * FRAME	connection, type, flags, region, count (1 each), length (2), payload
 * PAGES	connection, flags, region, count, then for each page its number, kind, value:
 *		the checksums are right, except with bit 4 of the kind
 * RAW		connection, length (1), bytes
 * COMMAND	of the launcher: number of a known one, or 255, length (1), a line
 * KERNEL	touch, discard or write (1), region (1), page (1)
 * TIME		passes: 1 << n ms
 * CLOSE	connection
 * STATE	of the devices: the source is given so many bytes (1), 0 is the end of them;
 *		from the destination that many times 16 are read
 * DEAF		connection: its other side reads no more, or does again
 * FLOOD	how often, times 16 (1), then as FRAME
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "fuzz.h"
#include "kernel.h"
#include "umemd/codec.h"
#include "umemd/options.h"
#include "umemd/side.h"

#define WORLD_CONNECTIONS	40
#define WORLD_SESSION		"0123456789abcdef"

enum step {
	STEP_CONNECT,
	STEP_FRAME,
	STEP_PAGES,
	STEP_RAW,
	STEP_COMMAND,
	STEP_KERNEL,
	STEP_TIME,
	STEP_CLOSE,
	STEP_STATE,
	STEP_DEAF,
	STEP_FLOOD,
	STEPS
};

/**
 * struct connection - the other end of one
 * @deaf: nothing is read from it
 * @synced: bulk, waits for the SYNC of the others
 * @in: what came and is not a whole frame yet
 */
struct connection {
	int fd;
	bool open, deaf, magic_seen, synced;
	uint8_t *in;
	size_t in_used;
};

/**
 * struct world - one run
 * @frozen: nothing writes to the guest's memory any more
 * @commands: that the launcher knows
 * @frame: a frame came from umemd, which is good as such; may look into and change
 *	what it keeps of it
 * @sent_frame: a whole frame was given to umemd, which has yet to read it; may be NULL
 * @event: and an event for the launcher
 */
struct world {
	struct input input;
	struct options options;
	const char *const *commands;
	size_t nr_commands;
	void (*frame)(struct connection *connection, const struct frame *frame,
		      const uint8_t *payload);
	void (*sent_frame)(struct connection *connection, const struct frame *frame,
			   const uint8_t *payload);
	void (*event)(const char *name, const char *state);

	const struct side *side;	/* once its loop turns */
	uint64_t now_ns;
	struct connection connections[WORLD_CONNECTIONS];
	unsigned int nr_connections;
	int launcher, state, listener;
	char line[65536 + 4096];
	size_t line_used;
	bool ended, frozen, was_gone;
	unsigned int turns_left;

	uint8_t *sent;		/* to umemd, all of it */
	size_t sent_used, sent_room;
};

extern struct world world;

/**
 * world_run - umemd, from beginning to end
 * @run: source_run() or destination_run()
 *
 * options, commands and callbacks are the caller's, but for regions and descriptors.
 */
void world_run(const uint8_t *data, size_t size, int (*run)(const struct options *options));

/* Was this sent to umemd, on whatever connection? */
bool world_sent(const void *bytes, size_t size);

/* Has each side read, or will it read now, all that the other sent? */
bool world_is_heard(void);

/* Read what umemd says. */
void world_listen(void);

/* Could @frame ever be taken by that role? */
bool world_is_frame_for(enum session_role role, const struct frame *frame);

#endif
