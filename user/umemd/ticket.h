/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a umemd has to know to go on with the session of one that has ended. Each umemd
 * tells it the launcher (event "session"), who keeps it, not knowing what is in it, and
 * gives it to the next one (--resume). A secret: who has it can take the session over.
 */
#ifndef UMEMD_TICKET_H
#define UMEMD_TICKET_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "umemd/codec.h"

/**
 * struct ticket - a session
 * @features: those agreed on
 * @names: of the regions, in the order of the source's numbers
 * @gone: GO was said, or heard; the launcher adds this
 * @run: and what GO says; the launcher adds this, too
 */
struct ticket {
	uint8_t session[SESSION_SIZE];
	uint64_t features;
	uint32_t nr_regions;
	char names[REGIONS_MAX][REGION_NAME_MAX];
	bool gone;
	bool run;
};

/* For the launcher: without @gone and @run. NULL: out of memory. */
json_t *ticket_encode(const struct ticket *ticket);

/* These return 0, or -EINVAL with a sentence in @error, CODEC_ERROR_MAX bytes. */
int ticket_decode(struct ticket *ticket, json_t *json, char *error);

/* From a descriptor, to its end; closes it. */
int ticket_read(struct ticket *ticket, int fd, char *error);

/**
 * ticket_match - our regions by the source's number
 * @ours: all of them must be in the ticket, and no other
 * @index: filled: ours[index[n]] is region n
 */
int ticket_match(const struct ticket *ticket, const struct hello_region *ours, uint32_t count,
		 uint32_t *index, char *error);

#endif
