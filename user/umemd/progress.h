/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both roles count, and how it is told. */
#ifndef UMEMD_PROGRESS_H
#define UMEMD_PROGRESS_H

#include <jansson.h>
#include <stdint.h>

#include "umemd/histogram.h"

#define PROGRESS_PERIOD_NS	250000000ULL

/**
 * struct progress - counters of one migration
 * @bytes: on the wire, both directions, by enum channel_kind
 * @pages_done: source: pages sent at least once; destination: pages present
 * @requests: pages asked for
 * @zero_pages: pages that went as a bit
 * @compressed_pages: pages that went smaller than they are
 * @saved_bytes: by how much
 * @round: of pre-copy, from 1 on; 0 without
 * @dirty_pages: source: pages that would follow if the guest were stopped now
 * @expected_downtime_ms: how long they would take; below 0: not known
 * @precopy_bytes: source: sent on bulk before the guest was stopped
 * @duplicates: source: pages sent again; destination: pages that came for nothing
 */
struct progress {
	uint64_t bytes[3];
	uint64_t pages_total;
	uint64_t pages_done;
	uint64_t requests;
	uint64_t zero_pages;
	uint64_t compressed_pages;
	uint64_t saved_bytes;
	uint64_t round;
	uint64_t dirty_pages;
	int64_t expected_downtime_ms;
	uint64_t precopy_bytes;
	uint64_t duplicates;
	uint64_t checksum_errors;
	uint64_t faults;
	struct histogram latencies;	/* ns */

	uint64_t started_ns;
	uint64_t last_ns;
	uint64_t last_bytes;
	uint64_t rate;			/* bytes a second */
};

void progress_start(struct progress *progress, uint64_t now);

/* Is it time for the next event? */
int progress_due(const struct progress *progress, uint64_t now);

/* The event; the rate is that since the event before. */
json_t *progress_event(struct progress *progress, const char *state, const char *done_key,
		       uint64_t now);

#endif
