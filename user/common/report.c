// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/report.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/text.h"
#include "common/util.h"

#define USEC_PER_SEC	1000000ULL

typedef unsigned long long ull;

struct row {
	const char *name;	/* in the JSON object */
	const char *key;	/* for people */
	void (*add)(struct text *text, const struct row *row, json_t *info);
};

void report_time(char text[REPORT_TIME_MAX], uint64_t time_us)
{
	time_t seconds = (time_t)(time_us / USEC_PER_SEC);
	struct tm tm;
	size_t used;

	gmtime_r(&seconds, &tm);
	used = strftime(text, REPORT_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + used, REPORT_TIME_MAX - used, ".%06lluZ", (ull)(time_us % USEC_PER_SEC));
}

void report_clean(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
	}
}

static uint64_t number(json_t *info, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(info, name));

	return value > 0 ? (uint64_t)value : 0;
}

/* Never NULL; the caller's. */
static char *string(json_t *info, const char *name)
{
	const char *value = json_string_value(json_object_get(info, name));
	char *copy = text_copy(value ? value : "");

	report_clean(copy);
	return copy;
}

/* ---- a value each ---- */

static void add_status(struct text *text, const struct row *row, json_t *info)
{
	char *status = string(info, row->name), *reason = string(info, "reason");

	text_add(text, "%s: %s", row->key, status);
	if (*reason)
		text_add(text, " (%s)", reason);
	text_add(text, "\n");
	free(status);
	free(reason);
}

static void add_string(struct text *text, const struct row *row, json_t *info)
{
	char *value = string(info, row->name);

	text_add(text, "%s: %s\n", row->key, value);
	free(value);
}

static void add_number(struct text *text, const struct row *row, json_t *info)
{
	text_add(text, "%s: %llu\n", row->key, (ull)number(info, row->name));
}

static void add_bytes(struct text *text, const struct row *row, json_t *info)
{
	text_add(text, "%s: %llu bytes\n", row->key, (ull)number(info, row->name));
}

static void add_ms(struct text *text, const struct row *row, json_t *info)
{
	text_add(text, "%s: %llu ms\n", row->key, (ull)number(info, row->name));
}

static void add_time(struct text *text, const struct row *row, json_t *info)
{
	char time[REPORT_TIME_MAX];

	report_time(time, number(info, row->name));
	text_add(text, "%s: %s\n", row->key, time);
}

static double mbps(json_t *info, const char *name)
{
	return (double)number(info, name) * 8 / 1e6;
}

static void add_rates(struct text *text, const struct row *row, json_t *info)
{
	text_add(text, "%s: %.2f mbps (urgent %.2f, bulk %.2f, control %.2f)\n", row->key,
		 mbps(info, row->name), mbps(info, "urgent_bytes_per_s"),
		 mbps(info, "bulk_bytes_per_s"), mbps(info, "control_bytes_per_s"));
}

static void add_latency(struct text *text, const struct row *row, json_t *info)
{
	text_add(text, "%s: p50 %llu us, p90 %llu us, p99 %llu us, max %llu us\n", row->key,
		 (ull)number(info, row->name), (ull)number(info, "fault_p90_us"),
		 (ull)number(info, "fault_p99_us"), (ull)number(info, "fault_max_us"));
}

static void add_histogram(struct text *text, const struct row *row, json_t *info)
{
	json_t *entry;
	size_t i;

	text_add(text, "%s:", row->key);
	json_array_foreach(json_object_get(info, row->name), i, entry)
		text_add(text, "%s %llu <= %llu us", i ? "," : "", (ull)number(entry, "count"),
			 (ull)number(entry, "le_us"));
	text_add(text, "\n");
}

static void add_blocktimes(struct text *text, const struct row *row, json_t *info)
{
	json_t *entry;
	size_t i;

	json_array_foreach(json_object_get(info, row->name), i, entry) {
		bool vcpu = json_object_get(entry, "cpu");

		text_add(text, "%s %s%llu: %llu ms\n", row->key, vcpu ? "vcpu" : "thread ",
			 (ull)number(entry, vcpu ? "cpu" : "thread_id"),
			 (ull)number(entry, "blocktime_ms"));
	}
}

static void add_compressed(struct text *text, const struct row *row, json_t *info)
{
	text_add(text, "%s: %llu, %llu bytes saved\n", row->key, (ull)number(info, row->name),
		 (ull)number(info, "compression_saved_bytes"));
}

static const struct row rows[] = {
	{ "status", "Migration status", add_status },
	{ "role", "role", add_string },
	{ "uri", "uri", add_string },
	{ "total_time_ms", "total time", add_ms },
	{ "guest_stopped_at_us", "guest stopped", add_time },
	{ "guest_resumed_at_us", "guest resumed", add_time },
	{ "stop_to_go_ms", "downtime, stop to GO", add_ms },
	{ "go_to_resume_ms", "downtime, GO to resume", add_ms },
	{ "round", "round", add_number },
	{ "pages_dirty", "pages dirty", add_number },
	{ "expected_downtime_ms", "expected downtime", add_ms },
	{ "precopy_bytes", "transferred precopy", add_bytes },
	{ "pages_total", "pages total", add_number },
	{ "pages_sent", "pages sent", add_number },
	{ "pages_present", "pages present", add_number },
	{ "pages_remaining", "pages remaining", add_number },
	{ "pages_gone", "pages gone", add_number },
	{ "zero_pages", "zero pages", add_number },
	{ "compressed_pages", "compressed pages", add_compressed },
	{ "urgent_channels", "urgent channels", add_number },
	{ "bulk_channels", "bulk channels", add_number },
	{ "urgent_bytes", "transferred urgent", add_bytes },
	{ "bulk_bytes", "transferred bulk", add_bytes },
	{ "control_bytes", "transferred control", add_bytes },
	{ "throughput_bytes_per_s", "throughput", add_rates },
	{ "requests", "requests", add_number },
	{ "prefault_pages", "prefault pages", add_number },
	{ "prefault_hits", "prefault hits", add_number },
	{ "faults", "faults", add_number },
	{ "fault_p50_us", "fault latency", add_latency },
	{ "fault_histogram", "fault histogram", add_histogram },
	{ "blocktime", "blocktime", add_blocktimes },
	{ "blocktime_others_ms", "blocktime others", add_ms },
	{ "duplicates", "duplicates", add_number },
	{ "checksum_errors", "checksum errors", add_number },
	{ "damaged_pages", "damaged pages", add_number },
	{ "umemd_restarts", "umemd restarts", add_number },
};

char *report_text(json_t *info)
{
	struct text text = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (json_object_get(info, rows[i].name))
			rows[i].add(&text, &rows[i], info);
	}
	return text.data ? text_take(&text) : text_copy("");
}

static bool in_precopy(json_t *info)
{
	return json_object_get(info, "pages_dirty");
}

/* In pre-copy: those that would not have to follow. */
static uint64_t pages_done(json_t *info)
{
	uint64_t total = number(info, "pages_total");

	if (in_precopy(info))
		return total - min(number(info, "pages_dirty"), total);
	return number(info, json_object_get(info, "pages_sent") ? "pages_sent" : "pages_present");
}

unsigned int report_percent(json_t *info)
{
	uint64_t total = number(info, "pages_total");
	double part = total ? (double)min(pages_done(info), total) / (double)total : 0;

	return (unsigned int)(part * 100);
}

static char *precopy_progress(json_t *info)
{
	char *status = string(info, "status");
	struct text line = { 0 };

	text_add(&line, "migrate: %s, round %llu, %llu of %llu pages dirty, ", status,
		 (ull)number(info, "round"), (ull)number(info, "pages_dirty"),
		 (ull)number(info, "pages_total"));
	if (json_object_get(info, "expected_downtime_ms"))
		text_add(&line, "downtime of %llu ms expected, ",
			 (ull)number(info, "expected_downtime_ms"));
	text_add(&line, "%.1f MB/s", (double)number(info, "throughput_bytes_per_s") / 1e6);
	free(status);
	return text_take(&line);
}

char *report_progress(json_t *info)
{
	char *status, *line;

	if (in_precopy(info))
		return precopy_progress(info);
	status = string(info, "status");
	line = text_format("migrate: %s, %llu of %llu pages (%u %%), %.1f MB/s, %llu requests",
			   status, (ull)pages_done(info), (ull)number(info, "pages_total"),
			   report_percent(info),
			   (double)number(info, "throughput_bytes_per_s") / 1e6,
			   (ull)number(info, "requests"));
	free(status);
	return line;
}
