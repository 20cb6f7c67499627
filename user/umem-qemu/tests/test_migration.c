// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/migration.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "common/report.h"
#include "common/text.h"
#include "common/util.h"
#include "umem-qemu/info.h"
#include "umem-qemu/saved.h"

#define ASKED_MAX	128
#define BANDWIDTH	134217728	/* QEMU's default */

/* What stands in for QEMU, umemd and the clock; it writes down what it is told. */
struct world {
	struct migration migration;
	struct text did;
	struct {
		enum migration_question question;
		char command[40];
		json_int_t bandwidth;	/* it sets that; 0: it does not */
		char creds[16];		/* it sets tls-creds to that */
		bool sets_creds;
		char property[16];	/* qom-get */
	} asked[ASKED_MAX];
	size_t nr_asked, nr_answered;
	unsigned int timer, limit_timer;
	unsigned int dones, give_ups, gos, conts, fails, cancels, starts;
	bool go_run;
	bool umemd_will_not_start;
	bool disk_is_full;
	json_t *saved;		/* what another umem-qemu would find */
	bool other_shared_memory;
	bool lacks_capability;
	bool precopy;		/* start() is without -p */
	bool connects_late;	/* with -p: QEMU has taken the stream before umemd is connected */
	bool postcopy_ram;	/* QEMU's capability */
	json_int_t limit;	/* max-postcopy-bandwidth */
	json_int_t bandwidth;	/* max-bandwidth */
	json_int_t channels;	/* multifd-channels */
	const char *compression;	/* multifd-compression */
	char creds[16];		/* tls-creds */
	const char *authz;	/* tls-authz */
	const char *tls_type, *tls_endpoint;	/* of the object, if there is one */
	const char *status;	/* QEMU's run state */
	const char *stream;	/* that of its migration, NULL: failed */
	uint64_t now;
};

static const char *const regions[] = { "pc.ram", "dimm0" };

/* ---- what the machine does ---- */

static char *start_umemd(void *context, enum migration_role role, const char *uri,
			 const struct hmp_command *command, json_t *session)
{
	struct world *w = context;
	char *text = session ? json_dumps(session, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	if (w->umemd_will_not_start) {
		free(text);
		return text_copy("umemd cannot be started");
	}
	text_add(&w->did, "start %s %s %u%s%s%s%s\n",
		 role == MIGRATION_SOURCE ? "source" : "destination", uri, command->forward,
		 command->compress ? " zstd" : "", command->precopy ? " precopy" : "",
		 text ? " goes on with " : "", text ? text : "");
	free(text);
	w->starts++;
	return NULL;
}

static void tell_umemd(void *context, json_t *command)
{
	struct world *w = context;
	const char *cmd = json_string_value(json_object_get(command, "cmd"));
	char *text = json_dumps(command, JSON_COMPACT);

	w->gos += !strcmp(cmd, "go");
	w->fails += !strcmp(cmd, "fail");
	w->cancels += !strcmp(cmd, "cancel");
	/* What cannot be taken back was written down before. */
	if (!strcmp(cmd, "go"))
		assert_true(json_is_true(json_object_get(w->saved, "moved")));
	if (!strcmp(cmd, "ready"))
		assert_string_equal(json_string_value(json_object_get(w->saved, "stage")),
				    "ready");
	if (!strcmp(cmd, "go"))
		w->go_run = json_is_true(json_object_get(command, "run"));
	text_add(&w->did, "tell %s\n", text);
	free(text);
	json_decref(command);
}

static void hurry_umemd(void *context)
{
	struct world *w = context;

	text_add(&w->did, "hurry umemd\n");
}

static void stop_umemd(void *context)
{
	struct world *w = context;

	text_add(&w->did, "stop umemd\n");
}

static void text_of(char text[16], json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	snprintf(text, 16, "%s", value ? value : "");
}

static void dismiss_umemd(void *context)
{
	struct world *w = context;

	text_add(&w->did, "dismiss umemd\n");
}

static void ask_qemu(void *context, enum migration_question question, const char *command,
		     json_t *arguments, bool with_stream)
{
	struct world *w = context;
	char *text = arguments ? json_dumps(arguments, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	assert_true(w->nr_asked < ASKED_MAX);
	w->asked[w->nr_asked].question = question;
	w->asked[w->nr_asked].sets_creds = json_object_get(arguments, "tls-creds");
	text_of(w->asked[w->nr_asked].creds, arguments, "tls-creds");
	text_of(w->asked[w->nr_asked].property, arguments, "property");
	w->asked[w->nr_asked].bandwidth =
		strcmp(command, "migrate-set-parameters") ? 0 :
		json_integer_value(json_object_get(arguments, "max-bandwidth"));
	snprintf(w->asked[w->nr_asked++].command, sizeof(w->asked[0].command), "%s", command);
	w->conts += !strcmp(command, "cont");
	text_add(&w->did, "ask %s%s%s%s\n", command, text ? " " : "", text ? text : "",
		 with_stream ? " +stream" : "");
	free(text);
	json_decref(arguments);
}

static void set_timer(void *context, unsigned int milliseconds)
{
	struct world *w = context;

	w->timer = milliseconds;
}

static void set_limit_timer(void *context, unsigned int milliseconds)
{
	struct world *w = context;

	w->limit_timer = milliseconds;
}

static void say(void *context, const char *text)
{
	struct world *w = context;

	text_add(&w->did, "say %s\n", text);
}

static void done(void *context)
{
	struct world *w = context;

	w->dones++;
}

static void log_line(void *context, const char *name, const char *details)
{
	struct world *w = context;

	text_add(&w->did, "log %s %s\n", name, details);
}

static void collapse(void *context)
{
	struct world *w = context;

	text_add(&w->did, "collapse\n");
}

static void give_up(void *context, const char *reason)
{
	struct world *w = context;

	assert_string_equal(reason, w->migration.reason);
	w->give_ups++;
}

static uint64_t now_us(void *context)
{
	struct world *w = context;

	return w->now += 1000;
}

static char *save(void *context)
{
	struct world *w = context;

	if (w->disk_is_full)
		return text_copy("no space");
	json_decref(w->saved);
	w->saved = saved_encode(&w->migration);
	return NULL;
}

static const struct migration_ops ops = {
	.start_umemd = start_umemd,
	.tell_umemd = tell_umemd,
	.hurry_umemd = hurry_umemd,
	.stop_umemd = stop_umemd,
	.dismiss_umemd = dismiss_umemd,
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

static const struct world fresh = {
	.now = 1000000000,
	.status = "running",
	.postcopy_ram = true,
	.bandwidth = BANDWIDTH,
	.channels = 2,
};

static int setup(void **state)
{
	struct world *w = malloc(sizeof(*w));

	*w = fresh;
	migration_init(&w->migration, &ops, w, regions, ARRAY_SIZE(regions));
	*state = w;
	return 0;
}

static void forget(struct world *w)
{
	text_free(&w->did);
}

static void forget_saved(struct world *w)
{
	json_decref(w->saved);
	w->saved = NULL;
}

static int teardown(void **state)
{
	struct world *w = *state;

	migration_destroy(&w->migration);
	forget(w);
	forget_saved(w);
	free(w);
	return 0;
}

static void restart(struct world *w)
{
	migration_destroy(&w->migration);
	forget(w);
	forget_saved(w);
	*w = fresh;
	migration_init(&w->migration, &ops, w, regions, ARRAY_SIZE(regions));
}

static bool did(const struct world *w, const char *what)
{
	return w->did.data && strstr(w->did.data, what);
}

static void assert_did(const struct world *w, const char *what)
{
	if (!did(w, what))
		fail_msg("it did not do \"%s\" but:\n%s", what, w->did.data ? w->did.data : "");
}

/* ---- what happens to it ---- */

static json_t *capabilities(const struct world *w)
{
	return json_pack("[{s:s,s:b},{s:s,s:b},{s:s,s:b},{s:s,s:b},{s:s,s:b}]",
			 "capability", w->lacks_capability ? "xbzrle" : "x-ignore-shared", "state", 0,
			 "capability", "pause-before-switchover", "state", 0,
			 "capability", "late-block-activate", "state", 0,
			 "capability", "events", "state", 1,
			 "capability", "postcopy-ram", "state", w->postcopy_ram);
}

static json_t *canned_answer(const struct world *w, const char *command)
{
	if (!strcmp(command, "query-status"))
		return json_pack("{s:s, s:b}", "status", w->status,
				 "running", !strcmp(w->status, "running"));
	if (!strcmp(command, "query-migrate-capabilities"))
		return capabilities(w);
	if (!strcmp(command, "query-migrate-parameters"))
		return json_pack("{s:s, s:s, s:s, s:I, s:i, s:I, s:I, s:s}", "tls-creds", w->creds,
				 "tls-hostname", "", "tls-authz", w->authz ? w->authz : "",
				 "max-bandwidth", w->bandwidth, "downtime-limit", 300, "max-postcopy-bandwidth", w->limit,
				 "multifd-channels", w->channels,
				 "multifd-compression", w->compression ? w->compression : "none");
	if (!strcmp(command, "query-memdev"))
		return json_pack("[{s:s,s:b},{s:s,s:b},{s:s,s:b}]", "id", "pc.ram", "share", 1,
				 "id", "vga", "share", 0, "id", "x",
				 "share", w->other_shared_memory);
	if (!strcmp(command, "query-migrate"))
		return json_pack("{s:s,s:s}", "error-desc", "no space",
				 "status", w->stream ? w->stream : "failed");
	if (!strcmp(command, "query-cpus-fast"))
		return json_pack("[{s:i,s:i},{s:i,s:i}]", "cpu-index", 0, "thread-id", 70,
				 "cpu-index", 1, "thread-id", 71);
	return json_object();
}

/* Of an object tls0; NULL: no such object, or it has no such property. */
static json_t *property_of(const struct world *w, const char *property)
{
	if (!w->tls_type)
		return NULL;
	if (!strcmp(property, "type"))
		return json_string(w->tls_type);
	if (!strcmp(property, "endpoint"))
		return json_string(w->tls_endpoint);
	if (!strcmp(property, "dir"))
		return json_string("/etc/pki/qemu");
	if (!strcmp(property, "verify-peer"))
		return json_true();
	return !strcmp(property, "username") ? NULL : json_string("");
}

static const char *next_question(const struct world *w)
{
	return w->nr_answered < w->nr_asked ? w->asked[w->nr_answered].command : NULL;
}

static void answer(struct world *w, const char *error)
{
	size_t i = w->nr_answered++;
	json_t *result = error ? NULL : canned_answer(w, w->asked[i].command);

	assert_true(i < w->nr_asked);
	if (!strcmp(w->asked[i].command, "qom-get")) {
		json_decref(result);
		result = property_of(w, w->asked[i].property);
		error = result ? NULL : "not found";
	}
	if (w->asked[i].sets_creds && !error)
		strcpy(w->creds, w->asked[i].creds);
	if (!strcmp(w->asked[i].command, "cont") && !error)
		w->status = "running";
	if (w->asked[i].bandwidth && !error)
		w->bandwidth = w->asked[i].bandwidth;
	migration_qemu_reply(&w->migration, w->asked[i].question, result, error);
	json_decref(result);
}

static void answer_all(struct world *w)
{
	while (next_question(w))
		answer(w, NULL);
}

/* Answer up to the first question that is this command, which stays open. */
static void answer_until(struct world *w, const char *command)
{
	while (next_question(w) && strcmp(next_question(w), command))
		answer(w, NULL);
	assert_non_null(next_question(w));
}

static void umemd(struct world *w, const char *json)
{
	json_t *event = json_loads(json, 0, NULL);

	assert_non_null(event);
	migration_umemd_event(&w->migration, event);
	json_decref(event);
}

static void umemd_state(struct world *w, const char *state)
{
	char json[64];

	snprintf(json, sizeof(json), "{\"event\":\"state\",\"state\":\"%s\"}", state);
	umemd(w, json);
}

/* What it tells before anything else; to the machine it is opaque. */
static void umemd_agrees(struct world *w)
{
	umemd(w, "{\"event\":\"session\",\"session\":{\"id\":\"abc\"}}");
}

#define GOES_ON(gone, run) " goes on with {\"gone\":" gone ",\"id\":\"abc\",\"run\":" run "}\n"

static void event(struct world *w, const char *name)
{
	migration_qemu_event(&w->migration, name, NULL, w->now);
}

static void status(struct world *w, const char *status)
{
	json_t *data = json_pack("{s:s}", "status", status);

	migration_qemu_event(&w->migration, "MIGRATION", data, w->now);
	json_decref(data);
}

static void start(struct world *w)
{
	struct hmp_command command;

	hmp_parse(&command, w->precopy ? "migrate tcp:there:4444 32 0" :
		  "migrate -p tcp:there:4444 32 0", false);
	assert_int_equal(command.kind, w->precopy ? HMP_MIGRATE_EITHER : HMP_MIGRATE);
	assert_null(migration_start(&w->migration, &command));
}

/* ---- a migration in steps, each of which may be the last before a failure ---- */

enum source_step {
	STEP_QUERY,	/* the first question is open */
	STEP_MEMORY,	/* the last question before umemd is open */
	STEP_ADVISE,	/* umemd was started */
	STEP_PRECOPY,	/* umemd is connected unless that is late; with pre-copy it sends rounds */
	STEP_PREPARE,	/* after pre-copy what may have changed is looked at again */
	STEP_CAPABILITIES,	/* the capabilities are being set */
	STEP_PARAMETERS,
	STEP_GETFD,
	STEP_MIGRATE,
	STEP_STREAM,	/* the guest runs, the stream flows */
	STEP_STOPPED,	/* QEMU stopped the guest */
	STEP_SWITCH,	/* and waits in pre-switchover, migrate-continue is open */
	STEP_DEVICE,
	STEP_COMPLETED,	/* the device state is sent, READY has not come */
	STEP_READY_FIRST,	/* READY has come, QEMU is not complete */
	STEP_END,
};

static void converge(struct world *w)
{
	umemd(w, "{\"event\":\"converged\",\"remaining_bytes\":8192,\"expected_downtime_ms\":7}");
}

static void connects(struct world *w)
{
	umemd_agrees(w);
	umemd_state(w, "advise");
}

static void go_to(struct world *w, enum source_step step)
{
	bool runs = !strcmp(w->status, "running");

	start(w);
	if (step == STEP_QUERY)
		return;
	answer_until(w, "query-memdev");
	if (step == STEP_MEMORY)
		return;
	if (w->precopy)
		answer_all(w);
	else
		answer_until(w, "migrate-set-capabilities");
	if (step == STEP_ADVISE)
		return;
	if (!w->connects_late)
		connects(w);
	if (step == STEP_PRECOPY)
		return;
	if (w->precopy)
		converge(w);
	if (step == STEP_PREPARE)
		return;
	answer_until(w, "migrate-set-capabilities");
	if (step == STEP_CAPABILITIES)
		return;
	answer_until(w, "migrate-set-parameters");
	if (step == STEP_PARAMETERS)
		return;
	answer_until(w, "getfd");
	if (step == STEP_GETFD)
		return;
	if (w->connects_late) {
		answer_all(w);
		connects(w);
	}
	answer_until(w, "migrate");
	if (step == STEP_MIGRATE)
		return;
	answer_all(w);
	status(w, "setup");
	status(w, "active");
	if (step == STEP_STREAM)
		return;
	w->status = "finish-migrate";
	if (runs)
		event(w, "STOP");
	if (step == STEP_STOPPED)
		return;
	answer_all(w);
	status(w, "pre-switchover");
	if (step == STEP_SWITCH)
		return;
	answer_all(w);
	status(w, "device");
	if (step == STEP_DEVICE)
		return;
	if (step == STEP_READY_FIRST) {
		umemd(w, "{\"event\":\"ready\"}");
		return;
	}
	w->status = "postmigrate";
	status(w, "completed");
}

static void complete(struct world *w)
{
	go_to(w, STEP_COMPLETED);
	umemd(w, "{\"event\":\"ready\"}");
	answer_all(w);
}

/* QEMU's part of an undo: it answers, and cancels once it is asked and told not to wait. */
static void play_undo(struct world *w, bool qemu_resumes)
{
	bool cancelling = false;

	while (next_question(w)) {
		bool cancel = !strcmp(next_question(w), "migrate_cancel");
		bool go_on = !strcmp(next_question(w), "migrate-continue");

		answer(w, NULL);
		if (cancel) {
			cancelling = true;
			status(w, "cancelling");
		} else if (go_on && cancelling) {
			if (qemu_resumes && w->migration.running) {
				w->status = "running";
				event(w, "RESUME");
			}
			status(w, "cancelled");
		}
	}
}

static void assert_undone(struct world *w, const char *what, int step, bool ran)
{
	if (w->migration.phase != PHASE_IDLE)
		fail_msg("%s at step %d: left in phase %d:\n%s", what, step, w->migration.phase,
			 w->did.data);
	if (w->gos)
		fail_msg("%s at step %d: go was said", what, step);
	if (w->dones != 1)
		fail_msg("%s at step %d: done %u times", what, step, w->dones);
	if (ran && strcmp(w->status, "running"))
		fail_msg("%s at step %d: the guest is %s:\n%s", what, step, w->status, w->did.data);
	if (!ran && w->conts)
		fail_msg("%s at step %d: a paused guest was started", what, step);
	if (w->migration.capabilities_changed || w->migration.parameters_changed)
		fail_msg("%s at step %d: settings were left", what, step);
	if (w->migration.umemd_alive)
		fail_msg("%s at step %d: umemd was left", what, step);
	assert_true(!strcmp(w->migration.state, "failed") ||
		    !strcmp(w->migration.state, "cancelled"));
	assert_false(w->migration.moved);
}

/* ---- source ---- */

#define ASK_SETTINGS \
	"ask query-migrate-capabilities\n" \
	"ask query-migrate-parameters\n" \
	"ask query-memdev\n"

#define MAKE_QEMU_READY \
	"ask migrate-set-capabilities {\"capabilities\":[" \
	"{\"capability\":\"x-ignore-shared\",\"state\":true}," \
	"{\"capability\":\"pause-before-switchover\",\"state\":true}," \
	"{\"capability\":\"postcopy-ram\",\"state\":false}]}\n" \
	"ask migrate-set-parameters {\"max-bandwidth\":1099511627776}\n" \
	"ask getfd {\"fdname\":\"umem-state\"} +stream\n"

#define SWITCHOVER \
	"ask migrate {\"uri\":\"fd:umem-state\"}\n" \
	"ask query-status\n" \
	"hurry umemd\n" \
	"tell {\"cmd\":\"stopped\"}\n" \
	"ask migrate-continue {\"state\":\"pre-switchover\"}\n" \
	"log READY role=source\n" \
	"tell {\"cmd\":\"go\",\"run\":true}\n" \
	"log GO role=source run=true\n" \
	"log STATE role=source state=running\n" \
	"ask query-migrate-parameters\n" \
	"ask migrate-set-capabilities {\"capabilities\":[" \
	"{\"capability\":\"x-ignore-shared\",\"state\":false}," \
	"{\"capability\":\"pause-before-switchover\",\"state\":false}," \
	"{\"capability\":\"postcopy-ram\",\"state\":true}]}\n" \
	"ask migrate-set-parameters {\"max-bandwidth\":134217728}\n"

static void test_source_does_its_steps_in_this_order(void **state)
{
	static const char want[] =
		"log STATE role=source state=setup\n"
		"ask query-status\n"
		ASK_SETTINGS
		"start source tcp:there:4444 32\n"
		"tell {\"cmd\":\"set\",\"urgent_channels\":1,\"max_bulk_bandwidth\":0,"
		"\"max_precopy_bandwidth\":134217728,\"downtime_limit_ms\":300,\"bulk_channels\":2}\n"
		MAKE_QEMU_READY
		"log STATE role=source state=advise\n"
		"ask query-memdev\n"
		SWITCHOVER;
	struct world *w = *state;

	w->connects_late = true;
	complete(w);
	assert_string_equal(w->did.data, want);
	assert_int_equal(w->dones, 0);
	forget(w);

	umemd_state(w, "end");
	assert_string_equal(w->did.data, "log STATE role=source state=completed\n"
			    "log END role=source\n");
	assert_int_equal(w->dones, 1);
	assert_int_equal(w->conts, 0);
}

static void user_cancels(struct world *w);

static void test_limits_are_told_at_the_start_and_when_they_change(void **state)
{
	struct world *w = *state;

	migration_parameters_changed(&w->migration);
	assert_null(next_question(w));		/* they are asked for when they are needed */

	w->limit = 5000000;
	migration_set_urgent_channels(&w->migration, 3);
	go_to(w, STEP_MEMORY);
	assert_false(did(w, "tell"));
	answer_all(w);
	assert_did(w, "start source tcp:there:4444 32\n"
		   "tell {\"cmd\":\"set\",\"urgent_channels\":3,\"max_bulk_bandwidth\":5000000,"
		   "\"max_precopy_bandwidth\":134217728,\"downtime_limit_ms\":300,\"bulk_channels\":2}\n");

	restart(w);
	complete(w);
	assert_true(w->migration.moved);
	forget(w);
	w->limit = 123;
	migration_parameters_changed(&w->migration);
	answer_all(w);
	assert_did(w, "\"max_bulk_bandwidth\":123,");
	migration_set_urgent_channels(&w->migration, 16);
	assert_did(w, "tell {\"cmd\":\"set\",\"urgent_channels\":16}\n");
	forget(w);
	w->limit = 0;
	migration_parameters_changed(&w->migration);
	answer(w, "no");
	assert_false(did(w, "tell"));
	migration_parameters_changed(&w->migration);
	umemd_state(w, "end");
	answer_all(w);				/* umemd is gone: nobody to tell */
	migration_set_urgent_channels(&w->migration, 1);
	assert_false(did(w, "tell"));
}

static void test_more_bulk_channels_than_umem_has_are_said_to_be_cut(void **state)
{
	struct world *w = *state;

	w->channels = 17;
	go_to(w, STEP_ADVISE);
	assert_did(w, "say migrate: multifd-channels is 17, umem takes 16 at most: it has 16\n");
	assert_did(w, "\"bulk_channels\":16}");
	restart(w);
	w->channels = 16;
	go_to(w, STEP_ADVISE);
	assert_false(did(w, "say"));
	assert_did(w, "\"bulk_channels\":16}");
}

static void test_bandwidth_set_while_umem_has_raised_it_stays(void **state)
{
	struct world *w = *state;

	for (int step = STEP_GETFD; step <= STEP_COMPLETED; step++) {
		for (int way = 0; way < 4; way++) {
			bool cancel = way & 1, by_qmp = way & 2;

			restart(w);
			go_to(w, step);
			assert_int_equal(w->bandwidth, 1LL << 40);
			w->bandwidth = 777;
			if (!by_qmp)
				migration_parameters_changed(&w->migration);
			if (cancel) {
				migration_cancel(&w->migration);
				play_undo(w, true);
			} else if (step == STEP_COMPLETED) {
				umemd(w, "{\"event\":\"ready\"}");
				answer_all(w);
				assert_true(w->migration.moved);
			}
			answer_all(w);
			if (cancel || step == STEP_COMPLETED)
				assert_false(w->migration.parameters_changed);
			assert_int_equal(w->bandwidth, 777);
		}
	}
}

static void test_umems_own_bandwidth_is_never_taken_for_the_users(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_STREAM);
	migration_parameters_changed(&w->migration);
	answer_all(w);
	assert_false(did(w, "\"max_precopy_bandwidth\":1099511627776"));
	user_cancels(w);
	while (w->migration.phase != PHASE_IDLE) {
		if (next_question(w))
			answer(w, NULL);
		else
			status(w, "cancelled");
	}
	/* The next begins before QEMU has answered what is to be set back. */
	assert_int_equal(w->bandwidth, 1LL << 40);
	go_to(w, STEP_ADVISE);
	assert_int_equal(w->bandwidth, BANDWIDTH);
	assert_false(did(w, "\"max_precopy_bandwidth\":1099511627776"));
	user_cancels(w);
	play_undo(w, true);
	assert_int_equal(w->bandwidth, BANDWIDTH);
}

static void test_compression_is_as_qemus_parameter_says(void **state)
{
	struct world *w = *state;

	w->compression = "zstd";
	go_to(w, STEP_ADVISE);
	assert_did(w, "start source tcp:there:4444 32 zstd\n");
	assert_false(did(w, "say"));

	restart(w);
	go_to(w, STEP_ADVISE);
	assert_did(w, "start source tcp:there:4444 32\n");

	restart(w);
	w->compression = "zlib";
	go_to(w, STEP_ADVISE);
	assert_did(w, "say migrate: multifd-compression is zlib, wanted none or zstd");
	assert_did(w, "start source tcp:there:4444 32\n");
}

static void test_go_needs_both_ready_and_complete_device_state(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_COMPLETED);
	assert_int_equal(w->gos, 0);
	umemd(w, "{\"event\":\"ready\"}");
	assert_int_equal(w->gos, 1);

	restart(w);
	go_to(w, STEP_READY_FIRST);
	assert_int_equal(w->gos, 0);
	status(w, "completed");
	assert_int_equal(w->gos, 1);
	umemd(w, "{\"event\":\"ready\"}");
	status(w, "completed");
	assert_int_equal(w->gos, 1);
}

static void test_paused_guest_is_handed_over_paused(void **state)
{
	struct world *w = *state;

	w->status = "paused";
	complete(w);
	assert_int_equal(w->gos, 1);
	assert_false(w->go_run);
}

static void test_guest_paused_by_somebody_while_the_stream_flows_is_handed_over_paused(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_STREAM);
	w->status = "paused";
	event(w, "STOP");
	answer_all(w);
	status(w, "pre-switchover");
	answer_all(w);
	status(w, "completed");
	umemd(w, "{\"event\":\"ready\"}");
	assert_int_equal(w->gos, 1);
	assert_false(w->go_run);
}

static void test_guest_paused_before_the_stream_is_handed_over_paused(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_ADVISE);
	event(w, "STOP");
	assert_false(w->migration.running);
	event(w, "RESUME");
	assert_true(w->migration.running);
}

static void test_stop_typed_during_the_switchover_pauses_at_the_destination(void **state)
{
	struct hmp_command command;
	struct world *w = *state;
	char *text;

	go_to(w, STEP_SWITCH);
	hmp_parse(&command, "stop", false);
	assert_false(migration_guard(&w->migration, &command, &text));
	assert_non_null(strstr(text, "paused where it arrives"));
	free(text);
	answer_all(w);
	status(w, "completed");
	umemd(w, "{\"event\":\"ready\"}");
	assert_false(w->go_run);
}

/* Ways to fail, tried at every step at which they can happen. */

static void umemd_errs(struct world *w)
{
	umemd(w, "{\"event\":\"error\",\"message\":\"connection lost\"}");
	migration_umemd_gone(&w->migration, "exited with status 1", false);
}

static void umemd_dies(struct world *w)
{
	migration_umemd_gone(&w->migration, "was killed by signal 9 (Killed)", false);
}

static void user_cancels(struct world *w)
{
	assert_null(migration_cancel(&w->migration));
}

static void qemu_refuses(struct world *w)
{
	answer(w, "QEMU does not want to");
}

static void qemu_fails(struct world *w)
{
	status(w, "failed");
}

static void somebody_cancels_in_qemu(struct world *w)
{
	status(w, "cancelled");
}

static void time_runs_out(struct world *w)
{
	assert_int_equal(w->timer, 30000);
	migration_timer(&w->migration);
}

static void somebody_starts_the_guest(struct world *w)
{
	w->status = "running";
	event(w, "RESUME");
}

static const struct {
	const char *name;
	void (*happens)(struct world *w);
	enum source_step first, last;
	const char *words;
} failures[] = {
	{ "umemd error", umemd_errs, STEP_ADVISE, STEP_READY_FIRST, "connection lost" },
	{ "umemd death", umemd_dies, STEP_ADVISE, STEP_READY_FIRST, "umemd was killed by signal 9" },
	{ "cancel", user_cancels, STEP_QUERY, STEP_READY_FIRST, "cancelled" },
	{ "refusal", qemu_refuses, STEP_QUERY, STEP_MEMORY, "QEMU does not want to" },
	{ "refusal", qemu_refuses, STEP_PREPARE, STEP_MIGRATE, "QEMU does not want to" },
	{ "refusal", qemu_refuses, STEP_SWITCH, STEP_SWITCH, "QEMU does not want to" },
	{ "QEMU's failure", qemu_fails, STEP_STREAM, STEP_DEVICE, "no space" },
	{ "QEMU's failure", qemu_fails, STEP_READY_FIRST, STEP_READY_FIRST, "no space" },
	{ "cancel by QMP", somebody_cancels_in_qemu, STEP_STREAM, STEP_DEVICE, "somebody cancelled" },
	{ "timeout", time_runs_out, STEP_SWITCH, STEP_READY_FIRST, "30 s" },
	{ "start by QMP", somebody_starts_the_guest, STEP_COMPLETED, STEP_COMPLETED, "let the guest go on" },
};

enum way {
	WAY_P,
	WAY_P_CONNECTS_LATE,
	WAY_PRECOPY,
	WAYS,
};

static void try_failure(struct world *w, size_t i, enum source_step step, enum way way, bool ran,
			bool qemu_resumes)
{
	restart(w);
	w->precopy = way == WAY_PRECOPY;
	w->connects_late = way == WAY_P_CONNECTS_LATE;
	if (!ran)
		w->status = "paused";
	go_to(w, step);
	failures[i].happens(w);
	play_undo(w, qemu_resumes);
	assert_undone(w, failures[i].name, step, ran);
	assert_did(w, failures[i].words);
	assert_did(w, ran ? "the guest runs on here" : "the guest stays paused here");
}

static void test_every_failure_before_go_leaves_the_guest_running_at_the_source(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		for (int step = failures[i].first; step <= (int)failures[i].last; step++) {
			for (int way = 0; way < WAYS; way++) {
				try_failure(w, i, step, way, true, true);
				try_failure(w, i, step, way, true, false);
			}
		}
	}
}

static void test_every_failure_before_go_leaves_a_paused_guest_paused(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		if (failures[i].happens == somebody_starts_the_guest)
			continue;
		for (int step = failures[i].first; step <= (int)failures[i].last; step++)
			for (int way = 0; way < WAYS; way++)
				try_failure(w, i, step, way, false, false);
	}
}

static void test_umemd_learns_of_a_cancel_unless_it_is_dead(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_DEVICE);
	user_cancels(w);
	assert_int_equal(w->cancels, 1);
	assert_did(w, "stop umemd");

	restart(w);
	go_to(w, STEP_DEVICE);
	umemd_dies(w);
	assert_int_equal(w->cancels, 0);
}

static void test_the_first_reason_of_several_is_told(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_DEVICE);
	umemd_errs(w);
	umemd_dies(w);
	status(w, "failed");
	play_undo(w, false);
	assert_string_equal(w->migration.reason, "connection lost");
	assert_int_equal(w->dones, 1);
}

static void test_umemd_that_cannot_start_is_told(void **state)
{
	struct world *w = *state;

	w->umemd_will_not_start = true;
	start(w);
	answer_all(w);
	assert_undone(w, "no umemd", 0, true);
	assert_did(w, "say migrate: umemd cannot be started; the guest runs on here\n");
}

static void test_cont_is_tried_again_while_qemu_refuses_it(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_COMPLETED);
	umemd_dies(w);
	for (int i = 0; i < 3; i++) {
		answer_until(w, "cont");
		answer(w, "Migration is not finalized yet");
		assert_int_equal(w->timer, 50);
		assert_int_equal(w->dones, 0);
		migration_timer(&w->migration);
	}
	play_undo(w, false);
	assert_undone(w, "slow cont", STEP_COMPLETED, true);
}

static void test_cont_that_never_works_is_told_with_its_cure(void **state)
{
	struct world *w = *state;
	int tries;

	go_to(w, STEP_COMPLETED);
	umemd_dies(w);
	for (tries = 0; !w->dones && tries < 200; tries++) {
		answer_until(w, "cont");
		w->nr_asked = w->nr_answered + 1;
		answer(w, "disk is locked");
		w->nr_asked = w->nr_answered = 0;
		if (!w->dones)
			migration_timer(&w->migration);
	}
	assert_int_equal(tries, 100);
	assert_did(w, "disk is locked; type cont");
	assert_did(w, "the guest stays paused here");
}

static void test_cancel_that_qemu_never_confirms_is_overcome(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_STREAM);
	user_cancels(w);
	answer(w, NULL);
	assert_int_equal(w->timer, 5000);
	migration_timer(&w->migration);
	answer_all(w);
	assert_undone(w, "lost confirmation", STEP_STREAM, true);
}

static void test_another_migration_may_follow_a_failed_one(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_STREAM);
	umemd_dies(w);
	play_undo(w, true);
	forget(w);
	w->dones = 0;
	complete(w);
	assert_int_equal(w->gos, 1);
	assert_null(w->migration.reason);
}

static void test_after_go_no_failure_starts_the_guest_at_the_source(void **state)
{
	struct world *w = *state;

	complete(w);
	umemd_dies(w);
	status(w, "failed");
	migration_timer(&w->migration);
	answer_all(w);
	assert_int_equal(w->conts, 0);
	assert_false(did(w, "migrate_cancel"));
}

static void test_after_go_the_guest_is_stopped_again_if_somebody_starts_it(void **state)
{
	struct world *w = *state;

	complete(w);
	forget(w);
	event(w, "RESUME");
	assert_did(w, "ask stop\n");
	assert_did(w, "log SPLIT role=source");
	umemd_state(w, "end");
	forget(w);
	event(w, "RESUME");
	assert_did(w, "ask stop\n");
}

/* A migrate without -p as it is where capability postcopy-ram is off. */
static void parse_qemus(struct hmp_command *command, const char *line)
{
	hmp_parse(command, line, false);
	if (command->kind == HMP_MIGRATE_EITHER)
		command->kind = HMP_GUARDED;
}

static void test_after_go_commands_that_would_run_the_guest_are_refused(void **state)
{
	static const char *const lines[] = {
		"cont", "c", "system_reset", "system_wakeup", "loadvm x", "migrate tcp:a:1",
		"gdbserver", "migrate_incoming tcp:0:1",
	};
	struct hmp_command command;
	struct world *w = *state;
	char *text;

	complete(w);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(lines); i++) {
		if (i == ARRAY_SIZE(lines))
			umemd_state(w, "end");
		parse_qemus(&command, lines[i % ARRAY_SIZE(lines)]);
		if (migration_guard(&w->migration, &command, &text))
			fail_msg("\"%s\" was let through", lines[i % ARRAY_SIZE(lines)]);
		assert_non_null(strstr(text, "tcp:there:4444"));
		assert_non_null(strstr(text, "twice"));
		free(text);
	}
	hmp_parse(&command, "info status", false);
	assert_true(migration_guard(&w->migration, &command, &text));
	hmp_parse(&command, "stop", false);
	assert_true(migration_guard(&w->migration, &command, &text));
}

static void test_during_the_switchover_commands_that_would_run_the_guest_are_refused(void **state)
{
	struct hmp_command command;
	struct world *w = *state;
	char *text;

	for (int step = STEP_SWITCH; step <= STEP_READY_FIRST; step++) {
		restart(w);
		go_to(w, step);
		hmp_parse(&command, "cont", false);
		assert_false(migration_guard(&w->migration, &command, &text));
		assert_non_null(strstr(text, "migrate_cancel"));
		free(text);
	}
}

static void test_before_the_switchover_only_other_migrations_are_refused(void **state)
{
	struct hmp_command command;
	struct world *w = *state;
	char *text;

	go_to(w, STEP_STREAM);
	parse_qemus(&command, "migrate tcp:a:1");
	assert_false(migration_guard(&w->migration, &command, &text));
	free(text);
	hmp_parse(&command, "cont", false);
	assert_true(migration_guard(&w->migration, &command, &text));
	hmp_parse(&command, "system_reset", false);
	assert_true(migration_guard(&w->migration, &command, &text));
}

static void assert_start_refused(struct world *w, const char *words)
{
	struct hmp_command command;
	char *why;

	hmp_parse(&command, "migrate -p tcp:elsewhere:1", false);
	why = migration_start(&w->migration, &command);
	assert_non_null(why);
	if (!strstr(why, words))
		fail_msg("\"%s\" does not say \"%s\"", why, words);
	free(why);
}

static void test_a_second_migrate_is_refused_with_the_state(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_STREAM);
	assert_start_refused(w, "state advise");
	assert_start_refused(w, "migrate_cancel");
	restart(w);
	complete(w);
	assert_start_refused(w, "has moved to tcp:there:4444");
	umemd_state(w, "end");
	assert_start_refused(w, "has moved to tcp:there:4444");
}

static void test_cancel_after_go_is_refused(void **state)
{
	struct world *w = *state;
	char *why;

	complete(w);
	why = migration_cancel(&w->migration);
	assert_non_null(strstr(why, "cannot be called back"));
	free(why);
	assert_int_equal(w->cancels, 0);
}

static void test_source_refuses_what_it_cannot_move(void **state)
{
	struct world *w = *state;

	w->lacks_capability = true;
	start(w);
	answer_all(w);
	assert_undone(w, "capability", 0, true);
	assert_did(w, "no migration capability x-ignore-shared");
	assert_false(did(w, "start source"));

	restart(w);
	w->other_shared_memory = true;
	start(w);
	answer_all(w);
	assert_undone(w, "shared memory", 0, true);
	assert_did(w, "memory backend \"x\" is shared memory outside umem");
	assert_false(did(w, "start source"));

	restart(w);
	w->status = "inmigrate";
	start(w);
	answer_all(w);
	assert_did(w, "waits for an incoming migration");

	restart(w);
	w->status = "postmigrate";
	start(w);
	answer_all(w);
	assert_did(w, "was migrated elsewhere");
}

static void test_qemus_death_at_the_source(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_STREAM);
	migration_qemu_gone(&w->migration, "was killed by signal 9 (Killed)");
	assert_int_equal(w->cancels, 1);
	assert_int_equal(w->dones, 1);
	assert_int_equal(w->migration.phase, PHASE_IDLE);

	restart(w);
	complete(w);
	assert_true(migration_serving(&w->migration));
	migration_qemu_gone(&w->migration, "exited with status 0");
	assert_true(migration_serving(&w->migration));
	assert_int_equal(w->cancels, 0);
	umemd_state(w, "end");
	assert_false(migration_serving(&w->migration));
}

static void test_replies_that_come_too_late_do_nothing(void **state)
{
	struct world *w = *state;
	size_t asked;

	go_to(w, STEP_QUERY);
	asked = w->nr_asked;
	migration_qemu_gone(&w->migration, "exited with status 0");
	forget(w);
	answer_all(w);
	assert_null(w->did.data);
	assert_int_equal(w->nr_asked, asked);
}

/* What depends on no answer waits for none: QEMU takes long to give one when its guest is busy. */
static void test_source_asks_all_it_can_at_once(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_QUERY);
	assert_did(w, "ask query-status\n" ASK_SETTINGS);
	answer_until(w, "migrate-set-capabilities");
	assert_int_equal(w->nr_asked - w->nr_answered, 3);
	assert_did(w, "ask getfd {\"fdname\":\"umem-state\"} +stream\n");

	/* but nothing moves before QEMU has agreed to all of it */
	for (size_t refused = 0; refused < 3; refused++) {
		restart(w);
		go_to(w, STEP_CAPABILITIES);
		forget(w);
		for (size_t i = 0; i < 3; i++)
			answer(w, i == refused ? "no" : NULL);
		assert_false(did(w, "ask migrate {"));
		play_undo(w, true);
		assert_undone(w, "refusal", (int)refused, true);
		assert_false(did(w, "ask migrate {"));
		assert_int_equal(w->bandwidth, BANDWIDTH);
	}
}

static void pauses(struct world *w)
{
	umemd(w, "{\"event\":\"state\",\"state\":\"paused\",\"message\":\"connection lost\"}");
}

static void test_pause_and_resume_of_the_connection_are_shown(void **state)
{
	struct world *w = *state;

	complete(w);
	pauses(w);
	assert_string_equal(w->migration.state, "paused");
	assert_string_equal(w->migration.reason, "connection lost");
	assert_did(w, "log PAUSED role=source reason=connection lost");
	assert_did(w, "say migrate: paused: connection lost");
	assert_int_equal(w->dones, 1);	/* who waited gets his monitor back */
	umemd_state(w, "recover");
	assert_string_equal(w->migration.state, "recover");
	umemd_state(w, "running");
	assert_string_equal(w->migration.state, "running");
	assert_null(w->migration.reason);
}

static void test_stream_that_qemu_need_not_send_is_taken_back(void **state)
{
	struct world *w = *state;

	w->connects_late = true;
	go_to(w, STEP_GETFD);
	user_cancels(w);
	play_undo(w, true);
	assert_did(w, "ask closefd {\"fdname\":\"umem-state\"}\n");
	assert_undone(w, "cancel", STEP_GETFD, true);

	restart(w);
	go_to(w, STEP_MEMORY);
	user_cancels(w);
	play_undo(w, true);
	assert_false(did(w, "closefd"));

	restart(w);
	go_to(w, STEP_STREAM);
	user_cancels(w);
	play_undo(w, true);
	assert_false(did(w, "closefd"));	/* migrate took it */
}

static void test_shared_memory_plugged_in_while_umemd_connects_is_refused(void **state)
{
	struct world *w = *state;

	w->connects_late = true;
	go_to(w, STEP_GETFD);
	answer_all(w);
	w->other_shared_memory = true;
	connects(w);
	answer_until(w, "migrate");	/* which was asked already */
	assert_int_equal(w->migration.phase, PHASE_UNDO);
	play_undo(w, true);
	assert_undone(w, "memory", STEP_MIGRATE, true);
	assert_did(w, "memory backend \"x\" is shared memory outside umem");
}

/* ---- source, umemds that follow one another ---- */

static const char source_goes_on[] = "start source tcp:there:4444 32" GOES_ON("true", "true");

static void assert_restarts(struct world *w, unsigned int milliseconds)
{
	unsigned int starts = w->starts;

	assert_int_equal(w->timer, milliseconds);
	migration_timer(&w->migration);
	assert_int_equal(w->starts, starts + 1);
	assert_true(w->migration.umemd_alive);
}

static void test_after_go_another_umemd_goes_on_whenever_one_ends(void **state)
{
	static const char *const at[] = { NULL, "paused", "recover", "running" };
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		for (int erred = 0; erred < 2; erred++) {
			restart(w);
			complete(w);
			if (at[i])
				umemd_state(w, at[i]);
			forget(w);
			(erred ? umemd_errs : umemd_dies)(w);
			assert_string_equal(w->migration.state, "paused");
			assert_string_equal(w->migration.reason, erred ? "connection lost" :
				"umemd was killed by signal 9 (Killed), another is started");
			assert_int_equal(did(w, "dismiss umemd"), erred);
			assert_restarts(w, 10);
			assert_did(w, source_goes_on);
			assert_did(w, "tell {\"cmd\":\"set\",");
			umemd_state(w, "recover");
			umemd_state(w, "running");
			assert_string_equal(w->migration.state, "running");
			assert_null(w->migration.reason);
			umemd_state(w, "end");
			assert_string_equal(w->migration.state, "completed");
			assert_int_equal(w->migration.restarts, 1);
			assert_int_equal(w->conts + w->cancels, 0);
			assert_int_equal(w->gos, 1);
		}
	}
}

static void test_guest_that_was_paused_stays_so_whatever_umemd_says_go(void **state)
{
	struct world *w = *state;

	w->status = "paused";
	complete(w);
	umemd_dies(w);
	migration_timer(&w->migration);
	assert_did(w, GOES_ON("true", "false"));
}

static void test_umemd_that_ends_at_once_is_started_ever_more_slowly(void **state)
{
	struct world *w = *state;

	complete(w);
	for (unsigned int wait = 10; wait < 5000; wait *= 2) {
		umemd_dies(w);
		assert_restarts(w, wait);
	}
	for (int i = 0; i < 3; i++) {
		umemd_dies(w);
		assert_restarts(w, 5000);
	}
	w->now += 10000000;
	umemd_dies(w);
	assert_restarts(w, 10);
}

static void test_umemd_that_cannot_be_started_again_is_tried_for_ever(void **state)
{
	struct world *w = *state;

	complete(w);
	umemd_dies(w);
	w->umemd_will_not_start = true;
	migration_timer(&w->migration);
	assert_string_equal(w->migration.reason, "umemd cannot be started");
	assert_string_equal(w->migration.state, "paused");
	assert_int_equal(w->timer, 20);
	forget(w);
	migration_timer(&w->migration);
	assert_false(did(w, "PAUSED"));	/* once is enough */
	assert_int_equal(w->timer, 40);
	w->umemd_will_not_start = false;
	assert_restarts(w, 40);
}

static void test_umemd_goes_on_after_qemu_has_ended_at_the_source(void **state)
{
	struct world *w = *state;

	complete(w);
	migration_qemu_gone(&w->migration, "exited with status 0");
	assert_true(migration_serving(&w->migration));
	umemd_dies(w);
	assert_true(migration_serving(&w->migration));
	assert_restarts(w, 10);
	umemd_state(w, "end");
	assert_false(migration_serving(&w->migration));
}

static void test_totals_go_on_from_umemd_to_umemd(void **state)
{
	struct world *w = *state;
	json_t *info;

	complete(w);
	umemd(w, "{\"event\":\"progress\",\"requests\":7,\"bulk_bytes\":5,\"pages_sent\":40}");
	for (int i = 0; i < 2; i++) {
		umemd_dies(w);
		migration_timer(&w->migration);
		umemd(w, "{\"event\":\"progress\",\"requests\":1,\"bulk_bytes\":0,\"pages_sent\":50}");
		umemd(w, "{\"event\":\"progress\",\"requests\":2,\"bulk_bytes\":3,\"pages_sent\":60}");
	}
	info = info_json(&w->migration, w->now);
	assert_int_equal(json_integer_value(json_object_get(info, "requests")), 11);
	assert_int_equal(json_integer_value(json_object_get(info, "bulk_bytes")), 11);
	assert_int_equal(json_integer_value(json_object_get(info, "pages_sent")), 60);
	assert_int_equal(json_integer_value(json_object_get(info, "umemd_restarts")), 2);
	assert_null(json_object_get(info, "session"));
	json_decref(info);
}

/* ---- by hand ---- */

static void refused(char *why, const char *words)
{
	if (!why || !strstr(why, words))
		fail_msg("it says \"%s\", wanted \"%s\" in it", why ? why : "yes", words);
	free(why);
}

static void refused_all(struct world *w, const char *words)
{
	refused(migration_pause(&w->migration), words);
	refused(migration_recover(&w->migration, NULL), words);
	refused(migration_restart_umemd(&w->migration), words);
	assert_int_equal(w->timer == 10, 0);
}

static void umemd_obeys(struct world *w)
{
	assert_did(w, "tell {\"cmd\":\"stop\"}\ndismiss umemd\n");
	migration_umemd_gone(&w->migration, "exited with status 0", true);
}

static void test_nothing_is_paused_before_go_or_after_the_end(void **state)
{
	struct world *w = *state;

	refused_all(w, "no migration is under way");
	for (int step = STEP_QUERY; step < STEP_END; step++) {
		restart(w);
		go_to(w, step);
		refused_all(w, "not been handed over yet (state");
		refused_all(w, "migrate_cancel gives the migration up");
		assert_false(did(w, "stop\""));
	}
	restart(w);
	complete(w);
	umemd_state(w, "end");
	refused_all(w, "all of the guest's memory has arrived");
}

static void test_paused_by_hand_there_is_no_umemd_until_recovered(void **state)
{
	struct world *w = *state;

	complete(w);
	refused(migration_recover(&w->migration, NULL), "not paused (state running)");
	forget(w);
	assert_null(migration_pause(&w->migration));
	refused(migration_pause(&w->migration), "paused already, until migrate_recover");
	refused(migration_restart_umemd(&w->migration), "there is no umemd (by migrate_pause");
	umemd_state(w, "recover");
	umemd_state(w, "running");
	assert_string_equal(w->migration.state, "paused");
	umemd_obeys(w);
	assert_int_equal(w->timer, 0);
	migration_timer(&w->migration);
	assert_int_equal(w->starts, 1);
	assert_string_equal(w->migration.state, "paused");
	assert_true(migration_active(&w->migration));

	assert_null(migration_recover(&w->migration, NULL));
	assert_int_equal(w->starts, 2);
	assert_did(w, source_goes_on);
	umemd_state(w, "running");
	assert_string_equal(w->migration.state, "running");
}

static void test_recovered_elsewhere_before_the_old_umemd_has_ended(void **state)
{
	struct world *w = *state;

	complete(w);
	assert_null(migration_pause(&w->migration));
	assert_null(migration_recover(&w->migration, "unix:/there"));
	assert_int_equal(w->starts, 1);
	umemd_obeys(w);
	assert_int_equal(w->starts, 2);
	assert_did(w, "start source unix:/there 32" GOES_ON("true", "true"));
	assert_string_equal(w->migration.command.uri, "unix:/there");
}

static void test_paused_by_hand_while_another_umemd_is_due(void **state)
{
	struct world *w = *state;

	complete(w);
	umemd_dies(w);
	assert_null(migration_pause(&w->migration));
	migration_timer(&w->migration);
	assert_int_equal(w->starts, 1);
	assert_null(migration_recover(&w->migration, "tcp:other:1"));
	assert_int_equal(w->starts, 2);
	assert_did(w, "start source tcp:other:1 32");
}

static void test_lost_connection_is_recovered_elsewhere(void **state)
{
	struct world *w = *state;

	complete(w);
	pauses(w);
	assert_null(migration_recover(&w->migration, "tcp:other:1"));
	umemd_obeys(w);
	assert_did(w, "start source tcp:other:1 32" GOES_ON("true", "true"));
}

static void test_umemd_is_replaced_on_command(void **state)
{
	struct world *w = *state;

	complete(w);
	forget(w);
	assert_null(migration_restart_umemd(&w->migration));
	umemd_obeys(w);
	assert_did(w, source_goes_on);
	assert_int_equal(w->starts, 2);
	/* one that does not obey is killed, which is no failure, either */
	assert_null(migration_restart_umemd(&w->migration));
	umemd_dies(w);
	assert_int_equal(w->starts, 3);
	assert_int_equal(w->timer, 0);
	/* nor is it waited for that the next is due */
	umemd_dies(w);
	assert_null(migration_restart_umemd(&w->migration));
	assert_int_equal(w->starts, 4);
	migration_timer(&w->migration);
	assert_int_equal(w->starts, 4);
}

static void test_descriptor_ends_with_its_umemd(void **state)
{
	struct hmp_command command;
	struct world *w = *state;

	go_to(w, STEP_COMPLETED);
	hmp_parse(&command, "migrate -p fd:7", false);
	w->migration.command = command;
	umemd(w, "{\"event\":\"ready\"}");
	refused(migration_restart_umemd(&w->migration), "fd:7 ends with the umemd that has it");
	umemd_dies(w);
	assert_did(w, "umemd was killed by signal 9 (Killed), and fd:7 with it: wanted migrate_recover");
	migration_timer(&w->migration);
	assert_int_equal(w->starts, 1);
	refused(migration_recover(&w->migration, NULL), "wanted another URI");
	assert_null(migration_recover(&w->migration, "fd:8"));
	assert_int_equal(w->starts, 2);
}

/* ---- source, pre-copy first ---- */

static void test_precopy_goes_on_until_umemd_says_that_it_converged(void **state)
{
	struct world *w = *state;

	w->precopy = true;
	go_to(w, STEP_ADVISE);
	assert_did(w, "start source tcp:there:4444 32 precopy\n");
	forget(w);
	umemd_state(w, "advise");
	umemd(w, "{\"event\":\"progress\",\"round\":2,\"dirty_pages\":9}");
	answer_all(w);
	assert_string_equal(w->did.data, "log STATE role=source state=advise\n"
			    "log STATE role=source state=precopy\n");
	assert_string_equal(w->migration.state, "precopy");
	forget(w);
	converge(w);
	converge(w);
	answer_all(w);
	assert_int_equal(w->migration.phase, PHASE_STREAM);
	converge(w);
	w->status = "finish-migrate";
	event(w, "STOP");
	answer_all(w);
	status(w, "pre-switchover");
	answer_all(w);
	status(w, "completed");
	umemd(w, "{\"event\":\"ready\"}");
	answer_all(w);
	assert_string_equal(w->did.data,
			    "log CONVERGED role=source remaining_bytes=8192 expected_downtime_ms=7\n"
			    "log STATE role=source state=switchover\n"
			    ASK_SETTINGS
			    MAKE_QEMU_READY
			    SWITCHOVER);
	assert_int_equal(w->gos, 1);
}

static void start_postcopy(struct world *w)
{
	assert_null(migration_start_postcopy(&w->migration));
}

static void test_start_postcopy_ends_precopy_at_once(void **state)
{
	struct world *w = *state;

	w->precopy = true;
	go_to(w, STEP_PRECOPY);
	start_postcopy(w);
	assert_string_equal(w->migration.state, "switchover");
	converge(w);
	answer_all(w);
	assert_int_equal(w->migration.phase, PHASE_STREAM);
	assert_false(did(w, "CONVERGED"));
}

static void test_start_postcopy_before_umemd_is_connected_is_not_forgotten(void **state)
{
	static const enum source_step steps[] = { STEP_QUERY, STEP_MEMORY, STEP_ADVISE };
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		restart(w);
		w->precopy = true;
		go_to(w, steps[i]);
		start_postcopy(w);
		answer_all(w);
		assert_int_equal(w->migration.phase, PHASE_ADVISE);
		umemd_state(w, "advise");
		assert_int_equal(w->migration.phase, PHASE_PREPARE);
		assert_false(did(w, "state=precopy"));
		user_cancels(w);
		play_undo(w, true);
		forget(w);
		/* It was for that migration, not for the next. */
		go_to(w, STEP_PRECOPY);
		assert_int_equal(w->migration.phase, PHASE_PRECOPY);
	}
}

static void assert_start_postcopy_refused(struct world *w, const char *words)
{
	size_t asked = w->nr_asked;
	enum migration_phase phase = w->migration.phase;
	char *why = migration_start_postcopy(&w->migration);

	if (!why || !strstr(why, words))
		fail_msg("start_postcopy is answered \"%s\", wanted \"%s\" in it",
			 why ? why : "", words);
	free(why);
	assert_int_equal(w->nr_asked, asked);
	assert_int_equal(w->migration.phase, phase);
	assert_false(w->migration.switch_soon && !w->precopy);
}

static void test_start_postcopy_in_a_wrong_state_is_refused_with_it(void **state)
{
	struct world *w = *state;

	assert_start_postcopy_refused(w, "no migration is under way");
	go_to(w, STEP_QUERY);
	assert_start_postcopy_refused(w, "was begun with -p");
	answer_all(w);
	assert_start_postcopy_refused(w, "(state setup) was begun with -p");
	user_cancels(w);
	assert_start_postcopy_refused(w, "being given up");
	play_undo(w, true);
	assert_start_postcopy_refused(w, "no migration is under way");

	for (int step = STEP_PREPARE; step <= STEP_READY_FIRST; step++) {
		restart(w);
		w->precopy = true;
		go_to(w, step);
		assert_start_postcopy_refused(w, "already (state switchover)");
	}
	restart(w);
	w->precopy = true;
	go_to(w, STEP_ADVISE);
	start_postcopy(w);
	assert_start_postcopy_refused(w, "already (state setup)");
	umemd_state(w, "advise");
	assert_start_postcopy_refused(w, "already (state advise)");

	restart(w);
	w->precopy = true;
	complete(w);
	assert_start_postcopy_refused(w, "has moved to tcp:there:4444 already (state running)");
	umemd_state(w, "end");
	assert_start_postcopy_refused(w, "already (state completed)");
}

static void test_guest_may_be_paused_and_continued_during_precopy(void **state)
{
	struct hmp_command command;
	struct world *w = *state;
	char *text;

	for (int runs = 0; runs < 2; runs++) {
		for (int cancel = 0; cancel < 2; cancel++) {
			restart(w);
			w->precopy = true;
			go_to(w, STEP_PRECOPY);
			hmp_parse(&command, "stop", false);
			assert_true(migration_guard(&w->migration, &command, &text));
			w->status = "paused";
			event(w, "STOP");
			hmp_parse(&command, "cont", false);
			assert_true(migration_guard(&w->migration, &command, &text));
			if (runs) {
				w->status = "running";
				event(w, "RESUME");
			}
			if (cancel) {
				user_cancels(w);
				play_undo(w, true);
				assert_int_equal(w->conts, 0);
				assert_string_equal(w->status, runs ? "running" : "paused");
				assert_did(w, runs ? "cancelled; the guest runs on here" :
					   "cancelled; the guest stays paused here");
				continue;
			}
			converge(w);
			answer_all(w);
			if (runs)
				event(w, "STOP");
			w->status = "finish-migrate";
			answer_all(w);
			status(w, "pre-switchover");
			answer_all(w);
			status(w, "completed");
			umemd(w, "{\"event\":\"ready\"}");
			assert_int_equal(w->gos, 1);
			assert_int_equal(w->go_run, runs);
		}
	}
}

static void test_settings_made_during_precopy_are_those_set_back(void **state)
{
	struct world *w = *state;

	w->precopy = true;
	go_to(w, STEP_PRECOPY);
	w->bandwidth = 4096;
	w->postcopy_ram = false;
	w->other_shared_memory = true;
	forget(w);
	migration_parameters_changed(&w->migration);
	answer_all(w);
	assert_did(w, "\"max_precopy_bandwidth\":4096,");
	converge(w);
	answer_all(w);
	assert_did(w, "memory backend \"x\" is shared memory outside umem");
	assert_int_equal(w->migration.phase, PHASE_IDLE);

	w->other_shared_memory = false;
	w->postcopy_ram = true;
	w->dones = 0;
	go_to(w, STEP_PRECOPY);
	w->bandwidth = 8192;	/* by QMP: nobody is told */
	w->postcopy_ram = false;
	forget(w);
	converge(w);
	answer_all(w);
	w->status = "finish-migrate";
	event(w, "STOP");
	answer_all(w);
	status(w, "pre-switchover");
	answer_all(w);
	status(w, "completed");
	umemd(w, "{\"event\":\"ready\"}");
	answer_all(w);
	assert_int_equal(w->gos, 1);
	assert_int_equal(w->bandwidth, 8192);
	assert_false(did(w, "postcopy-ram"));
}

static void test_a_second_migrate_during_precopy_is_refused(void **state)
{
	struct world *w = *state;

	w->precopy = true;
	go_to(w, STEP_PRECOPY);
	assert_start_refused(w, "(state precopy), wanted none: migrate_cancel");
	assert_int_equal(w->migration.phase, PHASE_PRECOPY);
}

/* ---- destination ---- */

static void expect(struct world *w, bool deferred, bool paused)
{
	w->status = "inmigrate";
	migration_expect(&w->migration, deferred, paused);
	assert_null(migration_listen(&w->migration, "tcp:0:4444"));
	answer_all(w);
	umemd(w, "{\"event\":\"listening\",\"uri\":\"tcp:0.0.0.0:4444\"}");
}

static void load(struct world *w)
{
	umemd_agrees(w);
	umemd_state(w, "advise");
	answer_all(w);
}

static void loaded(struct world *w)
{
	umemd_state(w, "listen");
	status(w, "completed");
}

static void test_destination_does_its_steps_in_this_order(void **state)
{
	static const char want[] =
		"log STATE role=destination state=setup\n"
		"ask query-migrate-capabilities\n"
		"ask query-migrate-parameters\n"
		"ask migrate-set-capabilities {\"capabilities\":["
		"{\"capability\":\"x-ignore-shared\",\"state\":true},"
		"{\"capability\":\"late-block-activate\",\"state\":true},"
		"{\"capability\":\"postcopy-ram\",\"state\":false}]}\n"
		"start destination tcp:0:4444 0\n"
		"log LISTENING uri=tcp:0.0.0.0:4444\n"
		"log STATE role=destination state=advise\n"
		"ask query-migrate-parameters\n"
		"ask getfd {\"fdname\":\"umem-state\"} +stream\n"
		"ask migrate-incoming {\"uri\":\"fd:umem-state\"}\n"
		"log STATE role=destination state=listen\n"
		"log READY role=destination\n"
		"tell {\"cmd\":\"ready\"}\n"
		"log GO role=destination run=true\n"
		"ask cont\n"
		"log STATE role=destination state=running\n"
		"ask migrate-set-capabilities {\"capabilities\":["
		"{\"capability\":\"x-ignore-shared\",\"state\":false},"
		"{\"capability\":\"late-block-activate\",\"state\":false},"
		"{\"capability\":\"postcopy-ram\",\"state\":true}]}\n"
		"ask query-cpus-fast\n"
		"log STATE role=destination state=completed\n"
		"log END role=destination\n"
		"collapse\n";
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	umemd_state(w, "listen");
	status(w, "active");
	status(w, "completed");
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	answer_all(w);
	umemd_state(w, "running");
	migration_qemu_event(&w->migration, "RESUME", NULL, 77);
	umemd_state(w, "end");
	assert_string_equal(w->did.data, want);
	assert_int_equal(w->migration.resumed_us, 77);
	assert_int_equal(w->give_ups, 0);
}

static void test_what_is_allocated_is_told(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	answer_all(w);
	umemd(w, "{\"event\":\"allocated\",\"bytes\":1073741824,\"of\":4294967296}");
	assert_did(w, "log ALLOCATED role=destination bytes=1073741824 of=4294967296\n");
}

/* ---- TLS ---- */

static void give_credentials(struct world *w, const char *type, const char *endpoint)
{
	strcpy(w->creds, "tls0");
	w->tls_type = type;
	w->tls_endpoint = endpoint;
}

static void test_credentials_are_known_before_umemd_starts(void **state)
{
	struct world *w = *state;

	give_credentials(w, "tls-creds-x509", "client");
	go_to(w, STEP_MEMORY);
	for (int i = 0; i < 3; i++)
		answer(w, NULL);
	assert_did(w, "ask qom-get {\"path\":\"/objects/tls0\",\"property\":\"type\"}\n"
		   "ask qom-get {\"path\":\"/objects/tls0\",\"property\":\"dir\"}\n");
	assert_false(did(w, "start source"));
	assert_string_equal(json_string_value(json_object_get(w->migration.tls, "dir")),
			    "/etc/pki/qemu");
	assert_null(json_object_get(w->migration.tls, "username"));
	answer_all(w);
	assert_did(w, "start source");
}

static void test_without_credentials_no_object_is_asked(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_ADVISE);
	assert_null(w->migration.tls);
	assert_false(did(w, "qom-get"));
}

/* QEMU would speak TLS with umemd; afterwards it has what the user had set. */
static void test_source_keeps_credentials_from_qemu_while_the_stream_flows(void **state)
{
	struct world *w = *state;

	for (int way = 0; way < 2; way++) {
		restart(w);
		give_credentials(w, "tls-creds-x509", "client");
		go_to(w, STEP_PARAMETERS);
		assert_string_equal(w->creds, "tls0");
		answer_until(w, "migrate");
		assert_string_equal(w->creds, "");
		answer_all(w);
		status(w, "active");
		migration_parameters_changed(&w->migration);	/* umem's own is none of the user's */
		if (way) {
			migration_cancel(&w->migration);
			play_undo(w, true);
			assert_undone(w, "cancel", way, true);
		} else {
			w->status = "finish-migrate";
			event(w, "STOP");
			answer_all(w);
			status(w, "pre-switchover");
			answer_all(w);
			w->status = "postmigrate";
			status(w, "completed");
			umemd(w, "{\"event\":\"ready\"}");
			answer_all(w);
			assert_true(w->migration.moved);
		}
		assert_string_equal(w->creds, "tls0");
		assert_int_equal(w->bandwidth, BANDWIDTH);
	}
}

static void test_destination_keeps_credentials_from_qemu_until_go(void **state)
{
	struct world *w = *state;

	give_credentials(w, "tls-creds-psk", "server");
	expect(w, false, false);
	assert_did(w, "start destination");
	assert_string_equal(w->creds, "tls0");
	umemd_state(w, "advise");
	answer_until(w, "migrate-incoming");
	assert_string_equal(w->creds, "");
	answer_all(w);
	loaded(w);
	assert_string_equal(w->creds, "");
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	answer_all(w);
	assert_string_equal(w->creds, "tls0");
}

/* umemd goes by what was set when it began; QEMU must not go by what was set since. */
/* QEMU has the stream, but not the parameters: the answer is to what was given up. */
static void test_stream_that_qemu_takes_too_late_is_not_loaded(void **state)
{
	struct world *w = *state;

	give_credentials(w, "tls-creds-x509", "server");
	expect(w, true, false);
	umemd_agrees(w);
	umemd_state(w, "advise");
	answer_until(w, "migrate-set-parameters");
	assert_did(w, "ask getfd ");
	answer(w, "no");
	assert_int_equal(w->migration.phase, PHASE_EXPECT);
	assert_null(migration_listen(&w->migration, "tcp:0:4445"));
	answer_all(w);
	assert_int_equal(w->migration.phase, PHASE_WAIT);
	assert_false(did(w, "ask migrate-incoming"));
	load(w);
	assert_did(w, "ask migrate-incoming");
}

static void test_credentials_set_after_listening_are_kept_from_qemu(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	strcpy(w->creds, "tls0");
	umemd_state(w, "advise");
	answer_until(w, "migrate-incoming");
	assert_string_equal(w->creds, "");
	assert_null(w->migration.tls);
	answer_all(w);
	loaded(w);
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	answer_all(w);
	assert_string_equal(w->creds, "tls0");
}

static void source_refuses(struct world *w, const char *why)
{
	go_to(w, STEP_QUERY);
	answer_all(w);
	assert_undone(w, why, STEP_QUERY, true);
	assert_did(w, why);
	assert_false(did(w, "start source"));
	assert_string_equal(w->creds, "tls0");
	restart(w);
}

static void test_unfit_credentials_are_refused_before_umemd_starts(void **state)
{
	struct world *w = *state;

	strcpy(w->creds, "tls0");
	source_refuses(w, "tls-creds is \"tls0\", wanted the id of a -object");
	give_credentials(w, "tls-creds-anon", "client");
	source_refuses(w, "a tls-creds-anon, wanted a tls-creds-x509 or a tls-creds-psk");
	give_credentials(w, "tls-creds-x509", "server");
	source_refuses(w, "of endpoint=server, wanted one of endpoint=client where a guest leaves");
	give_credentials(w, "tls-creds-x509", "client");
	w->authz = "rules";	/* QEMU's clients do not look at it either */
	go_to(w, STEP_ADVISE);
	assert_did(w, "start source");

	restart(w);
	give_credentials(w, "tls-creds-x509", "server");
	w->authz = "rules";
	expect(w, true, false);
	assert_did(w, "say migrate_incoming: tls-authz is \"rules\", which umem does not look at");
	assert_false(did(w, "start destination"));
	assert_int_equal(w->migration.phase, PHASE_EXPECT);
	w->authz = NULL;
	assert_null(migration_listen(&w->migration, "tcp:0:4444"));
	answer_all(w);
	assert_did(w, "start destination");
}

static void assert_runs(struct world *w, bool go_run, bool want)
{
	load(w);
	loaded(w);
	assert_int_equal(w->conts, 0);
	umemd(w, go_run ? "{\"event\":\"go\",\"run\":true}" : "{\"event\":\"go\",\"run\":false}");
	assert_int_equal(w->conts, want);
}

static void assert_runs_from_load(struct world *w)
{
	loaded(w);
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	assert_int_equal(w->conts, 1);
	assert_true(w->migration.moved);
}

static void type(struct world *w, const char *line)
{
	struct hmp_command command;
	char *text;

	hmp_parse(&command, line, false);
	if (migration_guard(&w->migration, &command, &text))
		fail_msg("\"%s\" was let through", line);
	free(text);
}

static void test_guest_starts_only_if_it_ran_and_nobody_wants_it_paused(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, false, false);
	restart(w);
	expect(w, false, true);
	assert_runs(w, true, false);
	restart(w);
	expect(w, false, true);
	type(w, "cont");
	assert_runs(w, true, true);
	restart(w);
	expect(w, false, false);
	type(w, "stop");
	assert_runs(w, true, false);
}

static void test_before_go_nothing_typed_reaches_the_destinations_qemu(void **state)
{
	struct world *w = *state;

	migration_expect(&w->migration, true, false);
	type(w, "cont");
	type(w, "system_reset");
	assert_null(migration_listen(&w->migration, "tcp:0:4444"));
	type(w, "c");
	answer_all(w);
	type(w, "loadvm x");
	load(w);
	type(w, "cont");
	loaded(w);
	type(w, "cont");
	assert_int_equal(w->conts, 0);
}

static void test_ready_needs_both_a_loaded_qemu_and_the_end_of_the_stream(void **state)
{
	struct world *w = *state;

	for (int umemd_first = 0; umemd_first < 2; umemd_first++) {
		restart(w);
		expect(w, false, false);
		load(w);
		if (umemd_first)
			umemd_state(w, "listen");
		else
			status(w, "completed");
		assert_false(did(w, "tell"));
		if (umemd_first)
			status(w, "completed");
		else
			umemd_state(w, "listen");
		assert_did(w, "tell {\"cmd\":\"ready\"}\n");
	}
}

static void test_guest_that_runs_before_go_is_given_up(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	loaded(w);
	event(w, "RESUME");
	assert_int_equal(w->fails, 1);
	assert_int_equal(w->give_ups, 1);
}

static void test_load_failure_is_told_to_the_source(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	status(w, "failed");
	migration_qemu_gone(&w->migration, "exited with status 1");
	assert_int_equal(w->fails, 0);
	assert_int_equal(w->timer, 100);
	migration_timer(&w->migration);
	assert_int_equal(w->fails, 1);
	assert_did(w, "could not load the device state");
	assert_int_equal(w->give_ups, 1);
}

static void test_umemds_reason_is_better_than_a_broken_stream(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	status(w, "failed");
	umemd_errs(w);
	assert_string_equal(w->migration.reason, "connection lost");
	assert_int_equal(w->give_ups, 1);
}

/* A destination: 0 it listens, 1 umemd has a source, 2 QEMU loads, 3 that is READY. */
static void come_to(struct world *w, int step)
{
	expect(w, false, false);
	if (step < 1)
		return;
	umemd_agrees(w);
	umemd_state(w, "advise");
	if (step >= 2)
		answer_all(w);
	if (step >= 3)
		loaded(w);
}

static void test_every_failure_before_go_ends_the_destination(void **state)
{
	struct world *w = *state;

	/* When it is ready GO may have been said: umemd alone does not end it. */
	for (int step = 0; step < 4; step++) {
		for (int way = step == 3 ? 2 : 0; way < 3; way++) {
			restart(w);
			come_to(w, step);
			if (way == 0)
				umemd_errs(w);
			else if (way == 1)
				umemd_dies(w);
			else
				migration_qemu_gone(&w->migration, "was killed");
			answer_all(w);
			assert_int_equal(w->migration.phase, PHASE_LOST);
			assert_int_equal(w->conts, 0);
			assert_int_equal(w->fails, way == 2);
			assert_int_equal(w->give_ups, way != 2);
			umemd(w, "{\"event\":\"go\",\"run\":true}");
			assert_int_equal(w->conts, 0);
		}
	}
}

static void test_qemus_refusal_of_the_stream_is_told_to_the_source(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	umemd_state(w, "advise");
	answer(w, NULL);
	answer(w, "no incoming migration expected");
	assert_int_equal(w->fails, 1);
	assert_did(w, "no incoming migration expected");
	assert_int_equal(w->give_ups, 1);
}

static void test_port_in_use_after_migrate_incoming_may_be_tried_again(void **state)
{
	struct world *w = *state;

	migration_expect(&w->migration, true, false);
	assert_null(migration_listen(&w->migration, "tcp:0:4444"));
	answer_all(w);
	umemd_errs(w);
	assert_int_equal(w->give_ups, 0);
	assert_int_equal(w->dones, 1);
	assert_int_equal(w->migration.phase, PHASE_EXPECT);
	assert_did(w, "say migrate_incoming: connection lost");
	assert_null(migration_listen(&w->migration, "tcp:0:4445"));
}

static void test_a_source_after_one_that_left_at_once_finds_qemu_waiting(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	umemd(w, "{\"event\":\"refused\",\"message\":\"it left\"}");
	assert_did(w, "log REFUSED message=it left");
	forget(w);
	w->now = 5000000000;
	umemd_state(w, "advise");
	assert_null(w->did.data);
	assert_int_equal(w->migration.started_us, 5000001000);
	loaded(w);
	assert_did(w, "tell {\"cmd\":\"ready\"}");
}

/* At whatever step after READY umemd ends, and as often: the guest starts once. */
static void test_from_ready_on_another_umemd_goes_on_whenever_one_ends(void **state)
{
	struct world *w = *state;

	for (int step = 0; step < 5; step++) {
		restart(w);
		expect(w, false, false);
		load(w);
		loaded(w);
		if (step >= 1)
			umemd_state(w, "paused");
		if (step >= 2)
			umemd(w, "{\"event\":\"go\",\"run\":true}");
		if (step >= 3)
			umemd_state(w, "recover");
		if (step >= 4)
			umemd_state(w, "running");
		for (int i = 0; i < 2; i++) {
			forget(w);
			umemd_dies(w);
			assert_string_equal(w->migration.state, "paused");
			assert_restarts(w, 10 << i);
			assert_did(w, step >= 2 ? GOES_ON("true", "true") :
						  GOES_ON("false", "false"));
		}
		if (step < 2)
			umemd(w, "{\"event\":\"go\",\"run\":true}");
		umemd_state(w, "recover");
		umemd_state(w, "running");
		answer_all(w);
		assert_int_equal(w->conts, 1);
		assert_int_equal(w->give_ups, 0);
		assert_string_equal(w->migration.state, "running");
		umemd_state(w, "end");
		assert_string_equal(w->migration.state, "completed");
	}
}

static void test_error_when_ready_does_not_end_the_destination(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	loaded(w);
	umemd_errs(w);
	assert_string_equal(w->migration.reason, "connection lost");
	assert_restarts(w, 10);
	assert_did(w, GOES_ON("false", "false"));
	assert_int_equal(w->give_ups, 0);
	/* as when it has heard of GO, it may be told to listen elsewhere */
	assert_null(migration_recover(&w->migration, "tcp:0:4445"));
	umemd_obeys(w);
	assert_did(w, "start destination tcp:0:4445 0" GOES_ON("false", "false"));
}

/* umemd heard it before it could say READY: no source will ever come back. */
static void test_a_cancel_when_ready_ends_the_destination(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	loaded(w);
	umemd(w, "{\"event\":\"session\",\"session\":null}");
	umemd_errs(w);
	assert_int_equal(w->migration.phase, PHASE_LOST);
	assert_int_equal(w->give_ups, 1);

	/* after GO there is nothing that could make the session void */
	restart(w);
	expect(w, false, false);
	load(w);
	loaded(w);
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	umemd(w, "{\"event\":\"session\",\"session\":null}");
	umemd_errs(w);
	assert_restarts(w, 10);
	assert_int_equal(w->give_ups, 0);
}

/* The source may not have heard of the end: it finds somebody there who tells it. */
static void test_destinations_umemd_that_dies_at_the_end_is_followed_for_a_while(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	umemd_state(w, "end");
	umemd_dies(w);
	assert_restarts(w, 10);
	umemd_state(w, "end");
	assert_string_equal(w->migration.state, "completed");
	umemd_dies(w);
	w->now += 60000000;
	migration_timer(&w->migration);
	assert_int_equal(w->starts, 2);

	restart(w);
	expect(w, false, false);
	assert_runs(w, true, true);
	umemd_state(w, "end");
	migration_umemd_gone(&w->migration, "exited with status 0", true);
	assert_int_equal(w->timer, 0);
	assert_string_equal(w->migration.state, "completed");
}

static void test_limit_of_waiting_for_the_source(void **state)
{
	struct world *w = *state;

	migration_set_paused_limit(&w->migration, 30);
	expect(w, false, false);
	load(w);
	loaded(w);
	pauses(w);		/* when ready: nothing is lost yet */
	assert_int_equal(w->limit_timer, 0);
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	pauses(w);
	assert_int_equal(w->limit_timer, 30000);
	w->limit_timer = 1;	/* neither another reason nor an attempt starts it anew */
	umemd_dies(w);
	umemd_state(w, "recover");
	pauses(w);
	assert_int_equal(w->limit_timer, 1);
	migration_set_paused_limit(&w->migration, 40);
	assert_int_equal(w->limit_timer, 40000);
	migration_limit_timer(&w->migration);
	assert_did(w, "log PAUSED-LIMIT role=destination seconds=40");
	migration_timer(&w->migration);
	umemd_state(w, "running");
	assert_int_equal(w->limit_timer, 0);
	pauses(w);
	assert_int_equal(w->limit_timer, 40000);
	umemd_state(w, "end");
	assert_int_equal(w->limit_timer, 0);

	restart(w);
	migration_set_paused_limit(&w->migration, 30);
	complete(w);
	pauses(w);
	assert_int_equal(w->limit_timer, 0);	/* the source gives up nothing */
}

static void test_destination_may_listen_elsewhere(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	pauses(w);
	assert_null(migration_recover(&w->migration, "tcp:0:4445"));
	umemd_obeys(w);
	assert_did(w, "start destination tcp:0:4445 0" GOES_ON("true", "true"));
	umemd(w, "{\"event\":\"listening\",\"uri\":\"tcp:0.0.0.0:4445\"}");
	assert_did(w, "log LISTENING uri=tcp:0.0.0.0:4445");
}

static void assert_give_up_refused(struct world *w, const char *words)
{
	char *why = migration_give_up(&w->migration);

	assert_non_null(why);
	if (!strstr(why, words))
		fail_msg("\"%s\" does not say \"%s\"", why, words);
	free(why);
	assert_false(did(w, "give-up"));
}

static void test_a_lost_source_is_given_up_when_told(void **state)
{
	struct world *w = *state;
	json_t *reply;

	assert_give_up_refused(w, "no guest came here");
	expect(w, false, false);
	assert_give_up_refused(w, "it may run at its source");
	assert_runs(w, true, true);
	assert_give_up_refused(w, "the source is connected (state running)");
	umemd_state(w, "paused");
	forget(w);
	assert_null(migration_give_up(&w->migration));
	assert_did(w, "tell {\"cmd\":\"give-up\"}");
	forget(w);
	assert_give_up_refused(w, "already");

	umemd(w, "{\"event\":\"gone-ranges\",\"region\":\"ram0\",\"ranges\":[[4096,8192],[65536,4096]]}");
	umemd(w, "{\"event\":\"gone-ranges\",\"region\":\"ram1\",\"ranges\":[[0,4096]]}");
	umemd(w, "{\"event\":\"gone\",\"pages\":4}");
	assert_did(w, "log GONE role=destination pages=4 ranges: ram0:0x1000+0x2000 ram0:0x10000+0x1000 ram1:0x0+0x1000");
	assert_did(w, "say migrate: the source was given up: 4 pages of the guest's memory are gone");
	assert_string_equal(w->migration.state, "failed");
	assert_false(migration_active(&w->migration));
	assert_int_equal(w->give_ups, 0);
	assert_give_up_refused(w, "4 pages of the guest's memory are gone");
	assert_start_refused(w, "never arrived");
	/* umemd ends: that is no news */
	forget(w);
	umemd_dies(w);
	assert_null(w->did.data);

	reply = json_object();
	info_gone(&w->migration, 1, reply);
	assert_int_equal(json_integer_value(json_object_get(reply, "pages")), 4);
	assert_int_equal(json_integer_value(json_object_get(reply, "ranges_total")), 3);
	assert_int_equal(json_array_size(json_object_get(reply, "ranges")), 2);
	info_gone(&w->migration, 3, reply);
	assert_int_equal(json_array_size(json_object_get(reply, "ranges")), 0);
	info_gone(&w->migration, UINT32_MAX, reply);
	assert_int_equal(json_array_size(json_object_get(reply, "ranges")), 0);
	json_decref(reply);
}

static void test_many_ranges_are_asked_for_in_parts(void **state)
{
	struct world *w = *state;
	json_t *event, *ranges = json_array(), *reply = json_object();

	expect(w, false, false);
	assert_runs(w, true, true);
	umemd_state(w, "paused");
	assert_null(migration_give_up(&w->migration));
	for (int i = 0; i < INFO_GONE_MAX + 1; i++)
		json_array_append_new(ranges, json_pack("[i,i]", i * 8192, 4096));
	event = json_pack("{s:s,s:s,s:o}", "event", "gone-ranges", "region", "ram0", "ranges", ranges);
	migration_umemd_event(&w->migration, event);
	json_decref(event);
	umemd(w, "{\"event\":\"gone\",\"pages\":513}");
	assert_did(w, " and 505 more");
	info_gone(&w->migration, 0, reply);
	assert_int_equal(json_array_size(json_object_get(reply, "ranges")), INFO_GONE_MAX);
	info_gone(&w->migration, INFO_GONE_MAX, reply);
	assert_int_equal(json_array_size(json_object_get(reply, "ranges")), 1);
	json_decref(reply);
}

static void test_a_source_that_came_back_in_time_may_be_given_up_later(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	umemd_state(w, "paused");
	assert_null(migration_give_up(&w->migration));
	umemd(w, "{\"event\":\"refused\",\"message\":\"it is back\"}");
	umemd_state(w, "running");
	assert_string_equal(w->migration.state, "running");
	umemd_state(w, "paused");
	forget(w);
	assert_null(migration_give_up(&w->migration));
}

static void test_waited_for_long_enough_the_policy_decides(void **state)
{
	struct world *w = *state;

	migration_set_lost_source(&w->migration, true);
	expect(w, false, false);
	assert_runs(w, true, true);
	umemd_state(w, "paused");
	migration_set_lost_source(&w->migration, false);
	forget(w);
	migration_source_lost(&w->migration);
	assert_null(w->did.data);
	migration_set_lost_source(&w->migration, true);
	migration_source_lost(&w->migration);
	assert_did(w, "tell {\"cmd\":\"give-up\"}");
	forget(w);
	migration_source_lost(&w->migration);
	assert_did(w, "log NOT-GIVEN-UP role=destination reason=the source is being given up already");
}

/* Told to poison when the time is over already, it does at once, but not a source that is back. */
static void test_the_policy_may_be_set_when_the_time_is_over(void **state)
{
	struct world *w = *state;

	migration_set_paused_limit(&w->migration, 30);
	expect(w, false, false);
	assert_runs(w, true, true);
	pauses(w);
	migration_set_lost_source(&w->migration, true);
	migration_set_lost_source(&w->migration, false);
	migration_limit_timer(&w->migration);
	umemd_state(w, "running");
	migration_set_lost_source(&w->migration, true);
	migration_set_lost_source(&w->migration, false);
	pauses(w);
	migration_limit_timer(&w->migration);
	pauses(w);
	assert_false(did(w, "give-up"));
	migration_set_lost_source(&w->migration, true);
	assert_did(w, "tell {\"cmd\":\"give-up\"}");
}

static void test_a_source_that_was_about_to_come_back_is_waited_for_anew(void **state)
{
	struct world *w = *state;

	migration_set_paused_limit(&w->migration, 30);
	migration_set_lost_source(&w->migration, true);
	expect(w, false, false);
	assert_runs(w, true, true);
	pauses(w);
	umemd_state(w, "recover");
	migration_limit_timer(&w->migration);
	assert_did(w, "log NOT-GIVEN-UP role=destination reason=the source is connected (state recover)");
	w->limit_timer = 0;
	pauses(w);
	assert_int_equal(w->limit_timer, 30000);
	migration_limit_timer(&w->migration);
	assert_did(w, "tell {\"cmd\":\"give-up\"}");
}

static void adopt(struct world *w)
{
	char *text = json_dumps(w->saved, 0), *why;
	json_t *saved = json_loads(text, 0, NULL);

	migration_destroy(&w->migration);
	forget(w);
	w->nr_asked = w->nr_answered = 0;
	w->conts = w->gos = w->dones = w->give_ups = w->starts = 0;
	migration_init(&w->migration, &ops, w, regions, ARRAY_SIZE(regions));
	why = saved_decode(&w->migration, saved);
	if (why)
		fail_msg("%s", why);
	migration_adopted(&w->migration);
	json_decref(saved);
	free(text);
}

/* Whatever it is that keeps umemd away: who gives up is not to do it twice. */
static void test_given_up_without_a_umemd_another_does_it(void **state)
{
	struct world *w = *state;

	for (int step = 0; step < 4; step++) {
		restart(w);
		expect(w, false, false);
		assert_runs(w, true, true);
		pauses(w);
		if (step == 0) {
			assert_null(migration_pause(&w->migration));
			umemd_obeys(w);
		} else if (step == 1) {
			umemd_dies(w);
		}
		forget(w);
		assert_null(migration_give_up(&w->migration));
		if (step == 2)
			umemd_dies(w);
		if (step == 2)
			migration_timer(&w->migration);
		if (step == 3)
			adopt(w);
		assert_int_equal(w->starts, step == 3 ? 1 : 2);
		assert_did(w, GOES_ON("true", "true") "tell {\"cmd\":\"give-up\"}");
		umemd(w, "{\"event\":\"gone\",\"pages\":4}");
		assert_string_equal(w->migration.state, "failed");
		adopt(w);
		assert_int_equal(w->starts, 0);
		assert_int_equal(w->migration.pages_gone, 4);
	}
}

static void test_an_adopted_one_keeps_tls_and_what_to_do_without_the_source(void **state)
{
	struct world *w = *state;

	migration_set_lost_source(&w->migration, true);
	migration_set_paused_limit(&w->migration, 30);
	give_credentials(w, "tls-creds-psk", "server");
	expect(w, false, false);
	assert_runs(w, true, true);
	adopt(w);
	assert_string_equal(json_string_value(json_object_get(w->migration.tls, "dir")),
			    "/etc/pki/qemu");
	pauses(w);
	assert_int_equal(w->limit_timer, 30000);
	migration_limit_timer(&w->migration);
	assert_did(w, "tell {\"cmd\":\"give-up\"}");
}

static void test_an_adopted_one_keeps_what_was_set_last(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	migration_set_paused_limit(&w->migration, 30);
	adopt(w);
	assert_int_equal(w->migration.paused_limit, 30);
	migration_set_lost_source(&w->migration, true);
	adopt(w);
	assert_true(w->migration.poison_lost);
	migration_set_urgent_channels(&w->migration, 3);
	adopt(w);
	assert_int_equal(w->migration.urgent_channels, 3);
}

static void test_a_page_that_keeps_coming_damaged_is_logged(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	umemd(w, "{\"event\":\"damaged\",\"region\":\"ram0\",\"offset\":20480,\"times\":3}");
	assert_did(w, "log DAMAGED role=destination region=ram0 offset=20480 times=3");
}

static void test_after_go_qemus_death_is_told_to_the_source(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	migration_qemu_gone(&w->migration, "exited with status 0");
	assert_int_equal(w->fails, 1);
	assert_did(w, "stop umemd");
}

static void test_guest_that_qemu_does_not_start_is_told(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	answer_until(w, "cont");
	answer(w, "disk is locked");
	assert_did(w, "disk is locked; type cont");
	assert_int_equal(w->migration.phase, PHASE_AFTER);
}

static void test_guest_may_go_on_to_a_third_host_once_it_is_complete(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_start_refused(w, "has not arrived");
	assert_runs(w, true, true);
	answer_all(w);
	assert_start_refused(w, "still arriving");
	umemd_state(w, "end");
	w->status = "running";
	w->gos = 0;
	complete(w);
	assert_int_equal(w->gos, 1);
}

static void test_postcopy_ram_set_at_the_destination_is_qemus_once_the_guest_is_here(void **state)
{
	struct world *w = *state;

	assert_false(migration_hold_postcopy_ram(&w->migration, true));
	for (int on = 0; on < 2; on++) {
		restart(w);
		w->postcopy_ram = false;
		migration_expect(&w->migration, true, false);
		assert_true(migration_hold_postcopy_ram(&w->migration, !on));
		assert_null(migration_listen(&w->migration, "tcp:0:1"));
		answer_all(w);
		umemd_errs(w);	/* the port is in use */
		assert_true(migration_hold_postcopy_ram(&w->migration, on));
		assert_null(migration_listen(&w->migration, "tcp:0:4444"));
		answer_all(w);
		load(w);
		assert_false(did(w, "\"postcopy-ram\""));
		assert_runs_from_load(w);
		assert_did(w, on ? "[{\"capability\":\"postcopy-ram\",\"state\":true}]" :
			   "[{\"capability\":\"postcopy-ram\",\"state\":false}]");
		assert_false(migration_hold_postcopy_ram(&w->migration, true));
	}
	assert_start_postcopy_refused(w, "only at its source");
	umemd_state(w, "end");
	assert_start_postcopy_refused(w, "no migration is under way");
}

static void test_go_before_ready_is_not_obeyed(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	umemd(w, "{\"event\":\"go\",\"run\":true}");
	assert_int_equal(w->conts, 0);
	assert_int_equal(w->give_ups, 1);
}

/* ---- what people see ---- */

static void assert_line(const char *text, const char *line)
{
	const char *at = strstr(text, line);

	if (!at || (at != text && at[-1] != '\n') || at[strlen(line)] != '\n')
		fail_msg("no line \"%s\" in:\n%s", line, text);
}

/* What "info migrate" prints; the object behind it is the caller's. */
static char *info_text(const struct world *w, uint64_t now_us, json_t **info)
{
	*info = info_json(&w->migration, now_us);
	return report_text(*info);
}

static void assert_json(json_t *info, const char *want)
{
	json_t *wanted = json_loads(want, 0, NULL);
	char *got = json_dumps(info, JSON_SORT_KEYS);

	if (!json_equal(info, wanted))
		fail_msg("got %s, wanted %s", got, want);
	free(got);
	json_decref(wanted);
}

/* ---- another umem-qemu takes over ---- */

/* The machine is gone, with what it was asked; QEMU stays, and what was written down. */
static void assert_guest_is_not_run(struct world *w, const char *line)
{
	struct hmp_command command;
	char *text;

	hmp_parse(&command, line, false);
	assert_false(migration_guard(&w->migration, &command, &text));
	assert_non_null(strstr(text, "has moved to tcp:there:4444"));
	free(text);
}

static void test_adopted_before_go_the_guest_runs_on_at_the_source(void **state)
{
	struct world *w = *state;

	for (int step = STEP_QUERY; step < STEP_END; step++) {
		for (int way = 0; way < 4; way++) {
			restart(w);
			w->precopy = way & 1;
			go_to(w, step);
			/* its umemd has ended alone, and with it, soon, QEMU's stream */
			w->stream = way & 2 ? "pre-switchover" : NULL;
			adopt(w);
			play_undo(w, true);
			assert_undone(w, "adoption", step, step > STEP_QUERY);
			assert_false(did(w, "start "));
		}
	}
}

static void test_adopted_after_go_the_source_goes_on_and_never_runs_the_guest(void **state)
{
	struct world *w = *state;

	complete(w);
	adopt(w);
	assert_int_equal(w->migration.phase, PHASE_AFTER);
	assert_did(w, source_goes_on);
	assert_guest_is_not_run(w, "cont");
	answer_all(w);
	assert_int_equal(w->conts, 0);
	assert_int_equal(w->migration.capabilities_changed, 0);
	umemd_state(w, "running");
	umemd_dies(w);
	assert_restarts(w, 10);
	umemd_state(w, "end");
	assert_string_equal(w->migration.state, "completed");

	/* nor after its end, and somebody who ran it meanwhile is stopped */
	w->status = "running";
	adopt(w);
	answer_all(w);
	assert_did(w, "log SPLIT role=source");
	assert_did(w, "ask stop\n");
	assert_false(did(w, "start "));
	assert_guest_is_not_run(w, "system_reset");
	assert_start_refused(w, "is not here any more");
}

static void test_go_that_cannot_be_recorded_is_not_said(void **state)
{
	struct world *w = *state;

	go_to(w, STEP_COMPLETED);
	w->disk_is_full = true;
	umemd(w, "{\"event\":\"ready\"}");
	w->disk_is_full = false;
	play_undo(w, true);
	assert_undone(w, "full disk", STEP_COMPLETED, true);
	assert_did(w, "the hand-over cannot be recorded: no space; the guest runs on here");
}

/* An adopter would find a guest that is loading, and end it, though it may have been handed over. */
static void test_ready_that_cannot_be_recorded_is_not_said(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	load(w);
	w->disk_is_full = true;
	loaded(w);
	assert_false(did(w, "{\"cmd\":\"ready\"}"));
	assert_did(w, "tell {\"cmd\":\"fail\",\"message\":\"that the guest is loaded cannot be recorded: no space\"}");
	assert_int_equal(w->give_ups, 1);
}

static void test_adopted_while_paused_by_hand_it_stays_so(void **state)
{
	struct world *w = *state;

	complete(w);
	assert_null(migration_pause(&w->migration));
	adopt(w);
	assert_int_equal(w->starts, 0);
	assert_string_equal(w->migration.state, "paused");
	assert_null(migration_recover(&w->migration, NULL));
	assert_did(w, source_goes_on);
}

static void test_totals_go_on_after_an_adoption(void **state)
{
	struct world *w = *state;

	complete(w);
	umemd(w, "{\"event\":\"progress\",\"requests\":7}");
	umemd_state(w, "paused");
	adopt(w);
	umemd(w, "{\"event\":\"progress\",\"requests\":1}");
	assert_int_equal(json_integer_value(json_object_get(w->migration.progress, "requests")), 8);
}

/* At every step of the destination: it gives up, or the guest starts once. */
static void test_adopted_destination(void **state)
{
	struct world *w = *state;

	for (int step = 0; step < 7; step++) {
		restart(w);
		come_to(w, step);
		if (step >= 4)
			umemd(w, "{\"event\":\"go\",\"run\":true}");
		if (step >= 5)
			answer_all(w);
		if (step >= 5)
			migration_qemu_event(&w->migration, "RESUME", NULL, 77);
		if (step >= 6)
			umemd_state(w, "end");
		w->status = "paused";	/* not started yet, or stopped by somebody */
		adopt(w);
		if (step == 0) {	/* nobody came yet */
			assert_did(w, "start destination tcp:0:4444 0\n");
			load(w);
			loaded(w);
			assert_did(w, "tell {\"cmd\":\"ready\"}");
		}
		if (step == 2) {
			assert_int_equal(w->give_ups, 1);
			continue;
		}
		if (step == 3) {
			assert_did(w, GOES_ON("false", "false"));
			umemd(w, "{\"event\":\"go\",\"run\":true}");
		}
		if (step >= 4 && step < 6)
			assert_did(w, GOES_ON("true", "true"));
		answer_all(w);
		assert_int_equal(w->conts, step == 3 || step == 4);
		assert_int_equal(w->starts, step < 6);
		assert_int_equal(w->give_ups, 0);
	}
}

/* Twice would do no harm, but the source's memory is not mapped one by one. */
static void test_memory_that_has_arrived_is_collapsed(void **state)
{
	struct world *w = *state;

	expect(w, false, false);
	assert_runs(w, true, true);
	assert_false(did(w, "collapse\n"));
	umemd_dies(w);
	migration_timer(&w->migration);
	umemd_state(w, "end");
	assert_did(w, "collapse\n");
	forget(w);
	adopt(w);
	assert_did(w, "collapse\n");

	restart(w);
	expect(w, false, false);
	assert_runs(w, true, true);
	umemd_state(w, "paused");
	assert_null(migration_give_up(&w->migration));
	umemd(w, "{\"event\":\"gone\",\"pages\":4}");
	adopt(w);
	assert_false(did(w, "collapse\n"));

	restart(w);
	go_to(w, STEP_COMPLETED);
	umemd(w, "{\"event\":\"ready\"}");
	umemd_state(w, "end");
	assert_string_equal(w->migration.state, "completed");
	assert_false(did(w, "collapse\n"));
	adopt(w);
	assert_false(did(w, "collapse\n"));
}

static void test_record_that_lacks_something_is_refused(void **state)
{
	struct world *w = *state;
	const char *name;
	json_t *value;
	void *next;

	complete(w);
	json_object_foreach_safe(w->saved, next, name, value) {
		json_t *saved = json_copy(w->saved);
		struct migration migration;
		char *why;

		json_object_set_new(saved, name, json_string("x"));
		migration_init(&migration, &ops, w, regions, ARRAY_SIZE(regions));
		why = saved_decode(&migration, saved);
		if ((!json_is_string(value) || !strcmp(name, "role")) &&
		    (!why || !strstr(why, name)))
			fail_msg("%s: %s", name, why ? why : "taken");
		free(why);
		migration_destroy(&migration);
		json_decref(saved);
	}
}

static void test_info_migrate_of_a_source(void **state)
{
	struct world *w = *state;
	json_t *info;
	char *text;

	go_to(w, STEP_STREAM);
	w->migration.started_us = 1000000;
	w->now = 1763695800123456;
	w->status = "finish-migrate";
	event(w, "STOP");
	answer_all(w);
	status(w, "pre-switchover");
	answer_all(w);
	status(w, "completed");
	w->now = 1763695800123456 + 4000;
	umemd(w, "{\"event\":\"ready\"}");
	/* What umem-qemu knows itself is not umemd's to tell. */
	umemd(w, "{\"event\":\"progress\",\"state\":\"running\",\"role\":\"x\",\"pages_total\":100,"
	      "\"pages_sent\":40,\"pages_remaining\":60,\"urgent_bytes\":1,"
	      "\"bulk_bytes\":2,\"control_bytes\":3,\"requests\":4,\"zero_pages\":5,"
	      "\"compressed_pages\":8,\"compression_saved_bytes\":9,"
	      "\"throughput_bytes_per_s\":125000,\"bulk_bytes_per_s\":125000,"
	      "\"prefault_pages\":10,\"prefault_hits\":11}");
	text = info_text(w, 3500000, &info);
	assert_line(text, "Migration status: running");
	assert_line(text, "role: source");
	assert_line(text, "uri: tcp:there:4444");
	assert_line(text, "total time: 2500 ms");
	assert_line(text, "guest stopped: 2025-11-21T03:30:00.123456Z");
	assert_line(text, "pages total: 100");
	assert_line(text, "pages sent: 40");
	assert_line(text, "pages remaining: 60");
	assert_line(text, "transferred urgent: 1 bytes");
	assert_line(text, "transferred bulk: 2 bytes");
	assert_line(text, "transferred control: 3 bytes");
	assert_line(text, "throughput: 1.00 mbps (urgent 0.00, bulk 1.00, control 0.00)");
	assert_line(text, "requests: 4");
	assert_line(text, "zero pages: 5");
	assert_line(text, "compressed pages: 8, 9 bytes saved");
	free(text);

	text = report_progress(info);
	assert_string_equal(text, "migrate: running, 40 of 100 pages (40 %), 0.1 MB/s, 4 requests");
	free(text);
	assert_json(info, "{\"status\":\"running\",\"role\":\"source\",\"uri\":\"tcp:there:4444\","
		    "\"total_time_ms\":2500,\"guest_stopped_at_us\":1763695800123456,"
		    "\"stop_to_go_ms\":5,"
		    "\"pages_total\":100,\"pages_sent\":40,\"pages_remaining\":60,"
		    "\"zero_pages\":5,\"compressed_pages\":8,\"compression_saved_bytes\":9,"
		    "\"urgent_bytes\":1,\"bulk_bytes\":2,\"control_bytes\":3,"
		    "\"throughput_bytes_per_s\":125000,\"bulk_bytes_per_s\":125000,"
		    "\"prefault_pages\":10,\"prefault_hits\":11,\"requests\":4}");
	json_decref(info);
}

static void test_info_migrate_of_precopy(void **state)
{
	struct world *w = *state;
	json_t *info;
	char *text;

	w->precopy = true;
	go_to(w, STEP_PRECOPY);
	umemd(w, "{\"event\":\"progress\",\"pages_total\":100,\"pages_sent\":140,\"round\":3,"
	      "\"pages_dirty\":25,\"expected_downtime_ms\":17,\"precopy_bytes\":500000,"
	      "\"throughput_bytes_per_s\":2000000}");
	text = info_text(w, 3500000, &info);
	assert_line(text, "Migration status: precopy");
	assert_line(text, "round: 3");
	assert_line(text, "pages dirty: 25");
	assert_line(text, "expected downtime: 17 ms");
	assert_line(text, "transferred precopy: 500000 bytes");
	free(text);
	text = report_progress(info);
	assert_string_equal(text, "migrate: precopy, round 3, 25 of 100 pages dirty, downtime of 17 ms expected, 2.0 MB/s");
	free(text);
	json_decref(info);
}

static void test_downtime_is_told_only_of_a_guest_that_ran(void **state)
{
	struct world *w = *state;
	json_t *info;

	w->status = "paused";
	complete(w);
	info = info_json(&w->migration, 0);
	assert_null(json_object_get(info, "stop_to_go_ms"));
	json_decref(info);

	restart(w);
	expect(w, false, false);
	assert_runs(w, true, true);
	info = info_json(&w->migration, 0);
	assert_null(json_object_get(info, "go_to_resume_ms"));
	json_decref(info);
	migration_qemu_event(&w->migration, "RESUME", NULL, w->migration.go_us + 2500);
	info = info_json(&w->migration, 0);
	assert_int_equal(json_integer_value(json_object_get(info, "go_to_resume_ms")), 2);
	json_decref(info);
}

static void test_info_migrate_of_a_destination(void **state)
{
	struct world *w = *state;
	json_t *info;
	char *text;

	expect(w, false, false);
	assert_runs(w, true, true);
	umemd(w, "{\"event\":\"progress\",\"pages_total\":100,\"pages_present\":100,"
	      "\"pages_remaining\":0,\"faults\":7,\"fault_p50_us\":1,\"fault_p90_us\":2,\"fault_p99_us\":3,\"fault_max_us\":4,"
	      "\"duplicates\":5,\"checksum_errors\":6}");
	umemd_state(w, "end");
	text = info_text(w, 0, &info);
	assert_line(text, "Migration status: completed");
	assert_line(text, "role: destination");
	assert_line(text, "pages present: 100");
	assert_line(text, "pages remaining: 0");
	assert_line(text, "faults: 7");
	assert_line(text, "fault latency: p50 1 us, p90 2 us, p99 3 us, max 4 us");
	assert_line(text, "duplicates: 5");
	assert_line(text, "checksum errors: 6");
	free(text);
	assert_int_equal(json_integer_value(json_object_get(info, "pages_present")), 100);
	assert_int_equal(json_integer_value(json_object_get(info, "fault_p99_us")), 3);
	assert_null(json_object_get(info, "pages_sent"));
	json_decref(info);
}

static void test_info_migrate_tells_vcpus_from_other_threads(void **state)
{
	static const char progress[] = "{\"event\":\"progress\",\"blocktime\":["
		"{\"thread_id\":69,\"blocktime_ms\":5},{\"thread_id\":71,\"blocktime_ms\":6}],"
		"\"blocktime_others_ms\":7}";
	struct world *w = *state;
	json_t *info;
	char *text;

	expect(w, false, false);
	assert_runs(w, true, true);
	/* QEMU has not answered yet. */
	umemd(w, progress);
	text = info_text(w, 0, &info);
	assert_line(text, "blocktime thread 69: 5 ms");
	assert_line(text, "blocktime thread 71: 6 ms");
	free(text);
	json_decref(info);

	answer_all(w);
	text = info_text(w, 0, &info);
	assert_non_null(strstr(text, "\nblocktime vcpu1: 6 ms\nblocktime thread 69: 5 ms\n"
			       "blocktime others: 7 ms\n"));
	assert_null(strstr(text, "thread 71"));
	assert_null(strstr(text, "vcpu0"));
	free(text);
	json_decref(info);
}

static void test_info_migrate_names_the_reason_of_a_failure(void **state)
{
	struct world *w = *state;
	json_t *info;
	char *text;

	assert_false(migration_exists(&w->migration));
	go_to(w, STEP_STREAM);
	umemd_errs(w);
	play_undo(w, true);
	assert_true(migration_exists(&w->migration));
	text = info_text(w, 0, &info);
	assert_line(text, "Migration status: failed (connection lost)");
	free(text);
	assert_string_equal(json_string_value(json_object_get(info, "reason")), "connection lost");
	json_decref(info);
}

static void test_info_without_any_migration_is_none(void **state)
{
	struct world *w = *state;
	json_t *info = info_json(&w->migration, 1);

	assert_json(info, "{\"status\":\"none\"}");
	json_decref(info);
}

static void test_info_of_text_that_is_not_utf8_is_still_json(void **state)
{
	struct world *w = *state;
	json_t *info;

	go_to(w, STEP_STREAM);
	strcpy(w->migration.command.uri, "tcp:\xff\xfe:1");
	info = info_json(&w->migration, 1);
	assert_string_equal(json_string_value(json_object_get(info, "uri")), "tcp:\?\?:1");
	json_decref(info);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_source_does_its_steps_in_this_order),
		test(test_limits_are_told_at_the_start_and_when_they_change),
		test(test_more_bulk_channels_than_umem_has_are_said_to_be_cut),
		test(test_bandwidth_set_while_umem_has_raised_it_stays),
		test(test_umems_own_bandwidth_is_never_taken_for_the_users),
		test(test_compression_is_as_qemus_parameter_says),
		test(test_go_needs_both_ready_and_complete_device_state),
		test(test_paused_guest_is_handed_over_paused),
		test(test_guest_paused_by_somebody_while_the_stream_flows_is_handed_over_paused),
		test(test_guest_paused_before_the_stream_is_handed_over_paused),
		test(test_stop_typed_during_the_switchover_pauses_at_the_destination),
		test(test_every_failure_before_go_leaves_the_guest_running_at_the_source),
		test(test_every_failure_before_go_leaves_a_paused_guest_paused),
		test(test_umemd_learns_of_a_cancel_unless_it_is_dead),
		test(test_the_first_reason_of_several_is_told),
		test(test_umemd_that_cannot_start_is_told),
		test(test_cont_is_tried_again_while_qemu_refuses_it),
		test(test_cont_that_never_works_is_told_with_its_cure),
		test(test_cancel_that_qemu_never_confirms_is_overcome),
		test(test_another_migration_may_follow_a_failed_one),
		test(test_after_go_no_failure_starts_the_guest_at_the_source),
		test(test_after_go_the_guest_is_stopped_again_if_somebody_starts_it),
		test(test_after_go_commands_that_would_run_the_guest_are_refused),
		test(test_during_the_switchover_commands_that_would_run_the_guest_are_refused),
		test(test_before_the_switchover_only_other_migrations_are_refused),
		test(test_a_second_migrate_is_refused_with_the_state),
		test(test_cancel_after_go_is_refused),
		test(test_source_refuses_what_it_cannot_move),
		test(test_qemus_death_at_the_source),
		test(test_replies_that_come_too_late_do_nothing),
		test(test_source_asks_all_it_can_at_once),
		test(test_stream_that_qemu_need_not_send_is_taken_back),
		test(test_shared_memory_plugged_in_while_umemd_connects_is_refused),
		test(test_pause_and_resume_of_the_connection_are_shown),
		test(test_after_go_another_umemd_goes_on_whenever_one_ends),
		test(test_guest_that_was_paused_stays_so_whatever_umemd_says_go),
		test(test_umemd_that_ends_at_once_is_started_ever_more_slowly),
		test(test_umemd_that_cannot_be_started_again_is_tried_for_ever),
		test(test_umemd_goes_on_after_qemu_has_ended_at_the_source),
		test(test_totals_go_on_from_umemd_to_umemd),
		test(test_nothing_is_paused_before_go_or_after_the_end),
		test(test_paused_by_hand_there_is_no_umemd_until_recovered),
		test(test_recovered_elsewhere_before_the_old_umemd_has_ended),
		test(test_paused_by_hand_while_another_umemd_is_due),
		test(test_lost_connection_is_recovered_elsewhere),
		test(test_umemd_is_replaced_on_command),
		test(test_descriptor_ends_with_its_umemd),
		test(test_precopy_goes_on_until_umemd_says_that_it_converged),
		test(test_start_postcopy_ends_precopy_at_once),
		test(test_start_postcopy_before_umemd_is_connected_is_not_forgotten),
		test(test_start_postcopy_in_a_wrong_state_is_refused_with_it),
		test(test_guest_may_be_paused_and_continued_during_precopy),
		test(test_settings_made_during_precopy_are_those_set_back),
		test(test_a_second_migrate_during_precopy_is_refused),
		test(test_destination_does_its_steps_in_this_order),
		test(test_what_is_allocated_is_told),
		test(test_credentials_are_known_before_umemd_starts),
		test(test_without_credentials_no_object_is_asked),
		test(test_source_keeps_credentials_from_qemu_while_the_stream_flows),
		test(test_destination_keeps_credentials_from_qemu_until_go),
		test(test_stream_that_qemu_takes_too_late_is_not_loaded),
		test(test_credentials_set_after_listening_are_kept_from_qemu),
		test(test_unfit_credentials_are_refused_before_umemd_starts),
		test(test_guest_starts_only_if_it_ran_and_nobody_wants_it_paused),
		test(test_before_go_nothing_typed_reaches_the_destinations_qemu),
		test(test_ready_needs_both_a_loaded_qemu_and_the_end_of_the_stream),
		test(test_guest_that_runs_before_go_is_given_up),
		test(test_load_failure_is_told_to_the_source),
		test(test_umemds_reason_is_better_than_a_broken_stream),
		test(test_every_failure_before_go_ends_the_destination),
		test(test_qemus_refusal_of_the_stream_is_told_to_the_source),
		test(test_port_in_use_after_migrate_incoming_may_be_tried_again),
		test(test_a_source_after_one_that_left_at_once_finds_qemu_waiting),
		test(test_from_ready_on_another_umemd_goes_on_whenever_one_ends),
		test(test_error_when_ready_does_not_end_the_destination),
		test(test_a_cancel_when_ready_ends_the_destination),
		test(test_destinations_umemd_that_dies_at_the_end_is_followed_for_a_while),
		test(test_destination_may_listen_elsewhere),
		test(test_memory_that_has_arrived_is_collapsed),
		test(test_limit_of_waiting_for_the_source),
		test(test_a_lost_source_is_given_up_when_told),
		test(test_many_ranges_are_asked_for_in_parts),
		test(test_a_source_that_came_back_in_time_may_be_given_up_later),
		test(test_waited_for_long_enough_the_policy_decides),
		test(test_the_policy_may_be_set_when_the_time_is_over),
		test(test_a_source_that_was_about_to_come_back_is_waited_for_anew),
		test(test_given_up_without_a_umemd_another_does_it),
		test(test_an_adopted_one_keeps_tls_and_what_to_do_without_the_source),
		test(test_an_adopted_one_keeps_what_was_set_last),
		test(test_a_page_that_keeps_coming_damaged_is_logged),
		test(test_after_go_qemus_death_is_told_to_the_source),
		test(test_guest_that_qemu_does_not_start_is_told),
		test(test_guest_may_go_on_to_a_third_host_once_it_is_complete),
		test(test_postcopy_ram_set_at_the_destination_is_qemus_once_the_guest_is_here),
		test(test_go_before_ready_is_not_obeyed),
		test(test_adopted_before_go_the_guest_runs_on_at_the_source),
		test(test_adopted_after_go_the_source_goes_on_and_never_runs_the_guest),
		test(test_go_that_cannot_be_recorded_is_not_said),
		test(test_ready_that_cannot_be_recorded_is_not_said),
		test(test_adopted_while_paused_by_hand_it_stays_so),
		test(test_totals_go_on_after_an_adoption),
		test(test_adopted_destination),
		test(test_record_that_lacks_something_is_refused),
		test(test_info_migrate_of_a_source),
		test(test_info_migrate_of_precopy),
		test(test_downtime_is_told_only_of_a_guest_that_ran),
		test(test_info_migrate_of_a_destination),
		test(test_info_migrate_tells_vcpus_from_other_threads),
		test(test_info_migrate_names_the_reason_of_a_failure),
		test(test_info_without_any_migration_is_none),
		test(test_info_of_text_that_is_not_utf8_is_still_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
