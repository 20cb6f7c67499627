/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both roles count, and how it is told. */
#ifndef UMEMD_PROGRESS_H
#define UMEMD_PROGRESS_H

#include <jansson.h>
#include <stdint.h>

#include "umemd/blocktime.h"
#include "umemd/histogram.h"
#include "umemd/pending.h"
#include "umemd/session.h"

#define PROGRESS_PERIOD_NS	250000000ULL

/**
 * struct progress - counters of one migration
 * @bytes: on the wire, both directions, by enum channel_kind
 * @channels: that are connected and stay, likewise
 * @pages_done: source: pages sent at least once; destination: pages present
 * @requests: pages asked for
 * @zero_pages: pages that went as a bit
 * @compressed_pages: pages that went smaller than they are
 * @saved_bytes: by how much
 * @round: of pre-copy, from 1 on; 0 without
 * @early: the guest still runs at the source: @dirty_pages and @expected_downtime_ms
 *	mean something
 * @dirty_pages: source: pages that would follow if the guest were stopped now
 * @expected_downtime_ms: how long they would take; below 0: not known
 * @precopy_bytes: source: sent on bulk before the guest was stopped
 * @prefault_pages: source: pages sent because a neighbour was asked for
 * @prefault_hits: source: of those, pages that were asked for before they arrived
 * @duplicates: source: pages sent again; destination: pages that came for nothing
 * @checksum_errors: destination: pages that came damaged
 * @damaged_pages: destination: pages that did DAMAGE_REPORTED times
 * @faults: destination: pages that somebody waited for
 * @latencies: destination: for how long, microseconds
 * @blocktime: destination: who
 * @rates: bytes a second, as @bytes
 */
struct progress {
	uint64_t bytes[3];
	uint64_t channels[3];
	uint64_t pages_total;
	uint64_t pages_done;
	uint64_t requests;
	uint64_t zero_pages;
	uint64_t compressed_pages;
	uint64_t saved_bytes;
	uint64_t round;
	bool early;
	uint64_t dirty_pages;
	int64_t expected_downtime_ms;
	uint64_t precopy_bytes;
	uint64_t prefault_pages;
	uint64_t prefault_hits;
	uint64_t duplicates;
	uint64_t checksum_errors;
	uint64_t damaged_pages;
	uint64_t faults;
	struct histogram latencies;
	struct blocktime blocktime;

	uint64_t started_ns;
	uint64_t last_ns;
	uint64_t last_bytes[3];
	uint64_t rates[3];
};

void progress_start(struct progress *progress, uint64_t now);

/* Is it time for the next event? */
int progress_due(const struct progress *progress, uint64_t now);

/* Somebody waits for a page. */
void progress_wait_begins(struct progress *progress, const struct pending_wait *wait);

/* It is there. */
void progress_wait_ends(struct progress *progress, const struct pending_wait *wait, uint64_t now);

/* The event; rates are those since the event before. */
json_t *progress_event(struct progress *progress, enum session_role role, const char *state,
		       uint64_t now);

#endif
