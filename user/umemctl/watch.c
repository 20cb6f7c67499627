// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/watch.h"

#include <stdlib.h>
#include <string.h>

#include "common/report.h"
#include "common/text.h"

static const char *string_in(json_t *object, const char *name, const char *otherwise)
{
	const char *string = json_string_value(json_object_get(object, name));

	return string ? string : otherwise;
}

void watch_begin(struct watch *watch, unsigned int columns, uint64_t now_ns)
{
	*watch = (struct watch){ 0 };
	meter_begin(&watch->meter, columns, now_ns);
}

static char *draw(struct watch *watch, json_t *info, uint64_t now_ns)
{
	char *line = report_progress(info);
	char *out = meter_draw(&watch->meter, report_percent(info), line, now_ns);

	free(line);
	return out;
}

static int ended(struct watch *watch, json_t *info, char **out, char **error)
{
	const char *status = string_in(info, "status", "unknown");
	const char *uri = string_in(info, "uri", "?");
	const char *reason = string_in(info, "reason", NULL);
	const char *clear = meter_clear(&watch->meter);
	json_int_t ms = json_integer_value(json_object_get(info, "total_time_ms"));

	if (!strcmp(status, "completed")) {
		*out = text_format("%smigrate: completed, the guest and its memory are at %s after %lld ms\n",
				   clear, uri, (long long)ms);
		return 0;
	}
	*out = text_copy(clear);
	if (!watch->told)
		*error = text_format("migration to %s: %s%s%s", uri, status, reason ? ", " : "",
				     reason ? reason : "");
	return 1;
}

int watch_event(struct watch *watch, json_t *event, uint64_t now_ns, char **out, char **error)
{
	const char *name = string_in(event, "event", "");
	json_t *info = json_object_get(event, "info");

	*out = NULL;
	*error = NULL;
	if (!strcmp(name, "end"))
		return ended(watch, info, out, error);
	if (!strcmp(name, "progress") || !strcmp(name, "state")) {
		*out = draw(watch, info, now_ns);
	} else if (!strcmp(name, "message")) {
		*out = text_copy(meter_clear(&watch->meter));
		*error = text_copy(string_in(event, "text", ""));
		watch->told = true;
	}
	return WATCH_GOES_ON;
}
