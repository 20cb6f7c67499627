/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages of the source's regions the guest has written to: the module's
 * dirty tracking, told to the scheduler a piece at a time.
 */
#ifndef UMEMD_TRACKER_H
#define UMEMD_TRACKER_H

#include <stdbool.h>
#include <stdint.h>

#include "umemd/codec.h"
#include "umemd/scheduler.h"

#define TRACKER_STEP	(16ULL << 20)	/* bytes of a region that are collected at once */

/**
 * struct tracker - the source as the pager of its own regions
 * @pagers: pager fds; tracking ends when they are closed
 * @region: the next that is to be collected, from @offset on
 */
struct tracker {
	int pagers[REGIONS_MAX];
	uint64_t lengths[REGIONS_MAX];
	uint32_t nr_regions;
	uint32_t region;
	uint64_t offset;
};

/**
 * tracker_start - every page counts as dirty from now on
 * @names: for messages
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0, and tracker_stop() is owed; a negative errno.
 */
int tracker_start(struct tracker *tracker, const struct hello_region *regions, const int *fds,
		  uint32_t nr_regions, char *error);
void tracker_stop(struct tracker *tracker);

/* From the first page of the first region again. */
void tracker_rewind(struct tracker *tracker);

/* Is every page collected since the last rewind? */
bool tracker_is_done(const struct tracker *tracker);

/**
 * tracker_step - collect the next piece
 * @range: which pages of @region it was; NULL if nobody wants to know
 *
 * Return: 0; a negative errno.
 */
int tracker_step(struct tracker *tracker, struct scheduler *scheduler, uint32_t *region,
		 struct page_range *range);

#endif
