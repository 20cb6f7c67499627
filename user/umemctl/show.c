// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/show.h"

#include <linux/umem_netlink.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/text.h"
#include "common/util.h"
#include "umemctl/guests.h"
#include "umemctl/netlink.h"
#include "umemctl/regions.h"

static int fail(char *error)
{
	log_error("%s", error);
	free(error);
	return EXIT_FAILURE;
}

static void print(char *text)
{
	fputs(text, stdout);
	free(text);
}

static void print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
}

/* 0, or -1 after a message. */
static int open_family(struct netlink *netlink)
{
	char *error;

	if (!netlink_open(netlink, &error))
		return 0;
	fail(error ? error : text_copy("the kernel has no generic netlink family " UMEM_FAMILY_NAME
				       ", wanted its module umem loaded"));
	return -1;
}

/* The regions there are; none without the module. NULL after a message. */
static json_t *find_regions(void)
{
	struct netlink netlink;
	json_t *regions;
	char *error;

	if (!netlink_open(&netlink, &error)) {
		regions = netlink_dump(&netlink, UMEM_CMD_REGION_GET, 0, &error);
		netlink_close(&netlink);
	} else {
		regions = error ? NULL : json_array();
	}
	if (!regions)
		fail(error);
	return regions;
}

int show_list(const struct options *options)
{
	json_t *regions = find_regions();
	struct guests guests;

	guests_find(&guests);
	if (options->json) {
		json_t *all = json_pack("{s:o, s:O*}", "guests", guests_json(&guests), "regions",
					regions);

		print_json(all);
		json_decref(all);
	} else {
		print(guests_table(&guests));
		if (json_array_size(regions)) {
			putchar('\n');
			print(regions_table(regions));
		}
	}
	guests_free(&guests);
	json_decref(regions);
	return regions ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * What a command tells of the region that is meant, or of all; an array, or NULL after
 * a message. @id is the region's, or 0.
 */
static json_t *find_wanted(struct netlink *netlink, int command, const char *wanted, uint32_t *id)
{
	json_t *regions, *region, *answers = NULL;
	char *error = NULL;

	*id = 0;
	if (wanted) {
		regions = netlink_dump(netlink, UMEM_CMD_REGION_GET, 0, &error);
		region = regions ? regions_choose(regions, wanted, &error) : NULL;
		*id = (uint32_t)json_integer_value(json_object_get(region, "id"));
		json_decref(regions);
	}
	if (!error)
		answers = netlink_dump(netlink, command, *id, &error);
	if (!answers)
		fail(error);
	return answers;
}

/* One object if one was meant. */
static void print_answers(json_t *answers, const struct options *options)
{
	print_json(options->region ? json_array_get(answers, 0) : answers);
}

int show_regions(const struct options *options)
{
	struct netlink netlink;
	json_t *regions, *region;
	uint32_t id;
	size_t i;

	if (open_family(&netlink))
		return EXIT_FAILURE;
	regions = find_wanted(&netlink, UMEM_CMD_REGION_GET, options->region, &id);
	if (options->json && regions)
		print_answers(regions, options);
	else
		json_array_foreach(regions, i, region)
			print(regions_text(region));
	json_decref(regions);
	netlink_close(&netlink);
	return regions ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Give each region's statistics the threads that waited in it. */
static void join_threads(json_t *stats, json_t *threads)
{
	json_t *one, *thread;
	size_t i, j;

	json_array_foreach(stats, i, one) {
		json_t *own = json_array();

		json_array_foreach(threads, j, thread) {
			if (json_equal(json_object_get(one, "id"), json_object_get(thread, "id")))
				json_array_append(own, thread);
		}
		json_object_set_new(one, "threads", own);
	}
}

static int print_stats(const struct options *options, json_t *stats, json_t *threads)
{
	json_t *one;
	size_t i;

	join_threads(stats, threads);
	if (options->json)
		print_answers(stats, options);
	else
		json_array_foreach(stats, i, one)
			print(regions_stats_text(one, now_ns()));
	return EXIT_SUCCESS;
}

int show_stats(const struct options *options)
{
	json_t *stats, *threads = NULL;
	struct netlink netlink;
	int status = EXIT_FAILURE;
	char *error;
	uint32_t id;

	if (open_family(&netlink))
		return EXIT_FAILURE;
	stats = find_wanted(&netlink, UMEM_CMD_STATS_GET, options->region, &id);
	if (stats) {
		threads = netlink_dump(&netlink, UMEM_CMD_THREAD_GET, id, &error);
		status = threads ? print_stats(options, stats, threads) : fail(error);
	}
	json_decref(threads);
	json_decref(stats);
	netlink_close(&netlink);
	return status;
}

static void print_event(json_t *event, void *context)
{
	const struct options *options = context;

	if (!event)
		log_warning("events: some were lost, this is too slow for them");
	else if (!options->json)
		print(regions_event_text(event));
	else if (!json_dumpf(event, stdout, JSON_COMPACT))
		putchar('\n');
	fflush(stdout);
}

int show_events(const struct options *options)
{
	struct netlink netlink;
	int status;

	if (open_family(&netlink))
		return EXIT_FAILURE;
	status = fail(netlink_listen(&netlink, print_event, (void *)options));
	netlink_close(&netlink);
	return status;
}
