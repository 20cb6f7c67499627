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

/* ---- who waited ---- */

static json_t *find_thread(json_t *list, const char *key, json_t *tid)
{
	json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry) {
		if (json_equal(json_object_get(entry, key), tid))
			return entry;
	}
	return NULL;
}

/* umemd knows of threads that waited, QEMU which of them are its vCPUs: these come first. */
static json_t *blocktime(json_t *cpus, json_t *waits)
{
	json_t *list = memory_or_exit(json_array()), *entry;
	size_t i;

	json_array_foreach(cpus, i, entry) {
		json_t *tid = json_object_get(entry, "thread-id");
		json_t *wait = find_thread(waits, "thread_id", tid);

		if (wait)
			json_array_append_new(list, json_pack("{s:O,s:O,s:O}",
				"cpu", json_object_get(entry, "cpu-index"), "thread_id", tid,
				"blocktime_ms", json_object_get(wait, "blocktime_ms")));
	}
	json_array_foreach(waits, i, entry) {
		if (!find_thread(cpus, "thread-id", json_object_get(entry, "thread_id")))
			json_array_append(list, entry);
	}
	return list;
}

/* What umemd counts is told as it tells it. */
static void set_progress(json_t *info, const struct migration *migration)
{
	json_t *waits = json_object_get(migration->progress, "blocktime");

	json_object_update_missing(info, migration->progress);
	json_object_del(info, "event");
	json_object_del(info, "state");
	if (waits)
		json_object_set_new(info, "blocktime", blocktime(migration->cpus, waits));
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
	if (migration->pages_gone)
		set_number(info, "pages_gone", migration->pages_gone);
	set_progress(info, migration);
	if (migration->restarts)
		set_number(info, "umemd_restarts", migration->restarts);
	return info;
}

void info_gone(const struct migration *migration, uint32_t from, json_t *reply)
{
	json_t *all = migration->gone_ranges, *ranges = memory_or_exit(json_array());
	size_t end = min(json_array_size(all), (size_t)from + INFO_GONE_MAX);

	for (size_t i = from; i < end; i++)
		json_array_append(ranges, json_array_get(all, i));
	set_number(reply, "pages", migration->pages_gone);
	set_number(reply, "ranges_total", json_array_size(all));
	json_object_set_new(reply, "ranges", ranges);
}
