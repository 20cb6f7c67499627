// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/request.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/util.h"

struct key {
	const char *name;
	/* NULL, or why not, the caller's string */
	char *(*take)(struct request *request, const struct key *key, json_t *value);
	size_t offset;		/* of its field in the request */
};

static char *quote(json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	char *quoted = text_format("%.60s", text ? text : "?");

	free(text);
	return quoted;
}

static char *wrong_type(const struct request *request, const struct key *key, json_t *value,
			const char *wanted)
{
	char *got = quote(value);
	char *why = text_format("%s: %s is %s, wanted %s", request->name, key->name, got, wanted);

	free(got);
	return why;
}

/* ---- keys ---- */

static char *take_uri(struct request *request, const struct key *key, json_t *value)
{
	if (!json_is_string(value))
		return wrong_type(request, key, value, "a string, " URI_WANTED);
	if (!hmp_take_uri(&request->command, request->name, json_string_value(value)))
		return text_copy(request->command.error);
	return NULL;
}

static char *take_flag(struct request *request, const struct key *key, json_t *value)
{
	bool *flag = (bool *)((char *)request + key->offset);

	if (!json_is_boolean(value))
		return wrong_type(request, key, value, "true or false");
	*flag = json_is_true(value);
	return NULL;
}

static char *take_pages(struct request *request, const struct key *key, json_t *value)
{
	uint32_t *field = (uint32_t *)((char *)request + key->offset);
	json_int_t pages = json_integer_value(value);
	char wanted[40];

	if (!json_is_integer(value) || pages < 0 || pages > HMP_PREFAULT_MAX) {
		snprintf(wanted, sizeof(wanted), "0 to %u pages", HMP_PREFAULT_MAX);
		return wrong_type(request, key, value, wanted);
	}
	*field = (uint32_t)pages;
	return NULL;
}

static char *take_lost_source(struct request *request, const struct key *key, json_t *value)
{
	if (!json_is_string(value) ||
	    !hmp_take_lost_source(json_string_value(value), &request->command.on))
		return wrong_type(request, key, value, "\"wait\" or \"poison\"");
	request->command.kind = HMP_LOST_SOURCE_IS;
	return NULL;
}

static char *take_index(struct request *request, const struct key *key, json_t *value)
{
	uint32_t *field = (uint32_t *)((char *)request + key->offset);
	json_int_t index = json_integer_value(value);

	if (!json_is_integer(value) || index < 0 || index > UINT32_MAX)
		return wrong_type(request, key, value, "0 or more");
	*field = (uint32_t)index;
	return NULL;
}

static const struct key migrate_keys[] = {
	{ "uri", take_uri, offsetof(struct request, command.uri) },
	{ "precopy", take_flag, offsetof(struct request, command.precopy) },
	{ "no_push", take_flag, offsetof(struct request, command.no_push) },
	{ "follow", take_flag, offsetof(struct request, command.follow) },
	{ "forward", take_pages, offsetof(struct request, command.forward) },
	{ "backward", take_pages, offsetof(struct request, command.backward) },
};

static const struct key set_keys[] = {
	{ "lost_source", take_lost_source, 0 },
};

static const struct key gone_keys[] = {
	{ "from", take_index, offsetof(struct request, from) },
};

static const struct key recover_keys[] = {
	{ "uri", take_uri, offsetof(struct request, command.uri) },
};

/* ---- commands ---- */

static const struct {
	const char *name;
	enum request_kind kind;
	const struct key *keys;
	size_t nr_keys;
	const char *wanted;	/* keys, for people */
} commands[] = {
	{ "migrate", REQUEST_MIGRATE, migrate_keys, ARRAY_SIZE(migrate_keys),
	  "uri, precopy, no_push, follow, forward, backward" },
	{ "start-postcopy", REQUEST_START_POSTCOPY, NULL, 0, "cmd alone" },
	{ "cancel", REQUEST_CANCEL, NULL, 0, "cmd alone" },
	{ "pause", REQUEST_PAUSE, NULL, 0, "cmd alone" },
	{ "recover", REQUEST_RECOVER, recover_keys, ARRAY_SIZE(recover_keys), "uri" },
	{ "restart-pager", REQUEST_RESTART_PAGER, NULL, 0, "cmd alone" },
	{ "info", REQUEST_INFO, NULL, 0, "cmd alone" },
	{ "watch", REQUEST_WATCH, NULL, 0, "cmd alone" },
	{ "give-up", REQUEST_GIVE_UP, NULL, 0, "cmd alone" },
	{ "set", REQUEST_SET, set_keys, ARRAY_SIZE(set_keys), "lost_source" },
	{ "gone", REQUEST_GONE, gone_keys, ARRAY_SIZE(gone_keys), "from" },
};

static const struct key *find_key(size_t command, const char *name)
{
	for (size_t i = 0; i < commands[command].nr_keys; i++) {
		if (!strcmp(commands[command].keys[i].name, name))
			return &commands[command].keys[i];
	}
	return NULL;
}

static char *take_keys(struct request *request, size_t command, json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach(object, name, value) {
		const struct key *key = find_key(command, name);
		char *why;

		if (!strcmp(name, "cmd"))
			continue;
		if (!key)
			return text_format("%s: there is no key \"%.60s\", wanted %s",
					   commands[command].name, name, commands[command].wanted);
		why = key->take(request, key, value);
		if (why)
			return why;
	}
	if (request->kind == REQUEST_SET && request->command.kind != HMP_LOST_SOURCE_IS)
		return text_copy("set: there is nothing to set, wanted lost_source");
	if (request->kind == REQUEST_MIGRATE && !request->command.uri[0])
		return text_copy("migrate: there is no uri, wanted \"uri\", " URI_WANTED);
	if (request->command.precopy && request->command.no_push)
		return text_copy("migrate: precopy and no_push are both true, wanted one of them: pre-copy sends what nobody asked for");
	return NULL;
}

int request_decode(struct request *request, json_t *object, char **error)
{
	json_t *cmd = json_object_get(object, "cmd");
	struct text names = { 0 };
	char *got, *list;

	*error = NULL;
	for (size_t i = 0; json_is_string(cmd) && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, json_string_value(cmd)))
			continue;
		*request = (struct request){ .kind = commands[i].kind, .name = commands[i].name };
		hmp_init_migrate(&request->command);
		request->command.detach = true;
		*error = take_keys(request, i, object);
		return *error ? -1 : 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		text_add(&names, "%s\"%s\"", i ? ", " : "", commands[i].name);
	got = cmd ? quote(cmd) : text_copy("not there");
	list = text_take(&names);
	*error = text_format("cmd is %s, wanted one of %s", got, list);
	free(list);
	free(got);
	return -1;
}
