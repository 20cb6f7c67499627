// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/info.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/text.h"

#define USEC_PER_SEC	1000000ULL
#define USEC_PER_MSEC	1000ULL

typedef unsigned long long ull;

void info_time(char text[INFO_TIME_MAX], uint64_t time_us)
{
	time_t seconds = (time_t)(time_us / USEC_PER_SEC);
	struct tm tm;
	size_t used;

	gmtime_r(&seconds, &tm);
	used = strftime(text, INFO_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + used, INFO_TIME_MAX - used, ".%06lluZ", (ull)(time_us % USEC_PER_SEC));
}

static uint64_t pages_remaining(const struct migration_progress *progress)
{
	return progress->pages_total > progress->pages_done ?
	       progress->pages_total - progress->pages_done : 0;
}

static void add_time(struct text *text, const char *key, uint64_t time_us)
{
	char time[INFO_TIME_MAX];

	if (!time_us)
		return;
	info_time(time, time_us);
	text_add(text, "%s: %s\n", key, time);
}

static void add_progress(struct text *text, const struct migration *migration)
{
	const struct migration_progress *progress = &migration->progress;
	bool source = migration->role == MIGRATION_SOURCE;

	text_add(text, "pages total: %llu\n", (ull)progress->pages_total);
	text_add(text, "pages %s: %llu\n", source ? "sent" : "present", (ull)progress->pages_done);
	text_add(text, "pages remaining: %llu\n", (ull)pages_remaining(progress));
	text_add(text, "zero pages: %llu\n", (ull)progress->zero_pages);
	text_add(text, "transferred urgent: %llu bytes\n", (ull)progress->urgent_bytes);
	text_add(text, "transferred bulk: %llu bytes\n", (ull)progress->bulk_bytes);
	text_add(text, "transferred control: %llu bytes\n", (ull)progress->control_bytes);
	text_add(text, "throughput: %.2f mbps\n", (double)progress->rate_bytes * 8 / 1e6);
	text_add(text, "requests: %llu\n", (ull)progress->requests);
	if (source)
		return;
	text_add(text, "faults: %llu\n", (ull)progress->faults);
	text_add(text, "fault latency: p50 %llu us, p90 %llu us, p99 %llu us, max %llu us\n",
		 (ull)progress->fault_p50_us, (ull)progress->fault_p90_us,
		 (ull)progress->fault_p99_us, (ull)progress->fault_max_us);
	text_add(text, "duplicates: %llu\n", (ull)progress->duplicates);
	text_add(text, "checksum errors: %llu\n", (ull)progress->checksum_errors);
}

char *info_migrate(const struct migration *migration, uint64_t now_us)
{
	uint64_t end_us = migration->ended_us ? migration->ended_us : now_us;
	struct text text = { 0 };

	text_add(&text, "Migration status: %s", migration->state);
	if (migration->reason && strcmp(migration->state, "cancelled"))
		text_add(&text, " (%s)", migration->reason);
	text_add(&text, "\nrole: %s\n",
		 migration->role == MIGRATION_SOURCE ? "source" : "destination");
	if (migration->command.uri[0])
		text_add(&text, "uri: %s\n", migration->command.uri);
	if (migration->started_us)
		text_add(&text, "total time: %llu ms\n",
			 (ull)((end_us - migration->started_us) / USEC_PER_MSEC));
	if (migration->moved || migration->phase == PHASE_SWITCH)
		add_time(&text, "guest stopped", migration->stopped_us);
	add_time(&text, "guest resumed", migration->resumed_us);
	if (migration->progress.known)
		add_progress(&text, migration);
	return text_take(&text);
}

char *info_progress(const struct migration *migration)
{
	const struct migration_progress *progress = &migration->progress;
	double part = progress->pages_total ?
		      (double)progress->pages_done / (double)progress->pages_total : 0;

	return text_format("migrate: %s, %llu of %llu pages (%.0f %%), %.1f MB/s, %llu requests",
			   migration->state, (ull)progress->pages_done,
			   (ull)progress->pages_total, part * 100,
			   (double)progress->rate_bytes / 1e6, (ull)progress->requests);
}
