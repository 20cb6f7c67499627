// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/progress.h"

#include <stddef.h>
#include <string.h>

#include "common/util.h"
#include "umemd/codec.h"

#define BY_SOURCE	(1 << ROLE_SOURCE)
#define BY_DESTINATION	(1 << ROLE_DESTINATION)
#define BY_BOTH		(BY_SOURCE | BY_DESTINATION)
#define IF_ANY		(1 << 8)	/* left out while it is 0 */

/* A number of the event. */
struct counter {
	const char *name;
	size_t offset;
	unsigned int flags;
};

#define COUNTER(name, field, flags) { name, offsetof(struct progress, field), flags }

static const struct counter counters[] = {
	COUNTER("pages_total", pages_total, BY_BOTH),
	COUNTER("pages_sent", pages_done, BY_SOURCE),
	COUNTER("pages_present", pages_done, BY_DESTINATION),
	COUNTER("zero_pages", zero_pages, BY_BOTH),
	COUNTER("compressed_pages", compressed_pages, BY_BOTH | IF_ANY),
	COUNTER("compression_saved_bytes", saved_bytes, BY_BOTH | IF_ANY),
	COUNTER("urgent_bytes", bytes[CHANNEL_URGENT], BY_BOTH),
	COUNTER("bulk_bytes", bytes[CHANNEL_BULK], BY_BOTH),
	COUNTER("control_bytes", bytes[CHANNEL_CONTROL], BY_BOTH),
	COUNTER("urgent_bytes_per_s", rates[CHANNEL_URGENT], BY_BOTH),
	COUNTER("bulk_bytes_per_s", rates[CHANNEL_BULK], BY_BOTH),
	COUNTER("control_bytes_per_s", rates[CHANNEL_CONTROL], BY_BOTH),
	COUNTER("urgent_channels", channels[CHANNEL_URGENT], BY_BOTH),
	COUNTER("bulk_channels", channels[CHANNEL_BULK], BY_BOTH),
	COUNTER("requests", requests, BY_BOTH),
	COUNTER("prefault_pages", prefault_pages, BY_SOURCE),
	COUNTER("prefault_hits", prefault_hits, BY_SOURCE),
	COUNTER("faults", faults, BY_DESTINATION),
	COUNTER("duplicates", duplicates, BY_BOTH),
	COUNTER("checksum_errors", checksum_errors, BY_DESTINATION),
	COUNTER("damaged_pages", damaged_pages, BY_DESTINATION | IF_ANY),
};

void progress_start(struct progress *progress, uint64_t now)
{
	progress->started_ns = now;
	progress->last_ns = now;
	memcpy(progress->last_bytes, progress->bytes, sizeof(progress->bytes));
}

int progress_due(const struct progress *progress, uint64_t now)
{
	return progress->started_ns && now - progress->last_ns >= PROGRESS_PERIOD_NS;
}

void progress_wait_begins(struct progress *progress, const struct pending_wait *wait)
{
	progress->faults++;
	blocktime_begin(&progress->blocktime, wait->tid, wait->time_ns);
}

void progress_wait_ends(struct progress *progress, const struct pending_wait *wait, uint64_t now)
{
	uint64_t ns = now > wait->time_ns ? now - wait->time_ns : 0;

	histogram_add(&progress->latencies, (ns + NSEC_PER_USEC / 2) / NSEC_PER_USEC);
	blocktime_end(&progress->blocktime, wait->tid, now);
}

static void set_number(json_t *event, const char *name, uint64_t value)
{
	json_object_set_new(event, name, json_integer((json_int_t)value));
}

static void set_rates(struct progress *progress, uint64_t now)
{
	uint64_t elapsed = now - progress->last_ns;

	/* A last event right after another says nothing new. */
	if (elapsed < PROGRESS_PERIOD_NS / 2)
		return;
	for (int i = 0; i < 3; i++) {
		uint64_t bytes = progress->bytes[i] - progress->last_bytes[i];

		progress->rates[i] = (uint64_t)((double)bytes * (double)NSEC_PER_SEC /
						(double)elapsed);
	}
	progress->last_ns = now;
	memcpy(progress->last_bytes, progress->bytes, sizeof(progress->bytes));
}

static json_t *powers(const struct histogram *histogram)
{
	json_t *array = json_array();

	/* The values were nanoseconds once, none is near 2^63. */
	for (unsigned int i = 0; i < 63; i++) {
		if (histogram->powers[i])
			json_array_append_new(array, json_pack("{s:I,s:I}",
				"le_us", (json_int_t)1 << i,
				"count", (json_int_t)histogram->powers[i]));
	}
	return array;
}

static json_t *threads(const struct blocktime *blocktime, uint64_t now)
{
	json_t *array = json_array();

	for (uint32_t i = 0; i < blocktime->nr_threads; i++) {
		const struct blocktime_thread *thread = &blocktime->threads[i];

		json_array_append_new(array, json_pack("{s:I,s:I}",
			"thread_id", (json_int_t)thread->tid,
			"blocktime_ms", (json_int_t)(blocktime_total(thread, now) / NSEC_PER_MSEC)));
	}
	return array;
}

static void set_waits(json_t *event, const struct progress *progress, uint64_t now)
{
	const struct histogram *latencies = &progress->latencies;
	uint64_t others = blocktime_total(&progress->blocktime.others, now);

	set_number(event, "fault_p50_us", histogram_percentile(latencies, 50));
	set_number(event, "fault_p90_us", histogram_percentile(latencies, 90));
	set_number(event, "fault_p99_us", histogram_percentile(latencies, 99));
	set_number(event, "fault_max_us", histogram_percentile(latencies, 100));
	json_object_set_new(event, "fault_histogram", powers(latencies));
	json_object_set_new(event, "blocktime", threads(&progress->blocktime, now));
	if (others)
		set_number(event, "blocktime_others_ms", others / NSEC_PER_MSEC);
}

/* What is dirty says nothing any more once the guest has stopped. */
static void set_precopy(json_t *event, const struct progress *progress)
{
	if (!progress->round)
		return;
	set_number(event, "round", progress->round);
	set_number(event, "precopy_bytes", progress->precopy_bytes);
	if (!progress->early)
		return;
	set_number(event, "pages_dirty", progress->dirty_pages);
	if (progress->expected_downtime_ms >= 0)
		set_number(event, "expected_downtime_ms",
			   (uint64_t)progress->expected_downtime_ms);
}

json_t *progress_event(struct progress *progress, enum session_role role, const char *state,
		       uint64_t now)
{
	json_t *event = json_pack("{s:s,s:s}", "event", "progress", "state", state);
	uint64_t rate = 0;

	set_rates(progress, now);
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		const struct counter *counter = &counters[i];
		uint64_t value = *(const uint64_t *)((const char *)progress + counter->offset);

		if (counter->flags & 1 << role && (value || !(counter->flags & IF_ANY)))
			set_number(event, counter->name, value);
	}
	for (int i = 0; i < 3; i++)
		rate += progress->rates[i];
	set_number(event, "throughput_bytes_per_s", rate);
	set_number(event, "pages_remaining", progress->pages_total - progress->pages_done);
	set_precopy(event, progress);
	if (role == ROLE_DESTINATION)
		set_waits(event, progress, now);
	return event;
}
