// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/migration.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/util.h"
#include "umem-qemu/tls.h"

#define STREAM_NAME		"umem-state"
#define STREAM_BANDWIDTH	(1LL << 40)	/* bytes a second: no limit */
#define SWITCH_TIMEOUT_MS	30000
#define CANCEL_TIMEOUT_MS	5000
#define CHANNELS_MAX		16u
#define REASON_MS		100
#define UNDO_RETRY_MS		50
#define UNDO_TRIES		100
#define RESTART_FIRST_MS	10
#define RESTART_LAST_MS		5000u
#define CALM_US			10000000	/* who lived that long did not end at once */
#define LINGER_US		60000000

/* What device state alone needs, and what cannot go with it. */
struct wanted_capability {
	const char *name;
	bool on;
	bool needed;
};

static const struct wanted_capability source_capabilities[] = {
	{ "x-ignore-shared", true, true },
	{ "pause-before-switchover", true, true },
	{ "events", true, true },
	{ "postcopy-ram", false, false },
	{ "postcopy-preempt", false, false },
	{ "multifd", false, false },
	{ "mapped-ram", false, false },
	{ "background-snapshot", false, false },
	{ "return-path", false, false },
	{ "switchover-ack", false, false },
	{ "x-colo", false, false },
	{ "block", false, false },
};

static const struct wanted_capability destination_capabilities[] = {
	{ "x-ignore-shared", true, true },
	{ "events", true, true },
	{ "late-block-activate", true, true },
	{ "postcopy-ram", false, false },
	{ "postcopy-preempt", false, false },
	{ "multifd", false, false },
	{ "mapped-ram", false, false },
	{ "return-path", false, false },
	{ "switchover-ack", false, false },
	{ "x-colo", false, false },
};

/* Parameters of QEMU's as umemd calls them: QEMU knows how they are written, and shows them. */
static const struct limit {
	const char *parameter;
	const char *key;
	uint64_t most;		/* of what umemd takes, 0: any */
} limits[] = {
	{ "max-postcopy-bandwidth", "max_bulk_bandwidth", 0 },
	{ "max-bandwidth", "max_precopy_bandwidth", 0 },
	{ "downtime-limit", "downtime_limit_ms", 0 },
	{ "multifd-channels", "bulk_channels", CHANNELS_MAX },
};

static void undo_status(struct migration *m);
static void tell_limits(struct migration *m);

/* ---- small things ---- */

static void say(struct migration *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct migration *m, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	text = text_vformat(format, args);
	va_end(args);
	m->ops->say(m->context, text);
	free(text);
}

static void note(struct migration *m, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void note(struct migration *m, const char *name, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	text = text_vformat(format, args);
	va_end(args);
	m->ops->log(m->context, name, text);
	free(text);
}

/*
 * QEMU answers in turn. What does not depend on an answer is asked without waiting for it: each
 * wait is one for QEMU's main thread, beside vCPUs that are busy.
 */
static void ask(struct migration *m, enum migration_question question, const char *command,
		json_t *arguments)
{
	m->ops->ask_qemu(m->context, question, command, arguments, false);
}

static void tell(struct migration *m, json_t *command)
{
	m->ops->tell_umemd(m->context, command);
}

/* What is not written down is not undone, or gone on with, by another umem-qemu: no worse. */
static void save(struct migration *m)
{
	char *why = m->ops->save(m->context);

	if (why)
		note(m, "NOT-RECORDED", "%s", why);
	free(why);
}

static const char *role_name(const struct migration *m)
{
	return m->role == MIGRATION_SOURCE ? "source" : "destination";
}

static void set_state(struct migration *m, const char *state)
{
	if (m->state && !strcmp(m->state, state))
		return;
	m->state = state;
	save(m);
	note(m, "STATE", "role=%s state=%s", role_name(m), state);
}

static bool is_paused(const struct migration *m)
{
	return !strcmp(m->state, "paused") || !strcmp(m->state, "recover");
}

static void set_reason(struct migration *m, const char *reason)
{
	free(m->reason);
	m->reason = text_copy(reason);
}

static uint64_t number(json_t *event, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(event, key));

	return value > 0 ? (uint64_t)value : 0;
}

static bool status_is(json_t *result, const char *status)
{
	const char *is = json_string_value(json_object_get(result, "status"));

	return is && !strcmp(is, status);
}

static void set_running(struct migration *m, bool running)
{
	m->running = running;
	save(m);
}

static void stop_umemd(struct migration *m)
{
	m->umemd_alive = false;
	m->ops->stop_umemd(m->context);
}

/* ---- QEMU's settings ---- */

static json_t *find_capability(json_t *list, const char *name)
{
	json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry) {
		const char *is = json_string_value(json_object_get(entry, "capability"));

		if (is && !strcmp(is, name))
			return entry;
	}
	return NULL;
}

static void wanted_of_role(const struct migration *m, const struct wanted_capability **wanted,
			   size_t *nr)
{
	if (m->role == MIGRATION_SOURCE) {
		*wanted = source_capabilities;
		*nr = ARRAY_SIZE(source_capabilities);
	} else {
		*wanted = destination_capabilities;
		*nr = ARRAY_SIZE(destination_capabilities);
	}
}

/* The first capability that this QEMU should have and has not; NULL if it has all. */
static const char *missing_capability(const struct migration *m)
{
	const struct wanted_capability *wanted;
	size_t nr;

	wanted_of_role(m, &wanted, &nr);
	for (size_t i = 0; i < nr; i++) {
		if (wanted[i].needed && !find_capability(m->capabilities, wanted[i].name))
			return wanted[i].name;
	}
	return NULL;
}

/* Only what differs is set, so that only that has to be set back. */
static json_t *capability_changes(const struct migration *m, bool back)
{
	const struct wanted_capability *wanted;
	json_t *changes = memory_or_exit(json_array());
	size_t nr;

	wanted_of_role(m, &wanted, &nr);
	for (size_t i = 0; i < nr; i++) {
		json_t *was = find_capability(m->capabilities, wanted[i].name);
		bool on = json_is_true(json_object_get(was, "state"));

		if (!was || on == wanted[i].on)
			continue;
		json_array_append_new(changes, json_pack("{s:s, s:b}",
							 "capability", wanted[i].name,
							 "state", back ? on : wanted[i].on));
	}
	return json_pack("{s:o}", "capabilities", changes);
}

static void set_capabilities(struct migration *m)
{
	m->capabilities_changed = true;
	ask(m, ASK_SET_CAPABILITIES, "migrate-set-capabilities", capability_changes(m, false));
}

/*
 * QEMU would make TLS of its own on the stream to umemd, whose connection has TLS. A
 * source's state is as much as it is, whatever the limit.
 */
static void set_parameters(struct migration *m)
{
	json_t *changes = memory_or_exit(json_object());

	if (m->role == MIGRATION_SOURCE)
		json_object_set_new(changes, "max-bandwidth", json_integer(STREAM_BANDWIDTH));
	if (*tls_creds(m->parameters))
		json_object_set_new(changes, "tls-creds", json_string(""));
	if (!json_object_size(changes)) {
		json_decref(changes);
		return;
	}
	m->parameters_changed = true;
	ask(m, ASK_SET_PARAMETERS, "migrate-set-parameters", changes);
}

static void give_stream(struct migration *m)
{
	m->stream_offered = true;
	m->ops->ask_qemu(m->context, ASK_GETFD, "getfd",
			 json_pack("{s:s}", "fdname", STREAM_NAME), true);
}

/* QEMU has it, and was never told to use it. */
static void take_stream_back(struct migration *m)
{
	if (m->stream_offered && !m->stream_given)
		ask(m, ASK_NOTHING, "closefd", json_pack("{s:s}", "fdname", STREAM_NAME));
	m->stream_offered = false;
}

/* Is a parameter what set_parameters() made it, or has somebody set it since? */
static bool bandwidth_is_ours(json_t *parameters)
{
	return number(parameters, "max-bandwidth") == STREAM_BANDWIDTH;
}

static bool tls_is_ours(const struct migration *m, json_t *parameters)
{
	return m->parameters_changed && *tls_creds(m->parameters) && !*tls_creds(parameters);
}

/* The user's parameters: what was set for the stream is none of them. */
static void take_parameters(struct migration *m, json_t *result)
{
	json_t *bandwidth = json_object_get(m->parameters, "max-bandwidth");
	json_t *parameters = memory_or_exit(json_copy(result));

	if (bandwidth && bandwidth_is_ours(parameters))
		json_object_set(parameters, "max-bandwidth", bandwidth);
	if (tls_is_ours(m, parameters))
		json_object_set(parameters, "tls-creds", json_object_get(m->parameters, "tls-creds"));
	json_decref(m->parameters);
	m->parameters = parameters;
}

static void hand_over_postcopy_ram(struct migration *m)
{
	json_t *list = json_pack("[{s:s, s:b}]", "capability", "postcopy-ram",
				 "state", m->postcopy_ram);

	ask(m, ASK_NOTHING, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", list));
	m->postcopy_held = false;
}

static void restore_settings(struct migration *m)
{
	if (m->parameters_changed)
		ask(m, ASK_RESTORE, "query-migrate-parameters", NULL);
	if (m->capabilities_changed)
		ask(m, ASK_NOTHING, "migrate-set-capabilities", capability_changes(m, true));
	m->capabilities_changed = false;
	if (m->postcopy_held && m->moved)
		hand_over_postcopy_ram(m);
}

static void restore_reply(struct migration *m, json_t *result)
{
	json_t *bandwidth = json_object_get(m->parameters, "max-bandwidth");
	json_t *changes = memory_or_exit(json_object());

	if (m->parameters_changed && bandwidth && bandwidth_is_ours(result))
		json_object_set(changes, "max-bandwidth", bandwidth);
	if (tls_is_ours(m, result))
		json_object_set(changes, "tls-creds", json_object_get(m->parameters, "tls-creds"));
	if (json_object_size(changes))
		ask(m, ASK_NOTHING, "migrate-set-parameters", changes);
	else
		json_decref(changes);
	m->parameters_changed = false;
}

/* ---- how long a lost source is waited for ---- */

static void set_limit_timer(struct migration *m, unsigned int seconds)
{
	m->limit_runs = seconds;
	m->limit_passed = false;
	m->ops->set_limit_timer(m->context, seconds * 1000);
}

/* However often it is tried meanwhile. */
static void limit_pause(struct migration *m)
{
	if (m->role == MIGRATION_DESTINATION && m->moved && !m->limit_runs && m->paused_limit)
		set_limit_timer(m, m->paused_limit);
}

static void end_limit(struct migration *m)
{
	if (m->limit_runs)
		set_limit_timer(m, 0);
}

/* ---- the ends ---- */

static void finish(struct migration *m, enum migration_phase phase, const char *state)
{
	m->ops->set_timer(m->context, 0);
	end_limit(m);
	m->phase = phase;
	m->ended_us = m->ops->now_us(m->context);
	set_state(m, state);
}

static void undo_done(struct migration *m)
{
	take_stream_back(m);
	restore_settings(m);
	finish(m, PHASE_IDLE, m->user_cancelled ? "cancelled" : "failed");
	if (!m->user_cancelled)
		note(m, "FAILED", "role=source reason=%s", m->reason);
	say(m, "migrate: %s; the guest %s here", m->user_cancelled ? "cancelled" : m->reason,
	    m->running ? "runs on" : "stays paused");
	m->ops->done(m->context);
}

/*
 * A migrate_cancel between QEMU's last look at its state and its wait in pre-switchover leaves
 * that wait without an end (migration_maybe_pause() and migrate_fd_cancel() of 7.2). A
 * migrate-continue ends it, and what it posts too much QEMU throws away before it waits.
 */
static void cancel_stream(struct migration *m)
{
	ask(m, ASK_UNDO_CANCEL, "migrate_cancel", NULL);
	ask(m, ASK_NOTHING, "migrate-continue", json_pack("{s:s}", "state", "cancelling"));
	m->ops->set_timer(m->context, CANCEL_TIMEOUT_MS);
}

static void begin_undo(struct migration *m)
{
	m->phase = PHASE_UNDO;
	m->undo_tries = 0;
	m->ops->set_timer(m->context, 0);
	if (m->umemd_alive) {
		tell(m, json_pack("{s:s}", "cmd", "cancel"));
		stop_umemd(m);
	}
	if (m->stream_given && !m->stream_over)
		cancel_stream(m);
	else
		undo_status(m);
}

static void undo_status(struct migration *m)
{
	m->stream_over = true;
	m->ops->set_timer(m->context, 0);
	ask(m, ASK_UNDO_STATUS, "query-status", NULL);
}

static void undo_status_reply(struct migration *m, json_t *result)
{
	bool running = json_is_true(json_object_get(result, "running"));

	if (m->running && !running)
		return ask(m, ASK_UNDO_CONT, "cont", NULL);
	m->running = running;
	undo_done(m);
}

/* QEMU refuses while its migration thread has not quite ended. */
static void undo_cont_reply(struct migration *m, const char *error)
{
	char *reason;

	if (error && ++m->undo_tries < UNDO_TRIES) {
		m->ops->set_timer(m->context, UNDO_RETRY_MS);
		return;
	}
	if (error) {
		reason = text_format("%s; QEMU does not let the guest go on: %s; type cont",
				     m->reason, error);
		set_reason(m, reason);
		free(reason);
		m->running = false;
		m->user_cancelled = false;
	}
	undo_done(m);
}

static void fail_destination_before_go(struct migration *m)
{
	bool again = m->deferred && !m->stream_given;

	if (m->umemd_alive) {
		tell(m, json_pack("{s:s, s:s}", "cmd", "fail", "message", m->reason));
		stop_umemd(m);
	}
	note(m, "FAILED", "role=destination reason=%s", m->reason);
	if (again)
		restore_settings(m);
	finish(m, again ? PHASE_EXPECT : PHASE_LOST, "failed");
	if (again) {
		say(m, "migrate_incoming: %s", m->reason);
		m->ops->done(m->context);
		return;
	}
	m->ops->done(m->context);
	m->ops->give_up(m->context, m->reason);
}

/* ---- umemds that follow one another ---- */

/* Does the guest, here or at the destination, depend on the session whatever becomes of umemd? */
static bool outlives_umemd(const struct migration *m)
{
	if (!m->session)
		return false;
	if (m->phase == PHASE_AFTER || m->phase == PHASE_READY)
		return true;
	/* The source may not have heard that all is there. */
	return m->phase == PHASE_END && m->role == MIGRATION_DESTINATION &&
	       m->ops->now_us(m->context) - m->ended_us < LINGER_US;
}

/* A descriptor goes with the umemd that has it. */
static bool is_descriptor(const char *uri)
{
	return !strncmp(uri, "fd:", strlen("fd:"));
}

static void pause_for(struct migration *m, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void pause_for(struct migration *m, const char *format, ...)
{
	bool known;
	char *reason;
	va_list args;

	va_start(args, format);
	reason = text_vformat(format, args);
	va_end(args);
	known = m->reason && !strcmp(m->reason, reason);
	free(m->reason);
	m->reason = reason;
	set_state(m, "paused");
	limit_pause(m);
	if (known)
		return;		/* what is tried every few seconds is told once */
	note(m, "PAUSED", "role=%s reason=%s", role_name(m), m->reason);
	if (m->role == MIGRATION_SOURCE && !m->command.detach)
		say(m, "migrate: paused: %s", m->reason);
	m->ops->done(m->context);	/* who waits for the end may want to help */
}

static void restart_later(struct migration *m)
{
	if (m->ops->now_us(m->context) - m->umemd_started_us >= CALM_US)
		m->restart_ms = 0;
	m->restart_ms = m->restart_ms ? min(2 * m->restart_ms, RESTART_LAST_MS) :
					RESTART_FIRST_MS;
	m->restart_due = true;
	m->ops->set_timer(m->context, m->restart_ms);
}

static void tell_give_up(struct migration *m)
{
	tell(m, json_pack("{s:s}", "cmd", "give-up"));
}

/* With another umemd: there is none now. */
static void go_on(struct migration *m)
{
	json_t *session = memory_or_exit(json_copy(m->session));
	char *why;

	json_object_set_new(session, "gone", json_boolean(m->moved));
	json_object_set_new(session, "run", json_boolean(m->running));
	m->restart_due = false;
	why = m->ops->start_umemd(m->context, m->role, m->command.uri, &m->command, session);
	json_decref(session);
	if (why) {
		if (m->phase != PHASE_END)
			pause_for(m, "%s", why);
		free(why);
		return restart_later(m);
	}
	m->umemd_alive = true;
	m->umemd_started_us = m->ops->now_us(m->context);
	m->restarts++;
	json_decref(m->totals);
	m->totals = json_copy(m->progress);
	save(m);
	if (m->role == MIGRATION_SOURCE)
		tell_limits(m);
	if (m->giving_up)
		tell_give_up(m);
}

/* What follows is said by m->held, or m->replacing. */
static void end_umemd(struct migration *m)
{
	tell(m, json_pack("{s:s}", "cmd", "stop"));
	m->ops->dismiss_umemd(m->context);
}

/* Now if there is none, else when it has ended. */
static void replace_umemd(struct migration *m)
{
	m->held = false;
	if (!m->umemd_alive)
		return go_on(m);
	m->replacing = true;
	end_umemd(m);
}

static void umemd_erred(struct migration *m, const char *message)
{
	m->erred = true;
	if (m->phase != PHASE_END)
		pause_for(m, "%s", message);
	m->ops->dismiss_umemd(m->context);
}

static void umemd_has_ended(struct migration *m, const char *how)
{
	bool replacing = m->replacing, told = m->erred || m->phase == PHASE_END;

	m->replacing = m->erred = false;
	if (m->held)
		return;
	if (replacing)
		return go_on(m);
	if (m->phase != PHASE_END && is_descriptor(m->command.uri)) {
		m->held = true;
		return pause_for(m, "umemd %s, and %s with it: wanted migrate_recover with another URI at both sides",
				 how, m->command.uri);
	}
	if (!told)
		pause_for(m, "umemd %s, another is started", how);
	restart_later(m);
}

static void fail_after_go(struct migration *m)
{
	note(m, "FAILED", "role=%s reason=%s", role_name(m), m->reason);
	finish(m, PHASE_END, "failed");
	say(m, "migrate: %s after the hand-over; %s", m->reason,
	    m->role == MIGRATION_SOURCE ?
	    "the guest is at the destination and waits for the pages it misses" :
	    "the guest waits where it touches a page that has not arrived");
	m->ops->done(m->context);
}

static void fail(struct migration *m, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void fail(struct migration *m, const char *format, ...)
{
	va_list args;

	if (m->phase == PHASE_UNDO || !migration_active(m))
		return;		/* the first reason is the one that counts */
	free(m->reason);
	va_start(args, format);
	m->reason = text_vformat(format, args);
	va_end(args);
	if (m->moved)
		fail_after_go(m);
	else if (m->role == MIGRATION_SOURCE)
		begin_undo(m);
	else
		fail_destination_before_go(m);
}

/* ---- source ---- */

/* What is yet to be set back after an earlier one is kept. */
static void begin(struct migration *m, enum migration_role role)
{
	json_decref(m->capabilities);
	json_decref(m->progress);
	json_decref(m->cpus);
	json_decref(m->gone_ranges);
	json_decref(m->tls);
	json_decref(m->session);
	json_decref(m->totals);
	free(m->reason);
	*m = (struct migration){
		.ops = m->ops,
		.context = m->context,
		.regions = m->regions,
		.nr_regions = m->nr_regions,
		.deferred = m->deferred,
		.paused = m->paused,
		.urgent_channels = m->urgent_channels,
		.paused_limit = m->paused_limit,
		.parameters = m->parameters,
		.parameters_changed = m->parameters_changed,
		.postcopy_held = m->postcopy_held,
		.postcopy_ram = m->postcopy_ram,
		.poison_lost = m->poison_lost,
		.role = role,
		.started_us = m->ops->now_us(m->context),
	};
}

static char *why_not_start(const struct migration *m)
{
	if (m->role == MIGRATION_SOURCE && m->moved)
		return text_format("the guest has moved to %s and is not here any more",
				   m->command.uri);
	if (m->role == MIGRATION_SOURCE && migration_active(m))
		return text_format("a migration to %s is under way (state %s), wanted none: migrate_cancel gives it up",
				   m->command.uri, m->state);
	if (m->role == MIGRATION_DESTINATION && !m->moved)
		return text_copy("the guest has not arrived here yet, it cannot go on to elsewhere");
	if (m->role == MIGRATION_DESTINATION && migration_active(m))
		return text_format("the guest's memory is still arriving (%llu of %llu pages), wanted all of it: see info migrate",
				   (unsigned long long)number(m->progress, "pages_present"),
				   (unsigned long long)number(m->progress, "pages_total"));
	if (m->role == MIGRATION_DESTINATION && m->phase == PHASE_END &&
	    strcmp(m->state, "completed"))
		return text_format("a part of the guest's memory never arrived here: %s", m->reason);
	return NULL;
}

static void ask_memory(struct migration *m)
{
	ask(m, ASK_MEMORY, "query-memdev", NULL);
}

/* What a source goes by, asked for at its beginning and, after pre-copy, for the switchover. */
static void ask_settings(struct migration *m)
{
	ask(m, ASK_CAPABILITIES, "query-migrate-capabilities", NULL);
	ask(m, ASK_PARAMETERS, "query-migrate-parameters", NULL);
	ask_memory(m);
}

char *migration_start(struct migration *m, const struct hmp_command *command)
{
	char *why = why_not_start(m);

	if (why)
		return why;
	begin(m, MIGRATION_SOURCE);
	m->command = *command;
	m->phase = PHASE_QUERY;
	set_state(m, "setup");
	ask(m, ASK_STATUS, "query-status", NULL);
	ask_settings(m);
	return NULL;
}

static void status_reply(struct migration *m, json_t *result)
{
	if (status_is(result, "inmigrate"))
		return fail(m, "QEMU waits for an incoming migration, there is no guest to move");
	if (status_is(result, "postmigrate"))
		return fail(m, "the guest was migrated elsewhere (QEMU's status is postmigrate)");
	set_running(m, json_is_true(json_object_get(result, "running")));
}

/* umem compresses page by page, without multifd; of QEMU's ways it knows one. */
static void take_compression(struct migration *m)
{
	json_t *value = json_object_get(m->parameters, "multifd-compression");
	const char *way = json_is_string(value) ? json_string_value(value) : "none";

	m->command.compress = !strcmp(way, "zstd");
	if (!m->command.compress && strcmp(way, "none"))
		say(m, "migrate: multifd-compression is %s, wanted none or zstd: pages go as they are",
		    way);
}

static void add_limit(struct migration *m, json_t *command, const struct limit *limit)
{
	uint64_t value = number(m->parameters, limit->parameter);

	if (!json_is_integer(json_object_get(m->parameters, limit->parameter)))
		return;
	if (limit->most && value > limit->most) {
		say(m, "migrate: %s is %llu, umem takes %llu at most: it has %llu", limit->parameter,
		    (unsigned long long)value, (unsigned long long)limit->most,
		    (unsigned long long)limit->most);
		value = limit->most;
	}
	json_object_set_new(command, limit->key, json_integer((json_int_t)value));
}

static void tell_limits(struct migration *m)
{
	json_t *command = json_pack("{s:s, s:i}", "cmd", "set",
				    "urgent_channels", (int)m->urgent_channels);

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		add_limit(m, command, &limits[i]);
	tell(m, command);
}

void migration_set_urgent_channels(struct migration *m, unsigned int channels)
{
	m->urgent_channels = channels;
	save(m);
	if (m->role == MIGRATION_SOURCE && m->umemd_alive)
		tell(m, json_pack("{s:s, s:i}", "cmd", "set", "urgent_channels", (int)channels));
}

void migration_parameters_changed(struct migration *m)
{
	if (m->role == MIGRATION_SOURCE && migration_active(m))
		ask(m, ASK_PARAMETERS_AGAIN, "query-migrate-parameters", NULL);
}

static void parameters_again_reply(struct migration *m, json_t *result)
{
	if (!result || m->role != MIGRATION_SOURCE || !migration_active(m))
		return;
	take_parameters(m, result);
	if (m->umemd_alive)
		tell_limits(m);
}

static void make_qemu_ready(struct migration *m)
{
	set_capabilities(m);
	set_parameters(m);
	give_stream(m);
	save(m);
}

static void spawn(struct migration *m)
{
	char *why = m->ops->start_umemd(m->context, m->role, m->command.uri, &m->command,
					NULL);

	if (why) {
		fail(m, "%s", why);
		free(why);
		return;
	}
	m->umemd_alive = true;
	m->umemd_started_us = m->ops->now_us(m->context);
	m->phase = m->role == MIGRATION_SOURCE ? PHASE_ADVISE : PHASE_WAIT;
	save(m);
	if (m->role == MIGRATION_DESTINATION)
		return;
	tell_limits(m);
	/* While umemd connects. In pre-copy the user may still set, and plug in, what he likes. */
	if (!m->command.precopy)
		make_qemu_ready(m);
}

static void capabilities_reply(struct migration *m, json_t *result)
{
	const char *missing;

	json_decref(m->capabilities);
	m->capabilities = json_incref(result);
	missing = missing_capability(m);
	if (missing)
		return fail(m, "this QEMU has no migration capability %s, umem wants one that has (7.2 or later)",
			    missing);
	if (m->role == MIGRATION_DESTINATION)
		ask(m, ASK_PARAMETERS, "query-migrate-parameters", NULL);
}

/* The source's memory is: that was asked for before. */
static void tls_is_known(struct migration *m)
{
	if (m->role == MIGRATION_SOURCE)
		spawn(m);
	else
		set_capabilities(m);
}

static void ask_tls(struct migration *m)
{
	char *path = text_format("/objects/%s", json_string_value(json_object_get(m->tls, "id")));

	ask(m, ASK_TLS, "qom-get", json_pack("{s:s, s:s}", "path", path, "property",
					     tls_properties[m->tls_known]));
	free(path);
}

/* Not every kind of credentials has every property, but all of them have the first. */
static void tls_reply(struct migration *m, json_t *result, const char *error)
{
	char *why;

	if (!m->tls || (m->phase != PHASE_QUERY && m->phase != PHASE_ARM))
		return;
	if (error && !m->tls_known)
		return fail(m, "tls-creds is \"%s\", wanted the id of a -object: QEMU was asked for it and said: %s",
			    json_string_value(json_object_get(m->tls, "id")), error);
	if (!error)
		json_object_set(m->tls, tls_properties[m->tls_known], result);
	if (tls_properties[++m->tls_known])
		return ask_tls(m);
	why = tls_check(m->tls, m->role == MIGRATION_SOURCE);
	if (!why)
		return tls_is_known(m);
	fail(m, "%s", why);
	free(why);
}

/* What umemd is told is as it was when it was started. */
static void parameters_reply(struct migration *m, json_t *result)
{
	take_parameters(m, result);
	if (m->phase == PHASE_ADVISE) {		/* at the destination */
		set_parameters(m);
		return give_stream(m);
	}
	if (m->phase != PHASE_QUERY && m->phase != PHASE_ARM)
		return;
	if (m->role == MIGRATION_SOURCE)
		take_compression(m);
	json_decref(m->tls);	/* as the record of another umem-qemu has it */
	m->tls = tls_begin(m->parameters);
	if (m->tls)
		ask_tls(m);
	else if (m->role == MIGRATION_DESTINATION)
		tls_is_known(m);
}

static bool is_region(const struct migration *m, const char *name)
{
	for (size_t i = 0; i < m->nr_regions; i++) {
		if (!strcmp(m->regions[i], name))
			return true;
	}
	return false;
}

/* Shared memory that is no region: QEMU ignores it, umemd has not got it, nobody would carry it. */
static void memory_reply(struct migration *m, json_t *result)
{
	json_t *backend;
	size_t i;

	json_array_foreach(result, i, backend) {
		const char *id = json_string_value(json_object_get(backend, "id"));

		if (!json_is_true(json_object_get(backend, "share")) || (id && is_region(m, id)))
			continue;
		return fail(m, "memory backend \"%s\" is shared memory outside umem, wanted none: object_add it with share=off",
			    id ? id : "(without an id)");
	}
	if (m->phase == PHASE_QUERY && !m->tls)
		spawn(m);
	else if (m->phase == PHASE_PREPARE && m->command.precopy)
		make_qemu_ready(m);
}

/* The switchover begins. */
static void prepare(struct migration *m)
{
	if (m->phase == PHASE_PRECOPY)
		set_state(m, "switchover");
	m->phase = PHASE_PREPARE;
	ask_settings(m);
}

static void converged(struct migration *m, json_t *event)
{
	if (m->phase != PHASE_PRECOPY)
		return;		/* it is being switched over already */
	note(m, "CONVERGED", "role=source remaining_bytes=%llu expected_downtime_ms=%llu",
	     (unsigned long long)number(event, "remaining_bytes"),
	     (unsigned long long)number(event, "expected_downtime_ms"));
	prepare(m);
}

static void start_stream(struct migration *m)
{
	m->stream_given = true;
	save(m);
	m->phase = m->role == MIGRATION_SOURCE ? PHASE_STREAM : PHASE_LOAD;
	if (m->role == MIGRATION_SOURCE)
		ask(m, ASK_MIGRATE, "migrate", json_pack("{s:s}", "uri", "fd:" STREAM_NAME));
	else
		ask(m, ASK_INCOMING, "migrate-incoming",
		    json_pack("{s:s}", "uri", "fd:" STREAM_NAME));
}

/* All that was set before has been, or it would be another phase. */
static void got_stream(struct migration *m)
{
	m->stream_taken = true;
	if (m->phase == PHASE_PREPARE ||
	    (m->phase == PHASE_ADVISE && m->role == MIGRATION_DESTINATION))
		start_stream(m);
}

/* With -p. Memory may have been plugged in while umemd connected: that is known before GO. */
static void advise(struct migration *m)
{
	set_state(m, "advise");
	if (m->command.precopy && m->switch_soon)
		return prepare(m);
	if (m->command.precopy) {
		m->phase = PHASE_PRECOPY;
		return set_state(m, "precopy");
	}
	m->phase = PHASE_PREPARE;
	ask_memory(m);
	if (m->stream_taken)
		start_stream(m);
}

static void switch_over(struct migration *m)
{
	m->phase = PHASE_SWITCH;
	m->ops->hurry_umemd(m->context);
	tell(m, json_pack("{s:s}", "cmd", "stopped"));
	ask(m, ASK_CONTINUE, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"));
	m->ops->set_timer(m->context, SWITCH_TIMEOUT_MS);
}

/*
 * Written down before it is said: another umem-qemu knows no less than the other side. It neither
 * runs the guest again at the source, nor ends a destination that the guest may have been given to.
 */
static bool record(struct migration *m, enum migration_phase phase, bool moved, const char *what)
{
	enum migration_phase before = m->phase;
	char *why;

	m->moved = moved;
	m->phase = phase;
	why = m->ops->save(m->context);
	if (!why)
		return true;
	m->moved = false;
	m->phase = before;
	fail(m, "%s cannot be recorded: %s", what, why);
	free(why);
	return false;
}

static void try_go(struct migration *m)
{
	if (m->phase != PHASE_SWITCH || !m->device_state_done || !m->umemd_ready)
		return;
	m->ops->set_timer(m->context, 0);
	if (!record(m, PHASE_AFTER, true, "the hand-over"))
		return;
	tell(m, json_pack("{s:s, s:b}", "cmd", "go", "run", m->running));
	m->go_us = m->ops->now_us(m->context);
	note(m, "GO", "role=source run=%s", m->running ? "true" : "false");
	set_state(m, "running");
	restore_settings(m);
}

/* A STOP while the stream flows: QEMU's own, for the switchover, or somebody's? */
static void who_stopped_reply(struct migration *m, json_t *result)
{
	if (m->phase != PHASE_STREAM && m->phase != PHASE_SWITCH)
		return;
	if (!status_is(result, "finish-migrate") && !status_is(result, "postmigrate") &&
	    !json_is_true(json_object_get(result, "running")))
		set_running(m, false);
}

static void why_reply(struct migration *m, json_t *result)
{
	const char *words = json_string_value(json_object_get(result, "error-desc"));

	fail(m, "QEMU could not send its device state%s%s", words ? ": " : "", words ? words : "");
}

static void source_stop(struct migration *m, uint64_t time_us)
{
	if (m->phase == PHASE_STREAM) {
		m->stopped_us = time_us;
		ask(m, ASK_WHO_STOPPED, "query-status", NULL);
	} else if (!m->moved && m->phase != PHASE_UNDO && m->phase != PHASE_SWITCH) {
		set_running(m, false);
	}
}

static void source_resume(struct migration *m)
{
	if (m->moved) {
		note(m, "SPLIT", "role=source the guest was started here after it moved to %s; it is stopped again",
		     m->command.uri);
		ask(m, ASK_NOTHING, "stop", NULL);
	} else if (m->phase == PHASE_SWITCH && m->device_state_done) {
		fail(m, "somebody let the guest go on during the switchover");
	} else if (m->phase != PHASE_SWITCH && m->phase != PHASE_UNDO) {
		set_running(m, true);
	}
}

static void source_migration_status(struct migration *m, const char *status)
{
	if (!m->stream_given || m->stream_over)
		return;
	if (!strcmp(status, "pre-switchover") && m->phase == PHASE_STREAM)
		return switch_over(m);

	if (!strcmp(status, "completed"))
		m->device_state_done = true;
	else if (strcmp(status, "failed") && strcmp(status, "cancelled"))
		return;
	m->stream_over = true;

	if (m->phase == PHASE_UNDO)
		undo_status(m);
	else if (m->device_state_done && m->phase == PHASE_SWITCH)
		try_go(m);
	else if (m->device_state_done)
		fail(m, "QEMU completed its migration without pausing before the switchover");
	else if (!strcmp(status, "cancelled"))
		fail(m, "somebody cancelled QEMU's migration");
	else
		ask(m, ASK_WHY, "query-migrate", NULL);
}

/* ---- destination ---- */

void migration_expect(struct migration *m, bool deferred, bool paused)
{
	m->role = MIGRATION_DESTINATION;
	m->phase = PHASE_EXPECT;
	m->state = "setup";
	m->deferred = deferred;
	m->paused = paused;
}

char *migration_listen(struct migration *m, const char *uri)
{
	if (m->phase != PHASE_EXPECT)
		return text_copy("this QEMU has its incoming migration already");
	begin(m, MIGRATION_DESTINATION);
	strcpy(m->command.uri, uri);
	m->phase = PHASE_ARM;
	set_state(m, "setup");
	ask(m, ASK_CAPABILITIES, "query-migrate-capabilities", NULL);
	return NULL;
}

/* QEMU knows the end of its state before umemd has heard of it. */
static void try_ready(struct migration *m)
{
	if (m->phase != PHASE_LOAD || !m->device_state_done || !m->stream_received)
		return;
	if (!record(m, PHASE_READY, false, "that the guest is loaded"))
		return;
	note(m, "READY", "role=destination");
	tell(m, json_pack("{s:s}", "cmd", "ready"));
}

static void destination_go(struct migration *m, bool run)
{
	if (m->moved)
		return;
	if (m->phase != PHASE_READY)
		return fail(m, "umemd said go in phase %d, before QEMU had loaded device state",
			    m->phase);
	m->moved = true;
	m->phase = PHASE_AFTER;
	m->go_us = m->ops->now_us(m->context);
	set_running(m, run && !m->paused);
	note(m, "GO", "role=destination run=%s", run ? "true" : "false");
	if (m->running)
		ask(m, ASK_CONT, "cont", NULL);
	set_state(m, "running");
	restore_settings(m);
	ask(m, ASK_CPUS, "query-cpus-fast", NULL);
}

static void cont_reply(struct migration *m, const char *error)
{
	if (!error)
		return;
	m->running = false;
	note(m, "PAUSED", "role=destination reason=QEMU does not start the guest: %s", error);
	say(m, "migrate: the guest has arrived, but QEMU does not start it: %s; type cont once that is mended",
	    error);
}

static void destination_resume(struct migration *m, uint64_t time_us)
{
	if (m->moved) {
		if (!m->resumed_us) {
			m->resumed_us = time_us;
			save(m);
		}
	} else if (m->phase == PHASE_LOAD || m->phase == PHASE_READY) {
		fail(m, "QEMU let the guest run before the source had handed it over");
	}
}

/* When the stream broke off, umemd is about to tell why: that is the better reason. */
static void load_failed(struct migration *m)
{
	m->load_failed = true;
	m->ops->set_timer(m->context, REASON_MS);
}

static void destination_migration_status(struct migration *m, const char *status)
{
	if (m->phase != PHASE_LOAD)
		return;
	if (!strcmp(status, "completed")) {
		m->stream_over = true;
		m->device_state_done = true;
		try_ready(m);
	} else if (!strcmp(status, "failed")) {
		load_failed(m);
	}
}

/* ---- in the place of another umem-qemu ---- */

static void adopt_umemd(struct migration *m)
{
	if (m->held)
		return;
	if (!is_descriptor(m->command.uri))
		return go_on(m);
	m->held = true;
	pause_for(m, "umem-qemu ended, and %s with it: wanted migrate_recover with another URI at both sides",
		  m->command.uri);
}

/* Capabilities that were set for it are those that are set back. */
static void adopt_listener(struct migration *m)
{
	if (m->capabilities_changed)
		return spawn(m);
	m->phase = PHASE_ARM;
	ask(m, ASK_CAPABILITIES, "query-migrate-capabilities", NULL);
}

static const char ended_before[] = "umem-qemu ended before the hand-over";

/* QEMU may have found its stream broken already: then there is nothing to cancel. */
static void adopted_stream_reply(struct migration *m, json_t *result)
{
	static const char *const ongoing[] = {
		"setup", "active", "pre-switchover", "device", "cancelling",
	};

	m->stream_over = true;
	for (size_t i = 0; i < ARRAY_SIZE(ongoing); i++) {
		if (status_is(result, ongoing[i]))
			m->stream_over = false;
	}
	fail(m, "%s", ended_before);
}

/* QEMU may wait for a page, and answer nobody until a umemd brings it, or until it is ended. */
void migration_adopted(struct migration *m)
{
	note(m, "ADOPTED", "role=%s moved=%s", m->role == MIGRATION_NONE ? "none" : role_name(m),
	     m->moved ? "true" : "false");
	if (m->phase == PHASE_READY || m->phase == PHASE_AFTER)
		adopt_umemd(m);
	else if (m->phase == PHASE_WAIT)
		adopt_listener(m);
	else if (migration_active(m) && m->stream_given && m->role == MIGRATION_SOURCE)
		ask(m, ASK_ADOPTED_STREAM, "query-migrate", NULL);
	else if (migration_active(m))
		fail(m, "%s", ended_before);
	if (!m->moved)
		return;
	if (m->role == MIGRATION_DESTINATION && m->phase == PHASE_END && !m->pages_gone)
		m->ops->collapse(m->context);	/* the other's end was that of this, too */
	restore_settings(m);
	ask(m, ASK_ADOPTED, "query-status", NULL);
	if (m->role == MIGRATION_DESTINATION)
		ask(m, ASK_CPUS, "query-cpus-fast", NULL);
}

static void adopted_reply(struct migration *m, json_t *result)
{
	bool running = json_is_true(json_object_get(result, "running"));

	if (m->role == MIGRATION_SOURCE && running)
		source_resume(m);
	else if (m->role == MIGRATION_DESTINATION && !running && m->running && !m->resumed_us)
		ask(m, ASK_CONT, "cont", NULL);
}

/* ---- what comes in ---- */

static void reply_ok(struct migration *m, enum migration_question question, json_t *result)
{
	switch (question) {
	case ASK_STATUS:
		return status_reply(m, result);
	case ASK_CAPABILITIES:
		return capabilities_reply(m, result);
	case ASK_PARAMETERS:
		return parameters_reply(m, result);
	case ASK_MEMORY:
		return memory_reply(m, result);
	case ASK_SET_CAPABILITIES:
		return m->role == MIGRATION_DESTINATION ? spawn(m) : (void)0;
	case ASK_GETFD:
		return got_stream(m);
	case ASK_WHY:
		return why_reply(m, result);
	default:
		return;
	}
}

static const char *question_words(enum migration_question question)
{
	static const char *const words[] = {
		[ASK_STATUS] = "its status",
		[ASK_CAPABILITIES] = "its migration capabilities",
		[ASK_PARAMETERS] = "its migration parameters",
		[ASK_MEMORY] = "its memory backends",
		[ASK_SET_CAPABILITIES] = "to set migration capabilities",
		[ASK_SET_PARAMETERS] = "to set migration parameters",
		[ASK_GETFD] = "to take the stream",
		[ASK_MIGRATE] = "to migrate",
		[ASK_INCOMING] = "to load the stream",
		[ASK_CONTINUE] = "to go on with the switchover",
		[ASK_WHY] = "why its migration failed",
	};

	return words[question];
}

void migration_qemu_reply(struct migration *m, enum migration_question question, json_t *result,
			  const char *error)
{
	switch (question) {
	case ASK_NOTHING:
	case ASK_UNDO_CANCEL:
		return;
	case ASK_RESTORE:
		return restore_reply(m, result);
	case ASK_PARAMETERS_AGAIN:
		return parameters_again_reply(m, result);
	case ASK_TLS:
		return tls_reply(m, result, error);
	case ASK_WHO_STOPPED:
		return who_stopped_reply(m, result);
	case ASK_CONT:
		return cont_reply(m, error);
	case ASK_ADOPTED_STREAM:
		return adopted_stream_reply(m, result);
	case ASK_ADOPTED:
		return adopted_reply(m, result);
	case ASK_CPUS:
		json_decref(m->cpus);
		m->cpus = json_incref(result);
		return;
	case ASK_UNDO_STATUS:
		return m->phase == PHASE_UNDO ? undo_status_reply(m, result) : (void)0;
	case ASK_UNDO_CONT:
		return m->phase == PHASE_UNDO ? undo_cont_reply(m, error) : (void)0;
	default:
		break;
	}
	if (m->phase == PHASE_UNDO) {
		/* No stream was started, so no event will tell that it is over. */
		if (question == ASK_MIGRATE && error && !m->stream_over)
			undo_status(m);
		return;
	}
	if (m->moved || !migration_active(m))
		return;
	if (error) {
		if (question == ASK_MIGRATE || question == ASK_INCOMING)
			m->stream_over = true;
		return fail(m, "QEMU was asked %s and said: %s", question_words(question), error);
	}
	reply_ok(m, question, result);
}

void migration_qemu_event(struct migration *m, const char *name, json_t *data, uint64_t time_us)
{
	const char *status = json_string_value(json_object_get(data, "status"));
	bool source = m->role == MIGRATION_SOURCE;

	if (m->role == MIGRATION_NONE || (!migration_active(m) && !m->moved))
		return;
	if (!strcmp(name, "STOP")) {
		if (source)
			source_stop(m, time_us);
	} else if (!strcmp(name, "RESUME")) {
		if (source)
			source_resume(m);
		else
			destination_resume(m, time_us);
	} else if (!strcmp(name, "MIGRATION") && status) {
		if (source)
			source_migration_status(m, status);
		else
			destination_migration_status(m, status);
	}
}

void migration_qemu_gone(struct migration *m, const char *how)
{
	if (!migration_active(m))
		return;
	if (m->moved && m->role == MIGRATION_SOURCE)
		return;		/* umemd holds the memory, the guest needs it */
	if (m->load_failed)
		return;		/* that is why it is gone */
	free(m->reason);
	m->reason = text_format("QEMU %s", how);
	if (m->umemd_alive) {
		tell(m, m->role == MIGRATION_SOURCE ? json_pack("{s:s}", "cmd", "cancel") :
		     json_pack("{s:s, s:s}", "cmd", "fail", "message", m->reason));
		stop_umemd(m);
	}
	note(m, "FAILED", "role=%s reason=%s", role_name(m), m->reason);
	finish(m, m->role == MIGRATION_SOURCE ? PHASE_IDLE : PHASE_LOST, "failed");
	m->ops->done(m->context);
}

/* What goes on from one umemd to the next; all else is of the one that tells it. */
static const char *const counters[] = {
	"control_bytes", "urgent_bytes", "bulk_bytes", "precopy_bytes", "requests", "zero_pages",
	"compressed_pages", "compression_saved_bytes", "prefault_pages", "prefault_hits", "faults",
	"duplicates", "checksum_errors", "blocktime_others_ms",
};

static void take_progress(struct migration *m, json_t *event)
{
	json_t *progress = memory_or_exit(json_copy(event));

	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		uint64_t before = number(m->totals, counters[i]);

		if (before)
			json_object_set_new(progress, counters[i],
					    json_integer((json_int_t)(before + number(event,
									counters[i]))));
	}
	json_decref(m->progress);
	m->progress = progress;
}

static void all_present(struct migration *m)
{
	if (!m->moved)
		return fail(m, "umemd said end before the hand-over");
	if (m->phase != PHASE_AFTER)
		return;
	/* The destination's stays until the source has heard of it. */
	m->umemd_alive = m->role == MIGRATION_DESTINATION;
	free(m->reason);
	m->reason = NULL;
	finish(m, PHASE_END, "completed");
	note(m, "END", "role=%s", role_name(m));
	if (m->role == MIGRATION_DESTINATION)
		m->ops->collapse(m->context);
	m->ops->done(m->context);
}

/* ---- a source that is lost ---- */

#define GONE_LOGGED	8u	/* ranges */

/* null: nobody can go on with it, the source keeps the guest. */
static void take_session(struct migration *m, json_t *session)
{
	if (!json_is_object(session) && (!json_is_null(session) || m->moved))
		return;
	json_decref(m->session);
	m->session = json_is_object(session) ? json_incref(session) : NULL;
	save(m);
}

static void take_gone_ranges(struct migration *m, json_t *event)
{
	json_t *name = json_object_get(event, "region"), *range;
	size_t i;

	if (!m->gone_ranges)
		m->gone_ranges = memory_or_exit(json_array());
	json_array_foreach(json_object_get(event, "ranges"), i, range)
		json_array_append_new(m->gone_ranges,
				      json_pack("[O,O,O]", name, json_array_get(range, 0),
						json_array_get(range, 1)));
}

static char *gone_text(const struct migration *m)
{
	size_t nr = json_array_size(m->gone_ranges);
	struct text text = { 0 };

	for (size_t i = 0; i < min(nr, (size_t)GONE_LOGGED); i++) {
		json_t *range = json_array_get(m->gone_ranges, i);

		text_add(&text, " %s:0x%llx+0x%llx", json_string_value(json_array_get(range, 0)),
			 (unsigned long long)json_integer_value(json_array_get(range, 1)),
			 (unsigned long long)json_integer_value(json_array_get(range, 2)));
	}
	if (nr > GONE_LOGGED)
		text_add(&text, " and %zu more", nr - GONE_LOGGED);
	return text.data ? text_take(&text) : text_copy("");
}

static void gone(struct migration *m, json_t *event)
{
	char *ranges;

	if (!m->moved || m->phase != PHASE_AFTER)
		return fail(m, "umemd said gone before the hand-over");
	m->umemd_alive = false;
	m->pages_gone = number(event, "pages");
	ranges = gone_text(m);
	note(m, "GONE", "role=destination pages=%llu ranges:%s", (unsigned long long)m->pages_gone,
	     ranges);
	free(ranges);
	free(m->reason);
	m->reason = text_format("the source was given up: %llu pages of the guest's memory are gone",
				(unsigned long long)m->pages_gone);
	finish(m, PHASE_END, m->pages_gone ? "failed" : "completed");
	if (!m->pages_gone)
		m->ops->collapse(m->context);
	say(m, "migrate: %s, the rest of it goes on", m->reason);
	m->ops->done(m->context);
}

static void source_umemd_state(struct migration *m, const char *state)
{
	if (!strcmp(state, "advise") && m->phase == PHASE_ADVISE)
		advise(m);
	else if (!strcmp(state, "listen") && !m->moved)
		set_state(m, "listen");
}

static void destination_umemd_state(struct migration *m, const char *state)
{
	/* A source that left before it sent anything may be followed by another:
	 * QEMU has the stream already then and waits at its beginning.
	 */
	if (!strcmp(state, "advise"))
		m->started_us = m->ops->now_us(m->context);
	if (!strcmp(state, "advise") && m->phase == PHASE_WAIT) {
		m->phase = PHASE_ADVISE;
		set_state(m, "advise");
		ask(m, ASK_PARAMETERS, "query-migrate-parameters", NULL);
	} else if (!strcmp(state, "listen") && !m->moved) {
		set_state(m, "listen");
		m->stream_received = true;
		try_ready(m);
	}
}

static void recovered(struct migration *m)
{
	free(m->reason);
	m->reason = NULL;
	m->giving_up = false;	/* it came back before umemd heard of it */
	end_limit(m);
	set_state(m, "running");
}

static void umemd_state(struct migration *m, const char *state, const char *message)
{
	bool may_pause = m->phase == PHASE_AFTER || m->phase == PHASE_READY;

	if (!strcmp(state, "end"))
		return all_present(m);
	if (m->held || m->replacing)
		return;		/* said before it was told to stop */
	if (may_pause && !strcmp(state, "paused"))
		return pause_for(m, "%s", message);
	if (may_pause && !strcmp(state, "recover"))
		return set_state(m, "recover");
	if (m->phase == PHASE_AFTER && !strcmp(state, "running"))
		return recovered(m);
	if (m->role == MIGRATION_SOURCE)
		source_umemd_state(m, state);
	else
		destination_umemd_state(m, state);
}

static void umemd_listens(struct migration *m, const char *uri)
{
	note(m, "LISTENING", "uri=%s", uri);
	if (m->role == MIGRATION_DESTINATION)
		m->ops->done(m->context);
}

static const char *string_or(json_t *object, const char *key, const char *otherwise)
{
	const char *string = json_string_value(json_object_get(object, key));

	return string ? string : otherwise;
}

void migration_umemd_event(struct migration *m, json_t *event)
{
	const char *name = string_or(event, "event", "");

	if (!m->umemd_alive)
		return;
	if (!strcmp(name, "progress")) {
		take_progress(m, event);
	} else if (!strcmp(name, "state")) {
		umemd_state(m, string_or(event, "state", ""), string_or(event, "message", ""));
	} else if (!strcmp(name, "session")) {
		take_session(m, json_object_get(event, "session"));
	} else if (!strcmp(name, "listening")) {
		umemd_listens(m, string_or(event, "uri", m->command.uri));
	} else if (!strcmp(name, "allocated")) {
		note(m, "ALLOCATED", "role=destination bytes=%llu of=%llu",
		     (unsigned long long)number(event, "bytes"),
		     (unsigned long long)number(event, "of"));
	} else if (!strcmp(name, "converged") && m->role == MIGRATION_SOURCE) {
		converged(m, event);
	} else if (!strcmp(name, "ready") && m->role == MIGRATION_SOURCE) {
		note(m, "READY", "role=source");
		m->umemd_ready = true;
		try_go(m);
	} else if (!strcmp(name, "go") && m->role == MIGRATION_DESTINATION) {
		destination_go(m, json_is_true(json_object_get(event, "run")));
	} else if (!strcmp(name, "gone-ranges")) {
		take_gone_ranges(m, event);
	} else if (!strcmp(name, "gone") && m->role == MIGRATION_DESTINATION) {
		gone(m, event);
	} else if (!strcmp(name, "damaged")) {
		note(m, "DAMAGED", "role=destination region=%s offset=%llu times=%llu",
		     string_or(event, "region", ""), (unsigned long long)number(event, "offset"),
		     (unsigned long long)number(event, "times"));
	} else if (!strcmp(name, "refused")) {
		note(m, "REFUSED", "message=%s", string_or(event, "message", ""));
	} else if (!strcmp(name, "error") && outlives_umemd(m)) {
		umemd_erred(m, string_or(event, "message", "umemd failed without a word"));
	} else if (!strcmp(name, "error")) {
		stop_umemd(m);
		fail(m, "%s", string_or(event, "message", "umemd failed without a word"));
	}
}

void migration_umemd_gone(struct migration *m, const char *how, bool clean)
{
	if (!m->umemd_alive)
		return;
	m->umemd_alive = false;
	if (m->phase == PHASE_END && clean)
		return;
	if (outlives_umemd(m))
		umemd_has_ended(m, how);
	else
		fail(m, "umemd %s", how);
}

void migration_timer(struct migration *m)
{
	if (m->phase == PHASE_SWITCH)
		fail(m, "the destination was not ready %d s after the guest was stopped",
		     SWITCH_TIMEOUT_MS / 1000);
	else if (m->phase == PHASE_UNDO)
		undo_status(m);
	else if (m->restart_due && outlives_umemd(m))
		go_on(m);
	else if (m->load_failed)
		fail(m, "QEMU could not load the device state, see its message in the destination's log");
}

/* The source does not come: what is to be done about it belongs here. */
void migration_limit_timer(struct migration *m)
{
	note(m, "PAUSED-LIMIT", "role=%s seconds=%u pages_missing=%llu", role_name(m),
	     m->paused_limit, (unsigned long long)number(m->progress, "pages_remaining"));
	m->limit_passed = true;
	migration_source_lost(m);
}

/* ---- what the monitor asks ---- */

void migration_set_paused_limit(struct migration *m, unsigned int seconds)
{
	m->paused_limit = seconds;
	save(m);
	end_limit(m);
	if (m->state && is_paused(m))
		limit_pause(m);
}

bool migration_postcopy_ram(json_t *capabilities)
{
	return json_is_true(json_object_get(find_capability(capabilities, "postcopy-ram"),
					    "state"));
}

bool migration_hold_postcopy_ram(struct migration *m, bool on)
{
	if (m->role != MIGRATION_DESTINATION || m->moved)
		return false;
	m->postcopy_held = true;
	m->postcopy_ram = on;
	return true;
}

static char *why_not_start_postcopy(const struct migration *m)
{
	if (m->role == MIGRATION_SOURCE && m->moved)
		return text_format("the guest has moved to %s already (state %s)", m->command.uri,
				   m->state);
	if (m->role == MIGRATION_DESTINATION && (migration_active(m) || !m->moved))
		return text_copy("the guest comes here, only at its source can the switchover be started");
	if (!migration_active(m))
		return text_copy("no migration is under way, wanted one in pre-copy: migrate without -p begins it, at the monitor with capability postcopy-ram on");
	if (m->phase == PHASE_UNDO)
		return text_copy("the migration is being given up, wanted one in pre-copy");
	if (!m->command.precopy)
		return text_format("the migration to %s (state %s) was begun with -p, it has no pre-copy and switches over by itself",
				   m->command.uri, m->state);
	if (m->switch_soon || m->phase > PHASE_PRECOPY)
		return text_format("the guest is being switched over to %s already (state %s)",
				   m->command.uri, m->state);
	return NULL;
}

char *migration_start_postcopy(struct migration *m)
{
	char *why = why_not_start_postcopy(m);

	if (why)
		return why;
	m->switch_soon = true;
	if (m->phase == PHASE_PRECOPY)
		prepare(m);
	return NULL;
}

char *migration_cancel(struct migration *m)
{
	if (m->role == MIGRATION_SOURCE && m->moved)
		return text_format("the guest has moved to %s (state %s), it cannot be called back",
				   m->command.uri, m->state);
	if (m->role == MIGRATION_DESTINATION)
		return text_copy("the guest comes here, only its source can cancel that");
	if (m->phase == PHASE_UNDO)
		return text_copy("the migration is being given up already");
	if (!migration_active(m))
		return text_copy("no migration is under way");
	m->user_cancelled = true;
	fail(m, "cancelled");
	return NULL;
}

static char *why_not_give_up(const struct migration *m)
{
	if (m->role == MIGRATION_SOURCE && m->moved)
		return text_format("the guest has moved to %s, only there can its source be given up",
				   m->command.uri);
	if (m->role != MIGRATION_DESTINATION)
		return text_copy("no guest came here, wanted one whose source is lost");
	if (!m->moved)
		return text_format("the guest was not handed over (state %s), it may run at its source; wanted state paused",
				   m->state);
	if (m->phase == PHASE_END && m->reason)
		return text_format("that is over: %s", m->reason);
	if (m->phase == PHASE_END)
		return text_copy("all of the guest's memory has arrived");
	if (m->giving_up)
		return text_copy("the source is being given up already");
	if (!m->umemd_alive && is_descriptor(m->command.uri))
		return text_format("%s ended with the umemd that had it, wanted migrate_recover with another URI first",
				   m->command.uri);
	if (strcmp(m->state, "paused"))
		return text_format("the source is connected (state %s), wanted one that is lost (state paused)",
				   m->state);
	return NULL;
}

char *migration_give_up(struct migration *m)
{
	char *why = why_not_give_up(m);

	if (why)
		return why;
	m->giving_up = true;
	save(m);
	if (m->umemd_alive)
		tell_give_up(m);
	else
		replace_umemd(m);
	return NULL;
}

void migration_set_lost_source(struct migration *m, bool poison)
{
	m->poison_lost = poison;
	save(m);
	if (m->limit_passed)
		migration_source_lost(m);
}

void migration_source_lost(struct migration *m)
{
	char *why = m->poison_lost ? migration_give_up(m) : NULL;

	if (why) {
		note(m, "NOT-GIVEN-UP", "role=%s reason=%s", role_name(m), why);
		m->limit_runs = false;	/* the next pause has its own */
	}
	free(why);
}

/* NULL if the session may be left to other umemds now. */
static char *why_not_recoverable(const struct migration *m)
{
	if (m->phase == PHASE_AFTER || (m->phase == PHASE_READY && is_paused(m)))
		return m->session ? NULL : text_copy("umemd has not told of its session");
	if (m->phase == PHASE_END && !strcmp(m->state, "completed"))
		return text_copy("all of the guest's memory has arrived, nothing is left to do");
	if (!migration_active(m))
		return text_copy("no migration is under way");
	return text_format("the guest has not been handed over yet (state %s), wanted it to be%s",
			   m->state, m->role == MIGRATION_SOURCE ?
			   ": until then migrate_cancel gives the migration up" : "");
}

char *migration_pause(struct migration *m)
{
	char *why = why_not_recoverable(m);

	if (why)
		return why;
	if (m->held)
		return text_copy("it is paused already, until migrate_recover");
	m->held = true;
	m->restart_due = m->replacing = false;
	m->ops->set_timer(m->context, 0);
	if (m->umemd_alive)
		end_umemd(m);
	pause_for(m, "by migrate_pause, until migrate_recover");
	return NULL;
}

char *migration_recover(struct migration *m, const char *uri)
{
	char *why = why_not_recoverable(m);

	if (why)
		return why;
	if (!is_paused(m))
		return text_format("it is not paused (state %s), wanted it to be: migrate_pause does that",
				   m->state);
	if (!uri && is_descriptor(m->command.uri))
		return text_format("%s ended with the umemd that had it, wanted another URI",
				   m->command.uri);
	if (uri)
		snprintf(m->command.uri, sizeof(m->command.uri), "%s", uri);
	note(m, "RECOVER", "role=%s uri=%s", role_name(m), m->command.uri);
	replace_umemd(m);
	return NULL;
}

char *migration_restart_umemd(struct migration *m)
{
	char *why = why_not_recoverable(m);

	if (why)
		return why;
	if (m->held)
		return text_format("there is no umemd (%s)", m->reason);
	if (is_descriptor(m->command.uri))
		return text_format("%s ends with the umemd that has it: migrate_pause, then migrate_recover with another URI, at both sides",
				   m->command.uri);
	replace_umemd(m);
	return NULL;
}

bool migration_active(const struct migration *m)
{
	return m->phase != PHASE_IDLE && m->phase != PHASE_EXPECT && m->phase != PHASE_END &&
	       m->phase != PHASE_LOST;
}

bool migration_exists(const struct migration *m)
{
	return m->role != MIGRATION_NONE;
}

bool migration_serving(const struct migration *m)
{
	return m->moved && m->phase == PHASE_AFTER;
}

static bool guard_source(struct migration *m, const struct hmp_command *command, char **answer)
{
	bool runs = command->kind == HMP_CONT || command->kind == HMP_GUARDED;

	if (m->moved && runs) {
		*answer = text_format("%s: the guest has moved to %s; it must not run here again, or it would run twice",
				      command->word, m->command.uri);
		return false;
	}
	if (m->moved)
		return true;
	if (command->kind == HMP_STOP && m->phase == PHASE_SWITCH) {
		m->running = false;
		*answer = text_copy("stop: the guest is on its way and will be paused where it arrives");
		return false;
	}
	if (m->phase == PHASE_UNDO && (command->kind == HMP_CONT || command->kind == HMP_STOP)) {
		m->running = command->kind == HMP_CONT;
		return true;
	}
	if (runs && (m->phase == PHASE_SWITCH || m->phase == PHASE_UNDO ||
		     !strncmp(command->word, "migrate", strlen("migrate")))) {
		*answer = text_format("%s: the guest is moving to %s (state %s); migrate_cancel gives that up",
				      command->word, m->command.uri, m->state);
		return false;
	}
	return true;
}

static bool guard_destination(struct migration *m, const struct hmp_command *command,
			      char **answer)
{
	if (m->moved)
		return true;
	if (command->kind == HMP_GUARDED) {
		*answer = text_format("%s: the guest has not arrived yet", command->word);
		return false;
	}
	m->paused = command->kind == HMP_STOP;
	*answer = text_format("%s: the guest has not arrived yet; it will %s", command->word,
			      m->paused ? "be paused when it has" : "run when it has, if it ran at its source");
	return false;
}

bool migration_guard(struct migration *m, const struct hmp_command *command, char **answer)
{
	*answer = NULL;
	if (command->kind != HMP_CONT && command->kind != HMP_STOP && command->kind != HMP_GUARDED)
		return true;
	if (m->role == MIGRATION_SOURCE && (migration_active(m) || m->moved))
		return guard_source(m, command, answer);
	if (m->role == MIGRATION_DESTINATION && m->phase != PHASE_LOST)
		return guard_destination(m, command, answer);
	return true;
}

void migration_init(struct migration *m, const struct migration_ops *ops, void *context,
		    const char *const *regions, size_t nr_regions)
{
	*m = (struct migration){
		.ops = ops,
		.context = context,
		.regions = regions,
		.nr_regions = nr_regions,
		.urgent_channels = 1,
	};
}

void migration_destroy(struct migration *m)
{
	json_decref(m->capabilities);
	json_decref(m->parameters);
	json_decref(m->progress);
	json_decref(m->cpus);
	json_decref(m->gone_ranges);
	json_decref(m->tls);
	json_decref(m->session);
	json_decref(m->totals);
	free(m->reason);
	m->capabilities = m->parameters = m->progress = m->cpus =
		m->gone_ranges = m->tls = m->session = m->totals = NULL;
	m->reason = NULL;
}
