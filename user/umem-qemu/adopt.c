// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/adopt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/jsonl.h"
#include "common/text.h"
#include "umem-qemu/record.h"
#include "umem-qemu/saved.h"

json_t *adopt_record(const struct options *options, const struct host *host,
		     const struct migration *migration, pid_t qemu, pid_t umemd, const char *qmp)
{
	json_t *regions = memory_or_exit(json_array());
	json_t *record;

	for (size_t i = 0; i < host->nr_regions; i++)
		json_array_append_new(regions, json_pack("{s:s, s:I, s:I}",
			"name", options->regions[i].name,
			"length", (json_int_t)options->regions[i].length,
			"id", (json_int_t)host->region_ids[i]));
	record = json_pack("{s:o, s:o, s:o, s:s, s:o, s:b, s:i, s:o}",
			   "umem-qemu", process_json(getpid()), "qemu", process_json(qemu),
			   "regions", regions, "qmp", qmp,
			   "umemd_path", jsonl_string(host->umemd),
			   "postcopy", options->postcopy,
			   "postcopy_flags", (int)options->postcopy_flags,
			   "migration", saved_encode(migration));
	if (umemd)
		json_object_set_new(record, "umemd", process_json(umemd));
	if (options->name)
		json_object_set_new(record, "name", jsonl_string(options->name));
	return memory_or_exit(record);
}

/* ---- taking over ---- */

static int take_regions(json_t *record, struct options *options, struct host *host, char **error)
{
	json_t *regions = json_object_get(record, "regions"), *region;
	size_t i;

	if (!json_array_size(regions) || json_array_size(regions) > OPTIONS_REGIONS_MAX) {
		*error = text_format("the record has %zu regions, wanted 1 to %d",
				     json_array_size(regions), OPTIONS_REGIONS_MAX);
		return -1;
	}
	json_array_foreach(regions, i, region) {
		const char *name = json_string_value(json_object_get(region, "name"));

		options->regions[i].name = text_copy(name ? name : "");
		options->regions[i].length =
			(uint64_t)json_integer_value(json_object_get(region, "length"));
		host->region_ids[i] = (uint32_t)json_integer_value(json_object_get(region, "id"));
		options->nr_regions++;
	}
	return 0;
}

static void take_options(json_t *record, struct options *options)
{
	const char *name = json_string_value(json_object_get(record, "name"));
	const char *umemd = json_string_value(json_object_get(record, "umemd_path"));

	if (name)
		options->name = text_copy(name);
	if (umemd && !options->umemd)
		options->umemd = text_copy(umemd);
	options->postcopy = json_is_true(json_object_get(record, "postcopy"));
	options->postcopy_flags =
		(unsigned int)json_integer_value(json_object_get(record, "postcopy_flags"));
}

static int check_processes(struct adoption *adoption, char **error)
{
	json_t *other = json_object_get(adoption->record, "umem-qemu");
	json_t *qemu = json_object_get(adoption->record, "qemu");
	int fd = process_open(other);

	if (fd >= 0) {
		close(fd);
		*error = text_format("umem-qemu (pid %d) runs and looks after its QEMU itself, wanted one that has ended",
				     process_pid(other));
		return -1;
	}
	adoption->qemu_fd = process_open(qemu);
	if (adoption->qemu_fd >= 0)
		return 0;
	*error = text_format("its QEMU (pid %d): %s, wanted one that runs%s", process_pid(qemu),
			     strerror(-adoption->qemu_fd),
			     json_object_get(adoption->record, "umemd") ?
			     "; a umemd that serves its memory still does so alone" : "");
	return -1;
}

int adopt_find(struct adoption *adoption, struct options *options, struct host *host,
	       char **error)
{
	*adoption = (struct adoption){ .claim_fd = -1, .qemu_fd = -1 };
	adoption->record = record_find(options->adopt, &adoption->path, error);
	if (!adoption->record)
		return -1;
	adoption->claim_fd = record_claim(adoption->path, error);
	if (adoption->claim_fd < 0 || check_processes(adoption, error))
		return -1;
	take_options(adoption->record, options);
	if (take_regions(adoption->record, options, host, error))
		return -1;
	return host_adopt(host, options, error);
}

char *adopt_end_umemd(const struct adoption *adoption)
{
	json_t *umemd = json_object_get(adoption->record, "umemd");
	int fd = process_open(umemd);

	if (fd < 0 || !process_kill(fd))
		return NULL;
	return text_format("umemd (pid %d) does not end", process_pid(umemd));
}

void adopt_destroy(struct adoption *adoption)
{
	if (adoption->claim_fd >= 0)
		close(adoption->claim_fd);
	if (adoption->qemu_fd >= 0)
		close(adoption->qemu_fd);
	json_decref(adoption->record);
	free(adoption->path);
}
