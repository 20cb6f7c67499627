// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/saved.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/jsonl.h"
#include "common/text.h"
#include "common/util.h"

#define FIELD(name)	{ #name, offsetof(struct migration, name) }
#define COMMAND(name)	{ #name, offsetof(struct migration, command.name) }

struct field {
	const char *name;
	size_t offset;
};

static const struct field flags[] = {
	FIELD(deferred), FIELD(paused), FIELD(running), FIELD(moved), FIELD(stream_given),
	FIELD(held), FIELD(capabilities_changed), FIELD(parameters_changed),
	FIELD(postcopy_held), FIELD(postcopy_ram), FIELD(poison_lost), FIELD(giving_up),
	COMMAND(precopy), COMMAND(no_push), COMMAND(follow), COMMAND(compress),
};

static const struct field numbers[] = {
	FIELD(urgent_channels), FIELD(paused_limit), FIELD(restarts), COMMAND(forward),
	COMMAND(backward),
};

static const struct field times[] = {
	FIELD(started_us), FIELD(ended_us), FIELD(stopped_us), FIELD(go_us), FIELD(resumed_us),
	FIELD(pages_gone),
};

static const struct field objects[] = {
	FIELD(capabilities), FIELD(parameters), FIELD(session), FIELD(progress),
	FIELD(tls), FIELD(gone_ranges),
};

static const char *const states[] = {
	"setup", "advise", "listen", "precopy", "switchover", "running", "paused", "recover",
	"completed", "failed", "cancelled",
};

static const char *const roles[] = {
	[MIGRATION_NONE] = "none",
	[MIGRATION_SOURCE] = "source",
	[MIGRATION_DESTINATION] = "destination",
};

/* Phases that are left, and what those between are to whoever comes after. */
static const struct {
	const char *name;
	enum migration_phase phase;
} stages[] = {
	{ "idle", PHASE_IDLE }, { "expect", PHASE_EXPECT }, { "ready", PHASE_READY },
	{ "after", PHASE_AFTER }, { "end", PHASE_END }, { "lost", PHASE_LOST },
};

static const char *stage_of(const struct migration *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		if (stages[i].phase == m->phase)
			return stages[i].name;
	}
	return "before";
}

static enum migration_phase phase_of(const struct migration *m, const char *stage)
{
	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		if (!strcmp(stages[i].name, stage))
			return stages[i].phase;
	}
	if (m->role == MIGRATION_SOURCE)
		return PHASE_ADVISE;
	return m->stream_given ? PHASE_LOAD : PHASE_WAIT;
}

static void *at(const struct migration *m, const struct field *field)
{
	return (char *)m + field->offset;
}

json_t *saved_encode(const struct migration *m)
{
	json_t *saved = json_pack("{s:s, s:s, s:s, s:o}", "role", roles[m->role],
				  "stage", stage_of(m), "state", m->state ? m->state : "",
				  "uri", jsonl_string(m->command.uri));

	if (m->reason)
		json_object_set_new(saved, "reason", jsonl_string(m->reason));
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		json_object_set_new(saved, flags[i].name,
				    json_boolean(*(bool *)at(m, &flags[i])));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		json_object_set_new(saved, numbers[i].name,
				    json_integer(*(uint32_t *)at(m, &numbers[i])));
	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		json_object_set_new(saved, times[i].name,
				    json_integer((json_int_t)*(uint64_t *)at(m, &times[i])));
	for (size_t i = 0; i < ARRAY_SIZE(objects); i++) {
		json_t *object = *(json_t **)at(m, &objects[i]);

		if (object)
			json_object_set(saved, objects[i].name, object);
	}
	return saved;
}

/* ---- and back ---- */

static const char *string(json_t *saved, const char *name)
{
	const char *value = json_string_value(json_object_get(saved, name));

	return value ? value : "";
}

static bool take_role(struct migration *m, const char *role)
{
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		if (!strcmp(roles[i], role)) {
			m->role = (enum migration_role)i;
			return true;
		}
	}
	return false;
}

static void take_state(struct migration *m, const char *state)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		if (!strcmp(states[i], state))
			m->state = states[i];
	}
}

static const char *take_fields(struct migration *m, json_t *saved)
{
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		json_t *value = json_object_get(saved, flags[i].name);

		if (!json_is_boolean(value))
			return flags[i].name;
		*(bool *)at(m, &flags[i]) = json_is_true(value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		json_t *value = json_object_get(saved, numbers[i].name);

		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		    json_integer_value(value) > UINT32_MAX)
			return numbers[i].name;
		*(uint32_t *)at(m, &numbers[i]) = (uint32_t)json_integer_value(value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		json_t *value = json_object_get(saved, times[i].name);

		if (!json_is_integer(value))
			return times[i].name;
		*(uint64_t *)at(m, &times[i]) = (uint64_t)json_integer_value(value);
	}
	return NULL;
}

char *saved_decode(struct migration *m, json_t *saved)
{
	const char *wrong = NULL;

	if (!take_role(m, string(saved, "role")))
		wrong = "role";
	if (!wrong && strlen(string(saved, "uri")) >= sizeof(m->command.uri))
		wrong = "uri";
	if (!wrong)
		wrong = take_fields(m, saved);
	for (size_t i = 0; i < ARRAY_SIZE(objects) && !wrong; i++) {
		json_t *object = json_object_get(saved, objects[i].name);

		if (object && !json_is_object(object) && !json_is_array(object))
			wrong = objects[i].name;
	}
	if (wrong)
		return text_format("the record has no good \"%s\" of the migration", wrong);
	strcpy(m->command.uri, string(saved, "uri"));
	m->command.detach = true;	/* nobody waits for it any more */
	for (size_t i = 0; i < ARRAY_SIZE(objects); i++)
		*(json_t **)at(m, &objects[i]) =
			json_incref(json_object_get(saved, objects[i].name));
	m->totals = json_incref(m->progress);
	if (*string(saved, "reason"))
		m->reason = text_copy(string(saved, "reason"));
	take_state(m, string(saved, "state"));
	m->phase = phase_of(m, string(saved, "stage"));
	return NULL;
}
