/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What comes in at the control socket, one JSON object each:
 *
 *   {"cmd":"migrate", "uri":"tcp:HOST:PORT", "precopy":false, "no_push":false,
 *    "follow":false, "forward":8, "backward":8}	all but uri may be left out
 *   {"cmd":"start-postcopy"}
 *   {"cmd":"cancel"}
 *   {"cmd":"pause"}
 *   {"cmd":"recover", "uri":"tcp:HOST:PORT"}		uri may be left out
 *   {"cmd":"restart-pager"}
 *   {"cmd":"give-up"}
 *   {"cmd":"set", "lost_source":"wait"}		or "poison"
 *   {"cmd":"gone", "from":0}			the first range wanted, may be left out
 *   {"cmd":"info"}
 *   {"cmd":"watch"}
 */
#ifndef UMEM_QEMU_REQUEST_H
#define UMEM_QEMU_REQUEST_H

#include <jansson.h>

#include "umem-qemu/hmp.h"

enum request_kind {
	REQUEST_MIGRATE,
	REQUEST_CANCEL,
	REQUEST_INFO,
	REQUEST_WATCH,
	REQUEST_START_POSTCOPY,
	REQUEST_PAUSE,
	REQUEST_RECOVER,
	REQUEST_RESTART_PAGER,
	REQUEST_GIVE_UP,
	REQUEST_SET,
	REQUEST_GONE,
};

/**
 * struct request - a request, understood
 * @name: of its kind, as it was written
 * @command: REQUEST_MIGRATE: as the monitor's migrate -d gives it, with -p if not precopy;
 *	REQUEST_RECOVER: its URI, or an empty one; REQUEST_SET: as its migrate_set_parameter does
 * @from: REQUEST_GONE
 */
struct request {
	enum request_kind kind;
	const char *name;
	struct hmp_command command;
	uint32_t from;
};

/**
 * request_decode - understand one object
 * @error: on failure a sentence, the caller's
 *
 * Return: 0, or -1.
 */
int request_decode(struct request *request, json_t *object, char **error);

#endif
