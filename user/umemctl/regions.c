// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/regions.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/util.h"

#define BAR_MAX		40
#define SIZE_TEXT	32

static uint64_t number(json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

static const char *string(json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value ? value : "";
}

static bool flag(json_t *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}

static const char *bytes_text(char text[SIZE_TEXT], uint64_t bytes)
{
	bool mib = bytes && bytes % (1 << 20) == 0;

	snprintf(text, SIZE_TEXT, "%" PRIu64 " %s", bytes >> (mib ? 20 : 10), mib ? "MiB" : "KiB");
	return text;
}

static const char *time_text(char text[SIZE_TEXT], uint64_t ns)
{
	static const struct {
		uint64_t ns;
		const char *name;
	} units[] = { { NSEC_PER_SEC, "s" }, { NSEC_PER_MSEC, "ms" }, { NSEC_PER_USEC, "us" } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (ns >= units[i].ns) {
			snprintf(text, SIZE_TEXT, "%.1f %s", (double)ns / (double)units[i].ns,
				 units[i].name);
			return text;
		}
	}
	snprintf(text, SIZE_TEXT, "%" PRIu64 " ns", ns);
	return text;
}

/* ---- choosing one ---- */

static char *list(json_t *regions)
{
	struct text text = { 0 };
	json_t *region;
	size_t i;

	json_array_foreach(regions, i, region)
		text_add(&text, "%s%" PRIu64 "%s%s%s", i ? ", " : "", number(region, "id"),
			 *string(region, "name") ? " (" : "", string(region, "name"),
			 *string(region, "name") ? ")" : "");
	return text_take(&text);
}

static bool has_id(json_t *region, const char *wanted)
{
	char id[SIZE_TEXT];

	snprintf(id, sizeof(id), "%" PRIu64, number(region, "id"));
	return !strcmp(id, wanted);
}

json_t *regions_choose(json_t *regions, const char *wanted, char **error)
{
	json_t *region, *found = NULL;
	size_t i, named = 0;
	char *all;

	*error = NULL;
	json_array_foreach(regions, i, region) {
		if (has_id(region, wanted))
			return region;
		if (*wanted && !strcmp(string(region, "name"), wanted)) {
			found = region;
			named++;
		}
	}
	if (named == 1)
		return found;
	if (!json_array_size(regions)) {
		*error = text_format("region is \"%s\", and there is none that this user may see",
				     wanted);
		return NULL;
	}
	all = list(regions);
	if (named)
		*error = text_format("region is \"%s\", the name of %zu, wanted the id of one of: %s",
				     wanted, named, all);
	else
		*error = text_format("region is \"%s\", wanted one of: %s", wanted, all);
	free(all);
	return NULL;
}

/* ---- what they are ---- */

char *regions_table(json_t *regions)
{
	char length[SIZE_TEXT], missing[SIZE_TEXT];
	struct text text = { 0 };
	json_t *region;
	size_t i;

	text_add(&text, "%8s  %-20s %12s %12s %7s %-5s %8s %8s\n", "REGION", "NAME", "LENGTH",
		 "MISSING", "WAITERS", "PAGER", "UID", "PID");
	json_array_foreach(regions, i, region) {
		text_add(&text, "%8" PRIu64 "  %-20s %12s %12s %7" PRIu64 " %-5s %8" PRIu64
			 " %8" PRIu64 "\n",
			 number(region, "id"), *string(region, "name") ? string(region, "name") : "-",
			 bytes_text(length, number(region, "length_bytes")),
			 bytes_text(missing, number(region, "missing_bytes")),
			 number(region, "waiters"), flag(region, "pager") ? "yes" : "no",
			 number(region, "uid"), number(region, "pid"));
	}
	return text_take(&text);
}

char *regions_text(json_t *region)
{
	char size[SIZE_TEXT];
	struct text text = { 0 };

	text_add(&text, "region %" PRIu64 "\n", number(region, "id"));
	text_add(&text, "  name: %s\n", *string(region, "name") ? string(region, "name") : "-");
	text_add(&text, "  user: %" PRIu64 "\n", number(region, "uid"));
	text_add(&text, "  process: %" PRIu64 "\n", number(region, "pid"));
	text_add(&text, "  length: %s\n", bytes_text(size, number(region, "length_bytes")));
	text_add(&text, "  missing: %s\n", bytes_text(size, number(region, "missing_bytes")));
	text_add(&text, "  poisoned: %s\n", bytes_text(size, number(region, "poisoned_bytes")));
	text_add(&text, "  waiters: %" PRIu64 "\n", number(region, "waiters"));
	text_add(&text, "  pager: %s\n", flag(region, "pager") ? "attached" : "none");
	text_add(&text, "  dirty pages: %s\n", flag(region, "tracked") ? "tracked" : "not tracked");
	return text_take(&text);
}

/* ---- what happened in them ---- */

/* Where the bar ends that has this share of all waits below it, or 0: it has no end. */
static uint64_t quantile(json_t *bars, uint64_t all, unsigned int percent)
{
	uint64_t sum = 0;
	json_t *bar;
	size_t i;

	json_array_foreach(bars, i, bar) {
		sum += number(bar, "waits");
		if (sum * 100 >= all * percent)
			return number(bar, "below_ns");
	}
	return 0;
}

static void add_quantile(struct text *text, json_t *bars, uint64_t all, unsigned int percent)
{
	uint64_t below = quantile(bars, all, percent);
	char time[SIZE_TEXT];

	if (below)
		text_add(text, "  %u %% of them below: %s\n", percent, time_text(time, below));
}

static void add_latency(struct text *text, json_t *bars)
{
	static const char blocks[BAR_MAX + 1] = "########################################";
	char from[SIZE_TEXT], below[SIZE_TEXT];
	uint64_t all = 0, most = 0;
	json_t *bar;
	size_t i;

	json_array_foreach(bars, i, bar) {
		all += number(bar, "waits");
		most = max(most, number(bar, "waits"));
	}
	if (!all)
		return;
	text_add(text, "  waits that the page ended: %" PRIu64 "\n", all);
	add_quantile(text, bars, all, 50);
	add_quantile(text, bars, all, 99);
	text_add(text, "  %12s %12s %12s\n", "FROM", "BELOW", "WAITS");
	json_array_foreach(bars, i, bar) {
		uint64_t waits = number(bar, "waits"), end = number(bar, "below_ns");

		text_add(text, "  %12s %12s %12" PRIu64 " %.*s\n",
			 time_text(from, number(bar, "from_ns")), end ? time_text(below, end) : "-",
			 waits, (int)((waits * BAR_MAX + most - 1) / most), blocks);
	}
}

static void add_threads(struct text *text, json_t *threads, uint64_t now_ns)
{
	char total[SIZE_TEXT], longest[SIZE_TEXT], since[SIZE_TEXT];
	json_t *thread;
	size_t i;

	json_array_foreach(threads, i, thread) {
		uint64_t begun = number(thread, "since_ns");

		if (!i)
			text_add(text, "  %12s %12s %12s %12s  %-16s %s\n", "THREAD", "WAITS", "WAITED",
				 "LONGEST", "NAME", "NOW");
		text_add(text, "  %12" PRIu64 " %12" PRIu64 " %12s %12s  %-16s",
			 number(thread, "tid"), number(thread, "waits"),
			 time_text(total, number(thread, "wait_time_ns")),
			 time_text(longest, number(thread, "longest_ns")), string(thread, "comm"));
		if (begun)
			text_add(text, " waits for 0x%" PRIx64 " since %s\n",
				 number(thread, "offset_bytes"),
				 time_text(since, now_ns > begun ? now_ns - begun : 0));
		else
			text_add(text, " -\n");
	}
}

char *regions_stats_text(json_t *stats, uint64_t now_ns)
{
	json_t *counters = json_object_get(stats, "counters"), *value;
	char time[SIZE_TEXT];
	struct text text = { 0 };
	const char *name;

	text_add(&text, "region %" PRIu64 "%s%s\n", number(stats, "id"),
		 *string(stats, "name") ? ", " : "", string(stats, "name"));
	json_object_foreach(counters, name, value)
		text_add(&text, "  %s: %" PRIu64 "\n", name, (uint64_t)json_integer_value(value));
	text_add(&text, "  waits: %" PRIu64 "\n", number(stats, "waits"));
	text_add(&text, "  waited: %s\n", time_text(time, number(stats, "wait_time_ns")));
	add_latency(&text, json_object_get(stats, "latency"));
	add_threads(&text, json_object_get(stats, "threads"), now_ns);
	return text_take(&text);
}

char *regions_event_text(json_t *event)
{
	uint64_t ns = number(event, "time_ns");
	char size[SIZE_TEXT];
	struct text text = { 0 };

	text_add(&text, "[%5llu.%06llu] %s: region %" PRIu64, ns / NSEC_PER_SEC,
		 ns % NSEC_PER_SEC / NSEC_PER_USEC, string(event, "event"), number(event, "id"));
	if (*string(event, "name"))
		text_add(&text, " (%s)", string(event, "name"));
	if (json_object_get(event, "size_bytes"))
		text_add(&text, ", %s from 0x%" PRIx64,
			 bytes_text(size, number(event, "size_bytes")), number(event, "offset_bytes"));
	text_add(&text, ", %s long", bytes_text(size, number(event, "length_bytes")));
	if (number(event, "missing_bytes"))
		text_add(&text, ", %s missing", bytes_text(size, number(event, "missing_bytes")));
	if (number(event, "poisoned_bytes"))
		text_add(&text, ", %s poisoned", bytes_text(size, number(event, "poisoned_bytes")));
	text_add(&text, "\n");
	return text_take(&text);
}
