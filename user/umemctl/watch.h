/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a waiting umemctl makes of umem-qemu's events. */
#ifndef UMEMCTL_WATCH_H
#define UMEMCTL_WATCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/meter.h"

#define WATCH_GOES_ON	(-1)

/**
 * struct watch - one migration that is waited for
 * @told: umem-qemu has said in its own words why it failed
 */
struct watch {
	struct meter meter;
	bool told;
};

/**
 * watch_begin - as meter_begin()
 */
void watch_begin(struct watch *watch, unsigned int columns, uint64_t now_ns);

/**
 * watch_event - understand an event
 * @out: set to what to write, the caller's, or NULL
 * @error: set to a message about what went wrong, to be written after @out; the caller's, or NULL
 *
 * Return: WATCH_GOES_ON; at the end 0 if the migration was completed, else 1.
 */
int watch_event(struct watch *watch, json_t *event, uint64_t now_ns, char **out, char **error);

#endif
