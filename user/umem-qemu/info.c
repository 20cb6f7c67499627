// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/info.h"

#include <string.h>

#include "common/jsonl.h"
#include "common/text.h"
#include "common/util.h"

#define USEC_PER_MSEC	1000ULL

static void set_number(json_t *info, const char *name, uint64_t value)
{
	json_object_set_new(info, name,
			    json_integer((json_int_t)min(value, (uint64_t)INT64_MAX)));
}

static void set_string(json_t *info, const char *name, const char *value)
{
	json_object_set_new(info, name, jsonl_string(value));
}

static uint64_t pages_remaining(const struct migration_progress *progress)
{
	return progress->pages_total > progress->pages_done ?
	       progress->pages_total - progress->pages_done : 0;
}

/* What is dirty says nothing any more once the guest has gone. */
static void set_precopy(json_t *info, const struct migration *migration)
{
	const struct migration_progress *progress = &migration->progress;

	if (!progress->round)
		return;
	set_number(info, "round", progress->round);
	set_number(info, "precopy_bytes", progress->precopy_bytes);
	if (migration->moved)
		return;
	set_number(info, "pages_dirty", progress->dirty_pages);
	set_number(info, "expected_downtime_ms", progress->expected_downtime_ms);
}

static void set_progress(json_t *info, const struct migration *migration)
{
	const struct migration_progress *progress = &migration->progress;
	bool source = migration->role == MIGRATION_SOURCE;

	set_number(info, "pages_total", progress->pages_total);
	set_number(info, source ? "pages_sent" : "pages_present", progress->pages_done);
	set_number(info, "pages_remaining", pages_remaining(progress));
	set_number(info, "zero_pages", progress->zero_pages);
	if (progress->compressed_pages) {
		set_number(info, "compressed_pages", progress->compressed_pages);
		set_number(info, "compression_saved_bytes", progress->saved_bytes);
	}
	set_number(info, "urgent_bytes", progress->urgent_bytes);
	set_number(info, "bulk_bytes", progress->bulk_bytes);
	set_number(info, "control_bytes", progress->control_bytes);
	set_number(info, "throughput_bytes_per_s", progress->rate_bytes);
	set_number(info, "requests", progress->requests);
	if (source)
		return;
	set_number(info, "faults", progress->faults);
	set_number(info, "fault_p50_us", progress->fault_p50_us);
	set_number(info, "fault_p90_us", progress->fault_p90_us);
	set_number(info, "fault_p99_us", progress->fault_p99_us);
	set_number(info, "fault_max_us", progress->fault_max_us);
	set_number(info, "duplicates", progress->duplicates);
	set_number(info, "checksum_errors", progress->checksum_errors);
}

/* Neither side sees all of it: what lies between is GO's way through the network. */
static void set_downtime(json_t *info, const struct migration *migration)
{
	uint64_t stopped = migration->stopped_us, go = migration->go_us,
		 resumed = migration->resumed_us;

	if (!migration->running || !go)
		return;
	if (stopped && go > stopped)
		set_number(info, "stop_to_go_ms", (go - stopped) / USEC_PER_MSEC);
	if (resumed > go)
		set_number(info, "go_to_resume_ms", (resumed - go) / USEC_PER_MSEC);
}

static void set_times(json_t *info, const struct migration *migration, uint64_t now_us)
{
	uint64_t end_us = migration->ended_us ? migration->ended_us : now_us;

	if (migration->started_us)
		set_number(info, "total_time_ms",
			   (end_us - migration->started_us) / USEC_PER_MSEC);
	if (migration->stopped_us && (migration->moved || migration->phase == PHASE_SWITCH))
		set_number(info, "guest_stopped_at_us", migration->stopped_us);
	if (migration->resumed_us)
		set_number(info, "guest_resumed_at_us", migration->resumed_us);
	set_downtime(info, migration);
}

json_t *info_json(const struct migration *migration, uint64_t now_us)
{
	json_t *info = memory_or_exit(json_object());

	if (!migration_exists(migration)) {
		set_string(info, "status", "none");
		return info;
	}
	set_string(info, "status", migration->state);
	if (migration->reason && strcmp(migration->state, "cancelled"))
		set_string(info, "reason", migration->reason);
	set_string(info, "role",
		   migration->role == MIGRATION_SOURCE ? "source" : "destination");
	if (migration->command.uri[0])
		set_string(info, "uri", migration->command.uri);
	set_times(info, migration, now_us);
	if (migration->progress.known) {
		set_precopy(info, migration);
		set_progress(info, migration);
	}
	return info;
}
