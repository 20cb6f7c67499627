/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Regions, as attributes_json() tells of them: which one is meant, and texts for people. */
#ifndef UMEMCTL_REGIONS_H
#define UMEMCTL_REGIONS_H

#include <jansson.h>
#include <stdint.h>

/**
 * regions_choose - the one that is meant
 * @regions: an array
 * @wanted: an id or a name
 * @error: on failure a sentence that lists them, the caller's
 *
 * Return: one of @regions, still its own, or NULL.
 */
json_t *regions_choose(json_t *regions, const char *wanted, char **error);

/**
 * regions_table - a line each, under a line of headings
 */
char *regions_table(json_t *regions);

/**
 * regions_text - all that is known of one, line after line
 */
char *regions_text(json_t *region);

/**
 * regions_stats_text - what happened in one
 * @stats: its statistics, with "threads", those that waited in it
 * @now_ns: CLOCK_MONOTONIC
 */
char *regions_stats_text(json_t *stats, uint64_t now_ns);

/**
 * regions_event_text - a line
 */
char *regions_event_text(json_t *event);

#endif
