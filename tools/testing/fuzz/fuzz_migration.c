// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The migration as umem-qemu sees it: umemd, QEMU and the user say anything at any time.
 * Once GO is told the source never lets its guest run; the destination's guest runs only
 * once GO came; whoever gave a command is told once how it ended.
 *
 * Input: the role, and what the user has set (1), then steps: a byte of enum step and
 * its argument.
 */
#include "fuzz.h"

#include "common/text.h"
#include "common/util.h"
#include "umem-qemu/info.h"
#include "umem-qemu/migration.h"
#include "umem-qemu/saved.h"

enum step {
	STEP_REPLY,	/* QEMU answers the oldest question: with which of replies[] */
	STEP_REFUSE,	/* or refuses */
	STEP_EVENT,	/* of QEMU: which of events[] */
	STEP_UMEMD,	/* which of umemd_says[] */
	STEP_TEXT,	/* length (1), an object: from umemd; in the first bit, an answer */
	STEP_TIMER,
	STEP_COMMAND,	/* the user: which of lines[] */
	STEP_QEMU_GONE,
	STEP_UMEMD_GONE,
	STEPS
};

#define ASKED_MAX	64

static const char *const replies[] = {
	"{}",
	"{\"status\":\"running\",\"running\":true}",
	"{\"status\":\"paused\",\"running\":false}",
	"{\"status\":\"inmigrate\",\"running\":false}",
	"{\"status\":\"postmigrate\",\"running\":false}",
	("[{\"capability\":\"x-ignore-shared\",\"state\":false},"
	 "{\"capability\":\"pause-before-switchover\",\"state\":false},"
	 "{\"capability\":\"postcopy-ram\",\"state\":true},"
	 "{\"capability\":\"late-block-activate\",\"state\":false},"
	 "{\"capability\":\"events\",\"state\":false}]"),
	("{\"max-bandwidth\":134217728,\"max-postcopy-bandwidth\":0,\"downtime-limit\":300,"
	 "\"multifd-channels\":2,\"multifd-compression\":\"none\"}"),
	"[{\"id\":\"pc.ram\",\"share\":true},{\"id\":\"vga\",\"share\":false}]",
	"{\"status\":\"failed\",\"error-desc\":\"no\"}",
	"{\"status\":\"completed\"}",
	"[{\"cpu-index\":0,\"thread-id\":7}]",
};

static const struct {
	const char *name, *data;
} events[] = {
	{ "STOP", NULL },
	{ "RESUME", NULL },
	{ "MIGRATION", "{\"status\":\"setup\"}" },
	{ "MIGRATION", "{\"status\":\"active\"}" },
	{ "MIGRATION", "{\"status\":\"pre-switchover\"}" },
	{ "MIGRATION", "{\"status\":\"device\"}" },
	{ "MIGRATION", "{\"status\":\"completed\"}" },
	{ "MIGRATION", "{\"status\":\"failed\"}" },
	{ "MIGRATION", "{\"status\":\"cancelled\"}" },
	{ "SHUTDOWN", "{}" },
};

static const char *const umemd_says[] = {
	"{\"event\":\"state\",\"state\":\"prepare\"}",
	"{\"event\":\"state\",\"state\":\"advise\"}",
	"{\"event\":\"state\",\"state\":\"listen\"}",
	"{\"event\":\"state\",\"state\":\"running\"}",
	"{\"event\":\"state\",\"state\":\"paused\",\"message\":\"lost\"}",
	"{\"event\":\"state\",\"state\":\"end\"}",
	"{\"event\":\"ready\"}",
	"{\"event\":\"go\",\"run\":true}",
	"{\"event\":\"go\",\"run\":false}",
	"{\"event\":\"cancelled\"}",
	"{\"event\":\"error\",\"message\":\"no\"}",
	"{\"event\":\"refused\",\"message\":\"no\"}",
	"{\"event\":\"listening\",\"uri\":\"tcp:0:4444\"}",
	"{\"event\":\"converged\",\"remaining_bytes\":4096,\"expected_downtime_ms\":3}",
	"{\"event\":\"progress\",\"pages_total\":10,\"pages_done\":3}",
	"{\"event\":\"session\",\"session\":{\"id\":\"00\"}}",
	"{\"event\":\"state\",\"state\":\"recover\"}",
	"{\"event\":\"gone-ranges\",\"region\":\"pc.ram\",\"ranges\":[[0,4096]]}",
	"{\"event\":\"gone\",\"pages\":1}",
};

static const char *const lines[] = {
	"migrate -p tcp:b:1", "migrate tcp:b:1", "migrate_cancel", "migrate_start_postcopy",
	"cont", "stop", "system_reset", "info migrate", "migrate_pause", "migrate_recover",
	"migrate_recover tcp:c:1", "migrate_give_up", "migrate_set_parameter paused-limit 1",
	"migrate_set_parameter lost-source poison",
};

static struct {
	struct migration migration;
	enum migration_question asked[ASKED_MAX];
	size_t nr_asked;
	bool timer, limit_timer, waiting, went;
	uint64_t now_us;
} w;

static char *start_umemd(void *context, enum migration_role role, const char *uri,
			 const struct hmp_command *command, json_t *session)
{
	(void)context;
	(void)role;
	(void)command;
	must(uri[0] && !w.migration.umemd_alive);
	must(!session || json_is_boolean(json_object_get(session, "gone")));
	return NULL;
}

static void tell_umemd(void *context, json_t *command)
{
	const char *name = json_string_value(json_object_get(command, "cmd"));

	(void)context;
	must(name);
	if (!strcmp(name, "go")) {
		must(w.migration.role == MIGRATION_SOURCE && !w.went);
		w.went = true;
	}
	must(strcmp(name, "cancel") || !w.went);
	json_decref(command);
}

static void stop_umemd(void *context)
{
	(void)context;
}

static void dismiss_umemd(void *context)
{
	(void)context;
	must(w.migration.umemd_alive);
}

static void hurry_umemd(void *context)
{
	(void)context;
	must(w.migration.role == MIGRATION_SOURCE && !w.went);
}

static void ask_qemu(void *context, enum migration_question question, const char *command,
		     json_t *arguments, bool with_stream)
{
	(void)context;
	(void)with_stream;
	if (!strcmp(command, "cont")) {
		must(w.migration.role != MIGRATION_SOURCE || !w.went);
		must(w.migration.role != MIGRATION_DESTINATION || w.migration.moved);
	}
	must(w.nr_asked < ASKED_MAX);
	w.asked[w.nr_asked++] = question;
	json_decref(arguments);
}

static void set_timer(void *context, unsigned int milliseconds)
{
	(void)context;
	w.timer = milliseconds;
}

static void set_limit_timer(void *context, unsigned int milliseconds)
{
	(void)context;
	must(!milliseconds || w.migration.role == MIGRATION_DESTINATION);
	w.limit_timer = milliseconds;
}

static void say(void *context, const char *text)
{
	(void)context;
	must(text[0]);
}

static void done(void *context)
{
	(void)context;
	w.waiting = false;
}

static void log_line(void *context, const char *name, const char *details)
{
	(void)context;
	must(name && details);
}

static void collapse(void *context)
{
	(void)context;
	must(w.migration.role == MIGRATION_DESTINATION && w.migration.phase == PHASE_END &&
	     !w.migration.pages_gone);
}

static void give_up(void *context, const char *reason)
{
	(void)context;
	must(reason && w.migration.role == MIGRATION_DESTINATION);
}

static uint64_t now_us(void *context)
{
	(void)context;
	return w.now_us += 1000;
}

/* What is written down can be read back. */
static char *save(void *context)
{
	json_t *saved = saved_encode(&w.migration);
	struct migration other;
	char *why;

	(void)context;
	memset(&other, 0, sizeof(other));
	migration_init(&other, w.migration.ops, NULL, NULL, 0);
	why = saved_decode(&other, saved);
	must(!why && other.moved == w.migration.moved && other.role == w.migration.role);
	migration_destroy(&other);
	json_decref(saved);
	return NULL;
}

static const struct migration_ops ops = {
	.start_umemd = start_umemd,
	.tell_umemd = tell_umemd,
	.stop_umemd = stop_umemd,
	.dismiss_umemd = dismiss_umemd,
	.hurry_umemd = hurry_umemd,
	.ask_qemu = ask_qemu,
	.set_timer = set_timer,
	.set_limit_timer = set_limit_timer,
	.say = say,
	.done = done,
	.log = log_line,
	.collapse = collapse,
	.give_up = give_up,
	.now_us = now_us,
	.save = save,
};

static json_t *parse(const char *text)
{
	return text ? json_loads(text, 0, NULL) : NULL;
}

static void answer(json_t *result, const char *error)
{
	enum migration_question question = w.asked[0];

	if (w.nr_asked) {
		memmove(w.asked, w.asked + 1, --w.nr_asked * sizeof(*w.asked));
		migration_qemu_reply(&w.migration, question, error ? NULL : result, error);
	}
	json_decref(result);
}

static void umemd_event(json_t *event)
{
	if (json_is_object(event) && w.migration.umemd_alive)
		migration_umemd_event(&w.migration, event);
	json_decref(event);
}

static void text_step(struct input *input)
{
	size_t size = input_u8(input);
	bool reply = size & 1;
	const char *text = (const char *)input_bytes(input, &size);
	json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);

	if (object && reply)
		answer(object, NULL);
	else if (object)
		umemd_event(object);
}

static void command_step(const char *line)
{
	struct hmp_command command;
	char *why = NULL;

	hmp_parse(&command, line, false);
	switch (command.kind) {
	case HMP_MIGRATE:
	case HMP_MIGRATE_EITHER:
		if (w.waiting)
			break;
		w.waiting = true;
		w.went &= migration_serving(&w.migration);
		why = migration_start(&w.migration, &command);
		w.waiting &= !why;
		break;
	case HMP_CANCEL:
		why = migration_cancel(&w.migration);
		break;
	case HMP_START_POSTCOPY:
		why = migration_start_postcopy(&w.migration);
		break;
	case HMP_PAUSE:
		why = migration_pause(&w.migration);
		break;
	case HMP_RECOVER:
		why = migration_recover(&w.migration, command.uri[0] ? command.uri : NULL);
		break;
	case HMP_GIVE_UP:
		why = migration_give_up(&w.migration);
		break;
	case HMP_PAUSED_LIMIT_IS:
		migration_set_paused_limit(&w.migration, command.seconds);
		break;
	case HMP_LOST_SOURCE_IS:
		migration_set_lost_source(&w.migration, command.on);
		break;
	default:
		if (migration_guard(&w.migration, &command, &why))
			must(command.kind != HMP_CONT || !w.went ||
			     w.migration.role != MIGRATION_SOURCE);
		break;
	}
	free(why);
}

static void event_step(uint8_t which)
{
	json_t *data = parse(events[which % ARRAY_SIZE(events)].data);

	migration_qemu_event(&w.migration, events[which % ARRAY_SIZE(events)].name, data,
			     w.now_us);
	json_decref(data);
}

static void step(struct input *input)
{
	enum step step = input_u8(input) % STEPS;
	uint8_t which = step == STEP_TEXT ? 0 : input_u8(input);

	switch (step) {
	case STEP_REPLY:
		answer(parse(replies[which % ARRAY_SIZE(replies)]), NULL);
		break;
	case STEP_REFUSE:
		answer(NULL, "no");
		break;
	case STEP_EVENT:
		event_step(which);
		break;
	case STEP_UMEMD:
		umemd_event(parse(umemd_says[which % ARRAY_SIZE(umemd_says)]));
		break;
	case STEP_TEXT:
		text_step(input);
		break;
	case STEP_TIMER:
		if (w.limit_timer && which & 1) {
			w.limit_timer = false;
			migration_limit_timer(&w.migration);
		} else if (w.timer) {
			w.timer = false;
			migration_timer(&w.migration);
		}
		break;
	case STEP_COMMAND:
		command_step(lines[which % ARRAY_SIZE(lines)]);
		break;
	case STEP_QEMU_GONE:
		w.nr_asked = 0;
		migration_qemu_gone(&w.migration, "it ended");
		break;
	case STEP_UMEMD_GONE:
		if (w.migration.umemd_alive)
			migration_umemd_gone(&w.migration, "it ended", which & 1);
		break;
	case STEPS:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const regions[] = { "pc.ram", "vga" };
	struct input input = { data, size };
	uint8_t first = input_u8(&input);

	memset(&w, 0, sizeof(w));
	json_object_seed(1);
	migration_init(&w.migration, &ops, NULL, regions, ARRAY_SIZE(regions));
	if (first & 1) {
		migration_expect(&w.migration, first & 2, first & 4);
		free(migration_listen(&w.migration, "tcp:0:4444"));
	}
	while (input.left && w.nr_asked < ASKED_MAX / 2) {
		json_t *info;

		step(&input);
		info = info_json(&w.migration, w.now_us);
		must(json_is_object(info) && json_is_string(json_object_get(info, "status")));
		json_decref(info);
	}
	migration_destroy(&w.migration);
	return 0;
}
