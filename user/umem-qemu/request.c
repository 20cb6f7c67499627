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
	char *(*take)(struct hmp_command *command, const char *name, const struct key *key,
		      json_t *value);
	size_t offset;		/* of its field in the command */
};

static char *quote(json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	char *quoted = text_format("%.60s", text ? text : "?");

	free(text);
	return quoted;
}

static char *wrong_type(const char *name, const struct key *key, json_t *value,
			const char *wanted)
{
	char *got = quote(value);
	char *why = text_format("%s: %s is %s, wanted %s", name, key->name, got, wanted);

	free(got);
	return why;
}

/* ---- keys ---- */

static char *take_uri(struct hmp_command *command, const char *name, const struct key *key,
		      json_t *value)
{
	if (!json_is_string(value))
		return wrong_type(name, key, value, "a string, " URI_WANTED);
	if (!hmp_take_uri(command, name, json_string_value(value)))
		return text_copy(command->error);
	return NULL;
}

static char *take_flag(struct hmp_command *command, const char *name, const struct key *key,
		       json_t *value)
{
	bool *flag = (bool *)((char *)command + key->offset);

	if (!json_is_boolean(value))
		return wrong_type(name, key, value, "true or false");
	*flag = json_is_true(value);
	return NULL;
}

static char *take_pages(struct hmp_command *command, const char *name, const struct key *key,
			 json_t *value)
{
	uint32_t *field = (uint32_t *)((char *)command + key->offset);
	json_int_t pages = json_integer_value(value);
	char wanted[40];

	if (!json_is_integer(value) || pages < 0 || pages > HMP_PREFAULT_MAX) {
		snprintf(wanted, sizeof(wanted), "0 to %u pages", HMP_PREFAULT_MAX);
		return wrong_type(name, key, value, wanted);
	}
	*field = (uint32_t)pages;
	return NULL;
}

static const struct key migrate_keys[] = {
	{ "uri", take_uri, offsetof(struct hmp_command, uri) },
	{ "precopy", take_flag, offsetof(struct hmp_command, precopy) },
	{ "no_push", take_flag, offsetof(struct hmp_command, no_push) },
	{ "follow", take_flag, offsetof(struct hmp_command, follow) },
	{ "forward", take_pages, offsetof(struct hmp_command, forward) },
	{ "backward", take_pages, offsetof(struct hmp_command, backward) },
};

static const struct key recover_keys[] = {
	{ "uri", take_uri, offsetof(struct hmp_command, uri) },
};

/* ---- commands ---- */

static const struct {
	const char *name;
	enum request_kind kind;
	const struct key *keys;
	size_t nr_keys;
} commands[] = {
	{ "migrate", REQUEST_MIGRATE, migrate_keys, ARRAY_SIZE(migrate_keys) },
	{ "start-postcopy", REQUEST_START_POSTCOPY, NULL, 0 },
	{ "cancel", REQUEST_CANCEL, NULL, 0 },
	{ "pause", REQUEST_PAUSE, NULL, 0 },
	{ "recover", REQUEST_RECOVER, recover_keys, ARRAY_SIZE(recover_keys) },
	{ "restart-pager", REQUEST_RESTART_PAGER, NULL, 0 },
	{ "info", REQUEST_INFO, NULL, 0 },
	{ "watch", REQUEST_WATCH, NULL, 0 },
};

static const struct key *find_key(size_t command, const char *name)
{
	for (size_t i = 0; i < commands[command].nr_keys; i++) {
		if (!strcmp(commands[command].keys[i].name, name))
			return &commands[command].keys[i];
	}
	return NULL;
}

static char *key_names(size_t command)
{
	struct text names = { 0 };

	for (size_t i = 0; i < commands[command].nr_keys; i++)
		text_add(&names, "%s%s", i ? ", " : "", commands[command].keys[i].name);
	return names.data ? text_take(&names) : text_copy("cmd alone");
}

static char *unknown_key(size_t command, const char *name)
{
	char *names = key_names(command);
	char *why = text_format("%s: there is no key \"%.60s\", wanted %s",
				commands[command].name, name, names);

	free(names);
	return why;
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
			return unknown_key(command, name);
		why = key->take(&request->command, commands[command].name, key, value);
		if (why)
			return why;
	}
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
	char *got;

	*error = NULL;
	for (size_t i = 0; json_is_string(cmd) && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, json_string_value(cmd)))
			continue;
		*request = (struct request){ .kind = commands[i].kind };
		hmp_init_migrate(&request->command);
		request->command.detach = true;
		*error = take_keys(request, i, object);
		return *error ? -1 : 0;
	}
	got = cmd ? quote(cmd) : text_copy("not there");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		text_add(&names, "%s\"%s\"", i ? ", " : "", commands[i].name);
	*error = text_format("cmd is %s, wanted one of %s", got, names.data);
	text_free(&names);
	free(got);
	return -1;
}
