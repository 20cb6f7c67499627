// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/attributes.h"

#include <linux/umem_netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <stdlib.h>
#include <string.h>

#include "common/jsonl.h"
#include "common/report.h"
#include "common/text.h"
#include "common/util.h"

#define ATTRIBUTES_MAX	32	/* of one set */

enum kind {
	UNKNOWN,
	NUMBER,
	STRING,
	FLAG,
	OBJECT,
	LIST,	/* of objects: the attribute comes once for each */
};

struct attribute {
	const char *name;
	enum kind kind;
	const struct attribute *members;	/* of the objects */
};

static const struct attribute region[ATTRIBUTES_MAX] = {
	[UMEM_A_REGION_ID] = { "id", NUMBER, NULL },
	[UMEM_A_REGION_NAME] = { "name", STRING, NULL },
	[UMEM_A_REGION_UID] = { "uid", NUMBER, NULL },
	[UMEM_A_REGION_PID] = { "pid", NUMBER, NULL },
	[UMEM_A_REGION_LENGTH] = { "length_bytes", NUMBER, NULL },
	[UMEM_A_REGION_MISSING] = { "missing_bytes", NUMBER, NULL },
	[UMEM_A_REGION_POISONED] = { "poisoned_bytes", NUMBER, NULL },
	[UMEM_A_REGION_WAITERS] = { "waiters", NUMBER, NULL },
	[UMEM_A_REGION_PAGER] = { "pager", FLAG, NULL },
	[UMEM_A_REGION_TRACKED] = { "tracked", FLAG, NULL },
};

static const struct attribute counters[ATTRIBUTES_MAX] = {
	[UMEM_A_COUNTERS_FAULTS] = { "faults", NUMBER, NULL },
	[UMEM_A_COUNTERS_REQUESTS] = { "requests", NUMBER, NULL },
	[UMEM_A_COUNTERS_DELIVERED] = { "delivered", NUMBER, NULL },
	[UMEM_A_COUNTERS_PUBLISHED] = { "published", NUMBER, NULL },
	[UMEM_A_COUNTERS_COPIED] = { "copied", NUMBER, NULL },
	[UMEM_A_COUNTERS_ZEROED] = { "zeroed", NUMBER, NULL },
	[UMEM_A_COUNTERS_DISCARDED] = { "discarded", NUMBER, NULL },
	[UMEM_A_COUNTERS_POISONED] = { "poisoned", NUMBER, NULL },
	[UMEM_A_COUNTERS_DUPLICATES] = { "duplicates", NUMBER, NULL },
	[UMEM_A_COUNTERS_PAGERS_LOST] = { "pagers_lost", NUMBER, NULL },
	[UMEM_A_COUNTERS_HUGE_FOLIOS] = { "huge_folios", NUMBER, NULL },
	[UMEM_A_COUNTERS_HUGE_FALLBACKS] = { "huge_fallbacks", NUMBER, NULL },
};

static const struct attribute latency[ATTRIBUTES_MAX] = {
	[UMEM_A_LATENCY_FROM] = { "from_ns", NUMBER, NULL },
	[UMEM_A_LATENCY_BELOW] = { "below_ns", NUMBER, NULL },
	[UMEM_A_LATENCY_WAITS] = { "waits", NUMBER, NULL },
};

static const struct attribute stats[ATTRIBUTES_MAX] = {
	[UMEM_A_STATS_REGION_ID] = { "id", NUMBER, NULL },
	[UMEM_A_STATS_REGION_NAME] = { "name", STRING, NULL },
	[UMEM_A_STATS_COUNTERS] = { "counters", OBJECT, counters },
	[UMEM_A_STATS_WAITS] = { "waits", NUMBER, NULL },
	[UMEM_A_STATS_WAIT_TIME] = { "wait_time_ns", NUMBER, NULL },
	[UMEM_A_STATS_LATENCY] = { "latency", LIST, latency },
};

static const struct attribute thread[ATTRIBUTES_MAX] = {
	[UMEM_A_THREAD_REGION_ID] = { "id", NUMBER, NULL },
	[UMEM_A_THREAD_TID] = { "tid", NUMBER, NULL },
	[UMEM_A_THREAD_COMM] = { "comm", STRING, NULL },
	[UMEM_A_THREAD_WAITS] = { "waits", NUMBER, NULL },
	[UMEM_A_THREAD_WAIT_TIME] = { "wait_time_ns", NUMBER, NULL },
	[UMEM_A_THREAD_LONGEST] = { "longest_ns", NUMBER, NULL },
	[UMEM_A_THREAD_SINCE] = { "since_ns", NUMBER, NULL },
	[UMEM_A_THREAD_OFFSET] = { "offset_bytes", NUMBER, NULL },
};

static const struct attribute event[ATTRIBUTES_MAX] = {
	[UMEM_A_EVENT_REGION_ID] = { "id", NUMBER, NULL },
	[UMEM_A_EVENT_REGION_NAME] = { "name", STRING, NULL },
	[UMEM_A_EVENT_TIME] = { "time_ns", NUMBER, NULL },
	[UMEM_A_EVENT_LENGTH] = { "length_bytes", NUMBER, NULL },
	[UMEM_A_EVENT_MISSING] = { "missing_bytes", NUMBER, NULL },
	[UMEM_A_EVENT_POISONED] = { "poisoned_bytes", NUMBER, NULL },
	[UMEM_A_EVENT_OFFSET] = { "offset_bytes", NUMBER, NULL },
	[UMEM_A_EVENT_SIZE] = { "size_bytes", NUMBER, NULL },
};

static const struct {
	const struct attribute *attributes;
	const char *event;
} commands[] = {
	[UMEM_CMD_REGION_GET] = { region, NULL },
	[UMEM_CMD_STATS_GET] = { stats, NULL },
	[UMEM_CMD_THREAD_GET] = { thread, NULL },
	[UMEM_CMD_REGION_CREATED_NTF] = { event, "region-created" },
	[UMEM_CMD_REGION_REMOVED_NTF] = { event, "region-removed" },
	[UMEM_CMD_PAGER_ATTACHED_NTF] = { event, "pager-attached" },
	[UMEM_CMD_PAGER_DETACHED_NTF] = { event, "pager-detached" },
	[UMEM_CMD_PAGER_LOST_NTF] = { event, "pager-lost" },
	[UMEM_CMD_COMPLETE_NTF] = { event, "complete" },
	[UMEM_CMD_POISONED_NTF] = { event, "poisoned" },
	[UMEM_CMD_DISCARD_NTF] = { event, "discard" },
};

static uint64_t number_in(const struct nlattr *attr)
{
	uint64_t value = 0;

	/* Numbers of the kernel are 4 bytes long, or 8 if they need to be. */
	nla_memcpy(&value, attr, sizeof(value));
	return value;
}

/* Somebody else may have chosen it. */
static json_t *string_in(const struct nlattr *attr)
{
	char *text = text_format("%.*s", nla_len(attr), (const char *)nla_data(attr));
	json_t *string;

	report_clean(text);
	string = jsonl_string(text);
	free(text);
	return string;
}

static void take_all(json_t *object, const struct attribute *known, struct nlattr *head, int size);

static void take(json_t *object, const struct attribute *attribute, struct nlattr *attr)
{
	json_t *value = NULL, *list = json_object_get(object, attribute->name);

	switch (attribute->kind) {
	case NUMBER:
		value = json_integer((json_int_t)number_in(attr));
		break;
	case STRING:
		value = string_in(attr);
		break;
	case FLAG:
		value = json_true();
		break;
	case OBJECT:
	case LIST:
		value = json_object();
		take_all(value, attribute->members, nla_data(attr), nla_len(attr));
		break;
	case UNKNOWN:
		return;
	}
	if (attribute->kind == LIST)
		json_array_append_new(list, value);
	else
		json_object_set_new(object, attribute->name, value);
}

static void take_all(json_t *object, const struct attribute *known, struct nlattr *head, int size)
{
	struct nlattr *attr;
	int left;

	for (int i = 0; i < ATTRIBUTES_MAX; i++) {
		if (known[i].kind == FLAG)
			json_object_set_new(object, known[i].name, json_false());
		else if (known[i].kind == LIST)
			json_object_set_new(object, known[i].name, json_array());
	}
	nla_for_each_attr(attr, head, size, left) {
		/* What a later kernel adds is not known here. */
		if (nla_type(attr) < ATTRIBUTES_MAX)
			take(object, &known[nla_type(attr)], attr);
	}
}

json_t *attributes_json(struct nlmsghdr *message)
{
	struct genlmsghdr *header;
	json_t *object;

	if (!genlmsg_valid_hdr(message, 0))
		return NULL;
	header = genlmsg_hdr(message);
	if (header->cmd >= ARRAY_SIZE(commands) || !commands[header->cmd].attributes)
		return NULL;
	object = json_object();
	if (commands[header->cmd].event)
		json_object_set_new(object, "event", json_string(commands[header->cmd].event));
	take_all(object, commands[header->cmd].attributes, genlmsg_attrdata(header, 0),
		 genlmsg_attrlen(header, 0));
	return object;
}
