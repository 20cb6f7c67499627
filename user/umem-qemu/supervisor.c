// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/jsonl.h"
#include "common/log.h"
#include "common/report.h"
#include "common/runtime.h"
#include "common/text.h"
#include "common/util.h"
#include "umem-qemu/adopt.h"
#include "umem-qemu/child.h"
#include "umem-qemu/collapse.h"
#include "umem-qemu/control.h"
#include "umem-qemu/hmp.h"
#include "umem-qemu/info.h"
#include "umem-qemu/loop.h"
#include "umem-qemu/migration.h"
#include "umem-qemu/monitor.h"
#include "umem-qemu/qmp.h"
#include "umem-qemu/record.h"
#include "umem-qemu/saved.h"
#include "umem-qemu/umemd.h"
#include "umemd/socket.h"

#define QUIT_PATIENCE_MS	2000
#define UMEMDS_MAX		8

/* Asked by the machine, not answered by QEMU yet. */
struct question {
	struct supervisor *supervisor;
	enum migration_question question;
};

/* A monitor's line that QEMU works on. */
struct passed_line {
	struct supervisor *supervisor;
	struct monitor *monitor;
	struct hmp_command command;
};

/* A migrate without -p, until QEMU has told whether it is umem's. */
struct undecided_line {
	struct supervisor *supervisor;
	struct monitor *monitor;
	char *text;
	struct hmp_command command;
};

struct log_line {
	struct log_line *next;
	enum log_level level;
	char *text;
};

struct supervisor {
	const struct options *options;
	const struct host *host;
	const struct adoption *adoption;	/* NULL: QEMU is our own child */
	char *record_path, *qmp_path;		/* NULL: nobody could adopt QEMU */
	const char *region_names[OPTIONS_REGIONS_MAX];
	struct migration migration;
	struct loop_timer migration_timer, limit_timer;
	bool qemus_own_migration;	/* "info migrate" is about QEMU's own */

	pid_t qemu;			/* 0: it has ended */
	int qemu_status;
	int qmp_fd;
	struct qmp qmp;
	bool qmp_ready;
	struct loop_timer quit_timer;
	int quit_signal;
	bool gave_up;

	pid_t collapse;			/* 0: it is not at work */

	struct umemd *umemds[UMEMDS_MAX];	/* dismissed ones end in their own time */
	struct umemd *umemd;			/* the machine's */
	int stream_fd;				/* device state, QEMU's end */
	struct socket_listener listener;	/* of umemds that follow one another */
	char listen_uri[URI_TEXT_MAX];		/* where, as it was asked for */
	char listening[URI_TEXT_MAX];		/* and as it came out */

	struct monitor *monitors[OPTIONS_MONITORS_MAX];
	struct control *control;		/* NULL: there is none */
	struct monitor *waiting;		/* gave the command the machine works on */
	struct log_line *lines;			/* not written yet */
	struct log_line **lines_end;
	int signal_fd;
	bool leave;
};

static uint64_t wall_clock_us(void *context)
{
	struct timespec ts;

	(void)context;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / NSEC_PER_USEC;
}

/* ---- the log ---- */

static void write_line(struct supervisor *s)
{
	struct log_line *line = s->lines;

	s->lines = line->next;
	if (!s->lines)
		s->lines_end = &s->lines;
	monitor_step_aside();
	log_message(line->level, "%s", line->text);
	monitor_come_back();
	free(line->text);
	free(line);
}

static void log_has_room(void *context, short revents)
{
	struct supervisor *s = context;

	(void)revents;
	write_line(s);
	if (!s->lines)
		loop_forget(STDERR_FILENO);
}

/*
 * Lines are written when there is nothing else to do: where the log is slow the
 * guest shall not stand still for it.
 */
static void log_later(struct supervisor *s, enum log_level level, char *text)
{
	struct log_line *line = memory_or_exit(calloc(1, sizeof(*line)));

	line->level = level;
	line->text = text;
	*s->lines_end = line;
	s->lines_end = &line->next;
	loop_watch_idle(STDERR_FILENO, POLLOUT, log_has_room, s);
}

/* umem-qemu: 2026-11-21T03:30:00.123456Z event NAME DETAILS */
static void log_event(struct supervisor *s, uint64_t time_us, const char *name,
		      const char *details)
{
	char time[REPORT_TIME_MAX];

	report_time(time, time_us ? time_us : wall_clock_us(NULL));
	log_later(s, LOG_LEVEL_INFO,
		  text_format("%s event %s%s%s", time, name, details && *details ? " " : "",
			      details ? details : ""));
}

/* ---- QEMU's end ---- */

static void signal_qemu(void *context)
{
	struct supervisor *s = context;

	if (!s->qemu)
		return;
	kill(s->qemu, s->quit_signal);
	s->quit_signal = SIGKILL;
	loop_timer_set(&s->quit_timer, QUIT_PATIENCE_MS);
}

static void watch_qmp(struct supervisor *s);

/* Asks politely first: QEMU may wait for a page that does not come, and hear nothing. */
static void quit_qemu(struct supervisor *s, bool insist)
{
	if (!s->qemu)
		return;
	if (s->qmp_ready && !s->quit_signal) {
		qmp_execute(&s->qmp, "quit", NULL, -1, NULL, NULL);
		watch_qmp(s);
		s->quit_signal = SIGTERM;
		if (insist)
			loop_timer_set(&s->quit_timer, QUIT_PATIENCE_MS);
		return;
	}
	if (!s->quit_signal)
		s->quit_signal = SIGTERM;
	signal_qemu(s);
}

/* ---- commands, from monitors and from the control socket ---- */

/* @waiting: the monitor that waits for the end, or NULL. NULL, or why not, the caller's string. */
static char *command_migrate(struct supervisor *s, const struct hmp_command *command,
			     struct monitor *waiting)
{
	char *why;

	if (!s->qmp_ready)
		return text_format("QEMU %s, wanted one that runs",
				   s->qemu ? "does not answer yet" : "has ended");
	if (s->waiting)
		return text_copy("a monitor waits for another migration");
	s->waiting = waiting;
	why = migration_start(&s->migration, command);
	if (why)
		s->waiting = NULL;
	else
		s->qemus_own_migration = false;
	return why;
}

static char *command_cancel(struct supervisor *s)
{
	return migration_cancel(&s->migration);
}

static char *command_recover(struct supervisor *s, const struct hmp_command *command)
{
	return migration_recover(&s->migration, *command->uri ? command->uri : NULL);
}

static json_t *command_info(struct supervisor *s)
{
	return info_json(&s->migration, wall_clock_us(NULL));
}

/* ---- the control socket ---- */

static void tell_watchers(struct supervisor *s, const char *event)
{
	if (control_watched(s->control))
		control_tell(s->control, json_pack("{s:s, s:o}", "event", event,
						   "info", command_info(s)),
			     !strcmp(event, "end"));
}

/* A migration that is over is told at once: it may have ended before its watcher asked. */
static char *command_watch(struct supervisor *s, struct control_answer *answer)
{
	if (migration_active(&s->migration))
		answer->watch = true;
	else if (s->migration.ended_us)
		answer->event = json_pack("{s:s, s:o}", "event", "end", "info", command_info(s));
	else
		return text_copy("watch: there was no migration yet, wanted one");
	return NULL;
}

static json_t *guest_json(struct supervisor *s)
{
	json_t *guest = json_pack("{s:i}", "pid", (int)getpid());

	if (s->options->name)
		json_object_set_new(guest, "name", jsonl_string(s->options->name));
	return guest;
}

static void control_request(void *context, const struct request *request,
			    struct control_answer *answer)
{
	struct supervisor *s = context;
	char *why = NULL;

	answer->reply = json_pack("{s:b}", "ok", true);
	if (request->kind == REQUEST_MIGRATE)
		why = command_migrate(s, &request->command, NULL);
	else if (request->kind == REQUEST_START_POSTCOPY)
		why = migration_start_postcopy(&s->migration);
	else if (request->kind == REQUEST_CANCEL)
		why = command_cancel(s);
	else if (request->kind == REQUEST_PAUSE)
		why = migration_pause(&s->migration);
	else if (request->kind == REQUEST_RECOVER)
		why = command_recover(s, &request->command);
	else if (request->kind == REQUEST_RESTART_PAGER)
		why = migration_restart_umemd(&s->migration);
	else if (request->kind == REQUEST_GIVE_UP)
		why = migration_give_up(&s->migration);
	else if (request->kind == REQUEST_SET)
		migration_set_lost_source(&s->migration, request->command.on);
	else if (request->kind == REQUEST_GONE)
		info_gone(&s->migration, request->from, answer->reply);
	else if (request->kind == REQUEST_WATCH)
		why = command_watch(s, answer);
	if (request->kind == REQUEST_INFO) {
		json_object_set_new(answer->reply, "guest", guest_json(s));
		json_object_set_new(answer->reply, "info", command_info(s));
	}
	if (why) {
		json_decref(answer->reply);
		answer->reply = json_pack("{s:o}", "error", jsonl_string(why));
	}
	free(why);
}

static int open_control(struct supervisor *s)
{
	char *error = NULL;

	if (s->options->no_control)
		return 0;
	if (s->options->control)
		s->control = control_open(s->options->control, control_request, s, &error);
	else
		s->control = control_open_default(control_request, s, &error);
	if (s->control)
		return 0;
	if (s->options->control)
		log_error("-control %s", error);
	else	/* nobody asked for one: no reason to keep the guest from starting */
		log_warning("no control socket, umemctl will not find this guest: %s", error);
	free(error);
	return s->options->control ? -1 : 0;
}

/* ---- what the machine wants ---- */

static void print_and_free(struct monitor *monitor, char *text)
{
	monitor_print(monitor, text);
	free(text);
}

static void show_progress(struct supervisor *s)
{
	json_t *info = command_info(s);
	char *text = report_progress(info);

	monitor_progress(s->waiting, report_percent(info), text);
	free(text);
	json_decref(info);
}

static void umemd_event(void *context, struct umemd *umemd, json_t *event)
{
	struct supervisor *s = context;
	const char *name = json_string_value(json_object_get(event, "event"));

	if (umemd != s->umemd)
		return;
	migration_umemd_event(&s->migration, event);
	if (!name || strcmp(name, "progress"))
		return;
	tell_watchers(s, "progress");
	if (s->waiting && s->migration.role == MIGRATION_SOURCE)
		show_progress(s);
}

static void umemd_gone(void *context, struct umemd *umemd, const char *how, bool clean)
{
	struct supervisor *s = context;
	char *details = text_format("pid=%d %s", umemd_pid(umemd), how);

	log_event(s, 0, "UMEMD-ENDED", details);
	free(details);
	for (size_t i = 0; i < UMEMDS_MAX; i++) {
		if (s->umemds[i] == umemd)
			s->umemds[i] = NULL;
	}
	if (umemd == s->umemd) {
		s->umemd = NULL;
		migration_umemd_gone(&s->migration, how, clean);
	}
	/* Nobody shall take the port while another is about to be started, or is. */
	if (!s->umemd && !s->migration.restart_due)
		socket_unlisten(&s->listener);
}

static const struct umemd_ops umemd_ops = { .event = umemd_event, .gone = umemd_gone };

static struct umemd **umemd_slot(struct supervisor *s)
{
	for (size_t i = 0; i < UMEMDS_MAX; i++) {
		if (!s->umemds[i])
			return &s->umemds[i];
	}
	return NULL;
}

static void end_collapse(struct supervisor *s)
{
	if (s->collapse)
		kill(s->collapse, SIGKILL);
}

static void close_stream(struct supervisor *s)
{
	if (s->stream_fd >= 0)
		close(s->stream_fd);
	s->stream_fd = -1;
}

/* See that the listener is at @text, if that is a place to listen at. */
static char *listen_at(struct supervisor *s, const char *text)
{
	char error[SOCKET_ERROR_MAX];
	struct uri uri;

	if (uri_parse(&uri, text, error, sizeof(error)))
		return text_copy(error);
	if (s->listener.fd >= 0 && strcmp(s->listen_uri, text))
		socket_unlisten(&s->listener);
	if ((uri.kind != URI_TCP && uri.kind != URI_UNIX) || s->listener.fd >= 0)
		return NULL;
	snprintf(s->listen_uri, sizeof(s->listen_uri), "%s", text);
	return socket_listen(&uri, &s->listener, s->listening, error) ? text_copy(error) : NULL;
}

static char *start_umemd(void *context, enum migration_role role, const char *uri,
			 const struct hmp_command *command, json_t *session)
{
	struct supervisor *s = context;
	struct umemd **slot = umemd_slot(s);
	struct umemd_setup setup = {
		.path = s->host->umemd,
		.role = role,
		.uri = uri,
		.claimed = s->options->incoming && !strcmp(s->options->incoming, uri),
		.command = command,
		.tls = s->migration.tls,
		.session = session,
		.touch = s->options->postcopy_flags & OPTIONS_FLAG_TOUCH,
		.regions = s->options->regions,
		.region_fds = s->host->region_fds,
		.nr_regions = s->host->nr_regions,
	};
	char *error = NULL, *details;

	if (!slot)
		return text_format("%d umemd processes have not ended yet, wanted fewer: try again in a moment",
				   UMEMDS_MAX);
	if (role == MIGRATION_DESTINATION) {
		error = listen_at(s, uri);
		if (error)
			return error;
		setup.uri = s->listener.fd >= 0 ? s->listening : uri;
	}
	if (role == MIGRATION_SOURCE)
		end_collapse(s);	/* the guest goes on to elsewhere */
	setup.listener = s->listener.fd;
	close_stream(s);
	*slot = umemd_start(&setup, &umemd_ops, s, &s->stream_fd, &error);
	if (!*slot)
		return error;
	s->umemd = *slot;
	details = text_format("pid=%d role=%s uri=%s%s", umemd_pid(s->umemd),
			      role == MIGRATION_SOURCE ? "source" : "destination", setup.uri,
			      session ? " goes on" : "");
	log_event(s, 0, "UMEMD-STARTED", details);
	free(details);
	return NULL;
}

static void tell_umemd(void *context, json_t *command)
{
	struct supervisor *s = context;

	if (s->umemd)
		umemd_tell(s->umemd, command);
	else
		json_decref(command);
}

static void hurry_umemd(void *context)
{
	struct supervisor *s = context;

	if (s->umemd)
		umemd_hurry(s->umemd);
}

static void stop_umemd(void *context)
{
	struct supervisor *s = context;

	if (s->umemd)
		umemd_dismiss(s->umemd);
	s->umemd = NULL;
	close_stream(s);
}

static void dismiss_umemd(void *context)
{
	struct supervisor *s = context;

	if (s->umemd)
		umemd_dismiss(s->umemd);
}

static void question_answered(void *context, json_t *result, const char *error)
{
	struct question *question = context;

	migration_qemu_reply(&question->supervisor->migration, question->question, result, error);
	free(question);
}

static void ask_qemu(void *context, enum migration_question what, const char *command,
		     json_t *arguments, bool with_stream)
{
	struct supervisor *s = context;
	struct question *question = memory_or_exit(calloc(1, sizeof(*question)));
	int fd = -1;

	*question = (struct question){ .supervisor = s, .question = what };
	if (with_stream) {
		fd = s->stream_fd;
		s->stream_fd = -1;
	}
	qmp_execute(&s->qmp, command, arguments, fd, question_answered, question);
	watch_qmp(s);
}

static void set_or_clear(struct loop_timer *timer, unsigned int milliseconds)
{
	if (milliseconds)
		loop_timer_set(timer, milliseconds);
	else
		loop_timer_clear(timer);
}

static void set_timer(void *context, unsigned int milliseconds)
{
	struct supervisor *s = context;

	set_or_clear(&s->migration_timer, milliseconds);
}

static void set_limit_timer(void *context, unsigned int milliseconds)
{
	struct supervisor *s = context;

	set_or_clear(&s->limit_timer, milliseconds);
}

static void limit_timer_fired(void *context)
{
	struct supervisor *s = context;

	migration_limit_timer(&s->migration);
}

static void timer_fired(void *context)
{
	struct supervisor *s = context;

	migration_timer(&s->migration);
}

static void say(void *context, const char *text)
{
	struct supervisor *s = context;

	if (control_watched(s->control))
		control_tell(s->control, json_pack("{s:s, s:o}", "event", "message",
						   "text", jsonl_string(text)), false);
	if (s->waiting)
		print_and_free(s->waiting, text_format("%s\n", text));
	else
		log_later(s, LOG_LEVEL_INFO, text_copy(text));
}

static void done(void *context)
{
	struct supervisor *s = context;
	struct monitor *monitor = s->waiting;

	if (!migration_active(&s->migration))
		tell_watchers(s, "end");
	s->waiting = NULL;
	if (monitor)
		monitor_ready(monitor);		/* may bring the next command */
}

static void machine_log(void *context, const char *name, const char *details)
{
	log_event(context, 0, name, details);
	if (!strcmp(name, "STATE"))
		tell_watchers(context, "state");
}

/* Where it cannot be, the kernel is left to do it in its own time. */
static void collapse(void *context)
{
	struct supervisor *s = context;
	pid_t pid;

	if (!s->qemu || s->collapse)
		return;
	pid = collapse_start(s->qemu, s->host->region_fds, s->host->nr_regions);
	if (pid > 0)
		s->collapse = pid;
}

static void give_up(void *context, const char *reason)
{
	struct supervisor *s = context;

	log_later(s, LOG_LEVEL_ERROR, text_format("the guest does not come: %s", reason));
	s->gave_up = true;
	quit_qemu(s, true);
}

/* Nothing is to be adopted before QEMU is there, or after it. */
static char *save_record(void *context)
{
	struct supervisor *s = context;
	json_t *record;
	char *why;

	if (!s->record_path || !s->qemu)
		return NULL;
	record = adopt_record(s->options, s->host, &s->migration, s->qemu,
			      s->umemd ? umemd_pid(s->umemd) : 0, s->qmp_path);
	why = record_write(s->record_path, record);
	json_decref(record);
	return why;
}

static const struct migration_ops migration_ops = {
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
	.log = machine_log,
	.collapse = collapse,
	.give_up = give_up,
	.now_us = wall_clock_us,
	.save = save_record,
};

/* ---- lines from monitors ---- */

static void answer(struct monitor *monitor, const char *text)
{
	if (text)
		print_and_free(monitor, text_format("%s\n", text));
	monitor_ready(monitor);
}

/* human-monitor-command gives lines ended for a terminal. */
static char *without_returns(const char *text)
{
	char *copy = text_copy(text), *to = copy;

	for (const char *from = text; *from; from++) {
		if (*from != '\r')
			*to++ = *from;
	}
	*to = '\0';
	return copy;
}

/* QEMU says nothing to a migrate that it does, or that it does not wait for the end. */
static bool has_begun(const char *text)
{
	return text && (!*text || strstr(text, "continuing detached"));
}

/* Those that QEMU does not have. */
static void print_parameters(struct supervisor *s, struct monitor *monitor)
{
	print_and_free(monitor,
		       text_format(HMP_URGENT_CHANNELS ": %u\n" HMP_PAUSED_LIMIT ": %u seconds\n"
				   HMP_LOST_SOURCE ": %s\n", s->migration.urgent_channels,
				   s->migration.paused_limit,
				   s->migration.poison_lost ? "poison" : "wait"));
}

static void line_answered(void *context, json_t *result, const char *error)
{
	struct passed_line *line = context;
	const char *text = json_string_value(result);

	if (error && line->supervisor->qmp_ready)
		print_and_free(line->monitor, text_format("Error: %s\n", error));
	else if (text)
		print_and_free(line->monitor, without_returns(text));
	if (!error && (line->command.kind == HMP_HELP || line->command.kind == HMP_HELP_MIGRATE))
		monitor_print(line->monitor, hmp_help());
	if (!error && line->command.kind == HMP_INFO_PARAMETERS)
		print_parameters(line->supervisor, line->monitor);
	if (line->command.kind == HMP_PARAMETER && text && !*text)
		migration_parameters_changed(&line->supervisor->migration);
	if (line->command.kind == HMP_CPU && text && !*text)
		*monitor_cpu(line->monitor) = line->command.cpu;
	if (line->command.kind == HMP_GUARDED && !strcmp(line->command.word, "migrate") &&
	    has_begun(text))
		line->supervisor->qemus_own_migration = true;
	monitor_ready(line->monitor);
	free(line);
}

static void pass_line(struct supervisor *s, struct monitor *monitor, const char *text,
		      const struct hmp_command *command)
{
	struct passed_line *line = memory_or_exit(calloc(1, sizeof(*line)));
	json_t *arguments = json_object();
	json_t *string = json_string(text);
	int cpu = *monitor_cpu(monitor);

	if (!string) {		/* not UTF-8 */
		free(line);
		json_decref(arguments);
		return answer(monitor, "the line is not UTF-8 text, wanted that");
	}
	*line = (struct passed_line){ .supervisor = s, .monitor = monitor, .command = *command };
	json_object_set_new(arguments, "command-line", string);
	if (cpu >= 0)
		json_object_set_new(arguments, "cpu-index", json_integer(cpu));
	qmp_execute(&s->qmp, "human-monitor-command", arguments, -1, line_answered, line);
	watch_qmp(s);
}

/* The machine has taken a command, or says why not. It may be done with it already. */
static void taken(struct monitor *monitor, const char *name, char *why)
{
	if (!why)
		return;
	print_and_free(monitor, text_format("%s: %s\n", name, why));
	free(why);
	monitor_ready(monitor);
}

static void run_migrate(struct supervisor *s, struct monitor *monitor,
			const struct hmp_command *command)
{
	char *why = command_migrate(s, command, command->detach ? NULL : monitor);

	if (!why && command->detach)
		return monitor_ready(monitor);
	taken(monitor, "migrate", why);
}

static void run_incoming(struct supervisor *s, struct monitor *monitor,
			 const struct hmp_command *command)
{
	char *why;

	if (s->waiting)
		return answer(monitor, "migrate_incoming: another monitor waits for a migration");
	s->waiting = monitor;
	why = migration_listen(&s->migration, command->uri);
	if (why)
		s->waiting = NULL;
	taken(monitor, "migrate_incoming", why);
}

/* It was done at once, or could not be. */
static void obeyed(struct monitor *monitor, const char *name, char *why)
{
	if (why)
		print_and_free(monitor, text_format("%s: %s\n", name, why));
	free(why);
	monitor_ready(monitor);
}

/* The migration that the monitor speaks of is umem's. */
static bool is_ours(const struct supervisor *s)
{
	return migration_exists(&s->migration) && !s->qemus_own_migration;
}

static void run_start_postcopy(struct supervisor *s, struct monitor *monitor, const char *text,
			       const struct hmp_command *command)
{
	if (s->qemus_own_migration)
		return pass_line(s, monitor, text, command);
	obeyed(monitor, "migrate_start_postcopy", migration_start_postcopy(&s->migration));
}

static void run_postcopy_ram(struct supervisor *s, struct monitor *monitor, const char *text,
			     const struct hmp_command *command)
{
	if (migration_hold_postcopy_ram(&s->migration, command->on))
		monitor_ready(monitor);
	else
		pass_line(s, monitor, text, command);
}

static void run_cancel(struct supervisor *s, struct monitor *monitor, const char *text,
		       const struct hmp_command *command)
{
	if (!migration_active(&s->migration) && !s->migration.moved)
		return pass_line(s, monitor, text, command);
	obeyed(monitor, "migrate_cancel", command_cancel(s));
}

static void run_pause(struct supervisor *s, struct monitor *monitor, const char *text,
		      const struct hmp_command *command)
{
	if (is_ours(s))
		obeyed(monitor, "migrate_pause", migration_pause(&s->migration));
	else
		pass_line(s, monitor, text, command);
}

static void run_guarded(struct supervisor *s, struct monitor *monitor, const char *text,
			const struct hmp_command *command)
{
	char *why;

	if (migration_guard(&s->migration, command, &why))
		return pass_line(s, monitor, text, command);
	answer(monitor, why);
	free(why);
}

static void run_recover(struct supervisor *s, struct monitor *monitor, const char *text,
			const struct hmp_command *command)
{
	struct hmp_command guarded = *command;

	if (is_ours(s) && *command->error)
		return answer(monitor, command->error);
	if (is_ours(s))
		return obeyed(monitor, command->word, command_recover(s, command));
	guarded.kind = HMP_GUARDED;
	run_guarded(s, monitor, text, &guarded);
}

static void run_info(struct supervisor *s, struct monitor *monitor, const char *text,
		     const struct hmp_command *command)
{
	json_t *info;

	if (!is_ours(s))
		return pass_line(s, monitor, text, command);
	info = command_info(s);
	print_and_free(monitor, report_text(info));
	json_decref(info);
	monitor_ready(monitor);
}

/* During a switchover the capability is off as well: what stands in the way comes first. */
static void run_qemus_migrate(struct undecided_line *line)
{
	char *why;

	line->command.kind = HMP_GUARDED;
	if (!migration_guard(&line->supervisor->migration, &line->command, &why)) {
		answer(line->monitor, why);
		free(why);
	} else if (line->command.ours) {
		answer(line->monitor, "migrate: -m, forward and backward are umem's, and capability postcopy-ram is off, wanted it on (migrate_set_capability postcopy-ram on), or -p");
	} else {
		pass_line(line->supervisor, line->monitor, line->text, &line->command);
	}
}

static void capabilities_told(void *context, json_t *result, const char *error)
{
	struct undecided_line *line = context;

	if (error)
		answer(line->monitor, line->supervisor->qmp_ready ? error : NULL);
	else if (!migration_postcopy_ram(result))
		run_qemus_migrate(line);
	else if (*line->command.error)
		answer(line->monitor, line->command.error);
	else
		run_migrate(line->supervisor, line->monitor, &line->command);
	free(line->text);
	free(line);
}

static void run_migrate_either(struct supervisor *s, struct monitor *monitor, const char *text,
			       const struct hmp_command *command)
{
	struct undecided_line *line = memory_or_exit(calloc(1, sizeof(*line)));

	*line = (struct undecided_line){
		.supervisor = s,
		.monitor = monitor,
		.text = text_copy(text),
		.command = *command,
	};
	qmp_execute(&s->qmp, "query-migrate-capabilities", NULL, -1, capabilities_told, line);
	watch_qmp(s);
}

static void monitor_line(void *context, struct monitor *monitor, const char *text)
{
	struct supervisor *s = context;
	struct hmp_command command;

	if (!s->qmp_ready)
		return;		/* QEMU has ended: there is nobody to obey any more */
	hmp_parse(&command, text, s->options->postcopy);
	switch (command.kind) {
	case HMP_EMPTY:
		return monitor_ready(monitor);
	case HMP_ERROR:
		return answer(monitor, command.error);
	case HMP_MIGRATE:
		return run_migrate(s, monitor, &command);
	case HMP_MIGRATE_EITHER:
		return run_migrate_either(s, monitor, text, &command);
	case HMP_START_POSTCOPY:
		return run_start_postcopy(s, monitor, text, &command);
	case HMP_POSTCOPY_RAM:
		return run_postcopy_ram(s, monitor, text, &command);
	case HMP_CHANNELS:
		migration_set_urgent_channels(&s->migration, command.channels);
		return monitor_ready(monitor);
	case HMP_PAUSED_LIMIT_IS:
		migration_set_paused_limit(&s->migration, command.seconds);
		return monitor_ready(monitor);
	case HMP_INCOMING:
		return run_incoming(s, monitor, &command);
	case HMP_CANCEL:
		return run_cancel(s, monitor, text, &command);
	case HMP_PAUSE:
		return run_pause(s, monitor, text, &command);
	case HMP_RECOVER:
		return run_recover(s, monitor, text, &command);
	case HMP_GIVE_UP:
		obeyed(monitor, "migrate_give_up", migration_give_up(&s->migration));
		return;
	case HMP_LOST_SOURCE_IS:
		migration_set_lost_source(&s->migration, command.on);
		return monitor_ready(monitor);
	case HMP_INFO_MIGRATE:
		return run_info(s, monitor, text, &command);
	case HMP_CONT:
	case HMP_STOP:
	case HMP_GUARDED:
		return run_guarded(s, monitor, text, &command);
	default:
		return pass_line(s, monitor, text, &command);
	}
}

static int open_monitors(struct supervisor *s)
{
	char *error = NULL;

	for (size_t i = 0; i < s->options->nr_monitors; i++) {
		const struct monitor_option *option = &s->options->monitors[i];

		if (option->kind == MONITOR_STDIO)
			s->monitors[i] = monitor_open_stdio(monitor_line, s);
		else
			s->monitors[i] = monitor_open_unix(option->path, option->wait,
							   monitor_line, s, &error);
		if (!s->monitors[i]) {
			log_error("-monitor unix:%s", error);
			free(error);
			return -1;
		}
	}
	return 0;
}

static void close_monitors(struct supervisor *s)
{
	for (size_t i = 0; i < OPTIONS_MONITORS_MAX; i++) {
		if (s->monitors[i])
			monitor_close(s->monitors[i]);
		s->monitors[i] = NULL;
	}
}

/* ---- QMP ---- */

static void write_record(struct supervisor *s)
{
	char *why = save_record(s);

	if (why)
		log_later(s, LOG_LEVEL_WARNING, why);
}

/* The other's umemd is alone, and knows nothing that its successor is not told. */
static void adopt_migration(struct supervisor *s)
{
	char *why = s->migration.phase == PHASE_END ? NULL : adopt_end_umemd(s->adoption);

	if (why)
		log_later(s, LOG_LEVEL_WARNING, why);
	write_record(s);
	if (strcmp(s->record_path, s->adoption->path))
		unlink(s->adoption->path);
	migration_adopted(&s->migration);
}

static void qmp_is_ready(void *context, const char *error)
{
	struct supervisor *s = context;
	bool deferred = s->options->incoming && !strcmp(s->options->incoming, "defer");
	char *why;

	if (error) {
		log_error("QMP: QEMU refuses qmp_capabilities: %s", error);
		return quit_qemu(s, true);
	}
	s->qmp_ready = true;
	if (!s->adoption && s->options->postcopy) {
		migration_expect(&s->migration, deferred, s->options->paused);
		if (!deferred) {
			why = migration_listen(&s->migration, s->options->incoming);
			free(why);	/* nothing else can have been started */
		}
	}
	write_record(s);
	for (size_t i = 0; i < s->options->nr_monitors; i++)
		monitor_start(s->monitors[i]);
}

static void qmp_event(void *context, const struct qmp_event *event)
{
	static const char *const logged[] = {
		"STOP", "RESUME", "SHUTDOWN", "RESET", "POWERDOWN", "GUEST_PANICKED",
	};
	struct supervisor *s = context;
	const char *status = json_string_value(json_object_get(event->data, "status"));
	const char *reason = json_string_value(json_object_get(event->data, "reason"));
	char *details = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(logged); i++) {
		if (strcmp(event->name, logged[i]))
			continue;
		details = reason ? text_format("reason=%s", reason) : NULL;
		log_event(s, event->time_us, event->name, details);
	}
	if (!strcmp(event->name, "MIGRATION") && status) {
		details = text_format("status=%s", status);
		log_event(s, event->time_us, event->name, details);
	}
	free(details);
	migration_qemu_event(&s->migration, event->name, event->data, event->time_us);
}

static const struct qmp_ops qmp_ops = { .ready = qmp_is_ready, .event = qmp_event };

static void qmp_io(void *context, short revents)
{
	struct supervisor *s = context;

	if (revents & POLLOUT)
		qmp_flush(&s->qmp);
	/* SIGCHLD tells what became of QEMU. */
	if ((revents & (POLLIN | POLLHUP | POLLERR)) && qmp_receive(&s->qmp) <= 0)
		loop_forget(s->qmp_fd);
	else
		watch_qmp(s);
}

static void watch_qmp(struct supervisor *s)
{
	loop_events(s->qmp_fd, POLLIN | (qmp_unsent(&s->qmp) ? POLLOUT : 0));
}

/* ---- processes ---- */

static void forget_place(struct supervisor *s)
{
	free(s->record_path);
	free(s->qmp_path);
	s->record_path = s->qmp_path = NULL;
}

static void qemu_ended(struct supervisor *s, const char *how, int exit_status)
{
	while (qmp_receive(&s->qmp) == 1) {
		struct pollfd pollfd = { .fd = s->qmp_fd, .events = POLLIN };

		if (poll(&pollfd, 1, 0) <= 0)
			break;
	}
	s->qemu = 0;
	s->qmp_ready = false;
	s->qemu_status = exit_status;
	log_event(s, 0, "QEMU-ENDED", how);
	migration_qemu_gone(&s->migration, how);
	loop_forget(s->qmp_fd);
	loop_timer_clear(&s->quit_timer);
	qmp_destroy(&s->qmp);
	close(s->qmp_fd);
	close_monitors(s);
	if (migration_serving(&s->migration))
		log_later(s, LOG_LEVEL_INFO,
			  text_copy("QEMU has ended, the destination still needs its memory: waiting for that; umemd also does it alone, if you end umem-qemu, but is not started again then"));
}

static void child_qemu_ended(struct supervisor *s, int status)
{
	char *how = child_ended(status);

	qemu_ended(s, how, child_exit_status(status));
	free(how);
}

static void adopted_qemu_ended(void *context, short revents)
{
	struct supervisor *s = context;

	(void)revents;
	loop_forget(s->adoption->qemu_fd);
	qemu_ended(s, "ended", 0);	/* only its parent could know how */
}

static void collapse_ended(struct supervisor *s, int status)
{
	s->collapse = 0;
	if (!child_exit_status(status))
		log_event(s, 0, "COLLAPSED", NULL);
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->qemu) {
			child_qemu_ended(s, status);
			continue;
		}
		if (pid == s->collapse) {
			collapse_ended(s, status);
			continue;
		}
		for (size_t i = 0; i < UMEMDS_MAX; i++) {
			if (s->umemds[i] && umemd_pid(s->umemds[i]) == pid) {
				umemd_reaped(s->umemds[i], status);
				break;
			}
		}
	}
}

static void signal_came(void *context, short revents)
{
	struct supervisor *s = context;
	struct signalfd_siginfo info;

	(void)revents;
	if (read(s->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD)
		reap(s);
	else if (s->qemu)
		quit_qemu(s, false);
	else
		s->leave = true;
}

static int catch_signals(struct supervisor *s)
{
	struct sigaction hangup;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	/* A blocked signal is told even if nohup had it ignored. */
	if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler != SIG_IGN)
		sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0) {
		log_error("signalfd: %s", strerror(errno));
		return -1;
	}
	loop_watch(s->signal_fd, POLLIN, signal_came, s);
	return 0;
}

static bool uses_stdin(const struct options *options)
{
	for (size_t i = 0; i < options->nr_monitors; i++) {
		if (options->monitors[i].kind == MONITOR_STDIO)
			return true;
	}
	return false;
}

/* Both ends of a connection: of one that another can make again, or at least of one. */
static int open_qmp(struct supervisor *s, int pair[2])
{
	char *error = NULL;

	if (s->qmp_path) {
		pair[1] = runtime_listen(s->qmp_path, true, &error);
		pair[0] = pair[1] < 0 ? -1 : runtime_connect(s->qmp_path);
		if (pair[0] >= 0) {
			fcntl(pair[0], F_SETFD, FD_CLOEXEC);
			return 0;
		}
		if (pair[1] >= 0)
			close(pair[1]);
		log_warning("nobody can adopt this QEMU: QMP at %s: %s", s->qmp_path,
			    error ? error : strerror(-pair[0]));
		free(error);
		forget_place(s);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		log_error("no socket pair for QMP: %s", strerror(errno));
		return -1;
	}
	fcntl(pair[1], F_SETFL, 0);
	return 0;
}

static void speak_qmp(struct supervisor *s, int fd)
{
	s->qmp_fd = fd;
	qmp_init(&s->qmp, fd, &qmp_ops, s);
	loop_watch(fd, POLLIN, qmp_io, s);
}

static int start_qemu(struct supervisor *s)
{
	int fds[OPTIONS_REGIONS_MAX + 1], pair[2];
	struct child_setup child = {
		.path = s->host->qemu,
		.fds = fds,
		.nr_fds = s->host->nr_regions + 1,
		.no_input = uses_stdin(s->options),
		/* What ends umem-qemu at a terminal does not end QEMU, unless that reads it. */
		.own_session = uses_stdin(s->options),
	};
	pid_t pid;

	if (open_qmp(s, pair))
		return -1;
	memcpy(fds, s->host->region_fds, s->host->nr_regions * sizeof(*fds));
	fds[s->host->nr_regions] = pair[1];
	child.argv = options_qemu_argv(s->options, s->host->qemu, s->host->region_fds, pair[1],
				       s->qmp_path);
	pid = child_start(&child);
	options_free_argv(child.argv);
	close(pair[1]);
	if (pid < 0) {
		log_error("%s cannot be started: %s", s->host->qemu, strerror(-pid));
		close(pair[0]);
		return -1;
	}
	s->qemu = pid;
	speak_qmp(s, pair[0]);
	return 0;
}

static int adopt_qemu(struct supervisor *s)
{
	int fd = runtime_connect(s->qmp_path);

	if (fd < 0) {
		log_error("--adopt %s: QMP of QEMU (pid %d) at %s: %s", s->options->adopt, s->qemu,
			  s->qmp_path, strerror(-fd));
		return -1;
	}
	loop_watch(s->adoption->qemu_fd, POLLIN, adopted_qemu_ended, s);
	speak_qmp(s, fd);
	adopt_migration(s);
	return 0;
}

/* Where the record is to be, and QEMU to listen. */
static void find_place(struct supervisor *s)
{
	char *folders[RUNTIME_FOLDERS_MAX], *error = NULL;
	size_t nr = runtime_folders(folders);

	for (size_t i = 0; i < nr; i++) {
		if (!s->record_path) {
			free(error);
			error = NULL;
			if (!runtime_make(folders[i], &error)) {
				s->record_path = runtime_file(folders[i], getpid(), RUNTIME_RECORD);
				s->qmp_path = runtime_file(folders[i], getpid(), RUNTIME_QMP);
			}
		}
		free(folders[i]);
	}
	if (!s->record_path)
		log_warning("nobody can adopt this QEMU: %s", error);
	free(error);
}

/* Beside the other's, which is QEMU's place for good. */
static char *take_place(struct supervisor *s)
{
	const char *qmp = json_string_value(json_object_get(s->adoption->record, "qmp"));
	char *folder = text_copy(s->adoption->path);
	char *why;

	s->qemu = process_pid(json_object_get(s->adoption->record, "qemu"));
	s->qmp_path = text_copy(qmp ? qmp : "");
	*strrchr(folder, '/') = '\0';
	s->record_path = runtime_file(folder, getpid(), RUNTIME_RECORD);
	free(folder);
	why = saved_decode(&s->migration, json_object_get(s->adoption->record, "migration"));
	if (why)
		log_error("--adopt %s: %s", s->options->adopt, why);
	return why;
}

static bool umemds_left(const struct supervisor *s)
{
	for (size_t i = 0; i < UMEMDS_MAX; i++) {
		if (s->umemds[i])
			return true;
	}
	return false;
}

/* QEMU has ended, or never was: there is nothing to adopt. */
static void leave_place(struct supervisor *s)
{
	if (s->record_path)
		unlink(s->record_path);
	if (s->qmp_path)
		unlink(s->qmp_path);
	forget_place(s);
}

/* Our child, or one to adopt. Return: 0, or -1: that was told. */
static int begin(struct supervisor *s)
{
	char *why;

	if (!s->adoption) {
		find_place(s);
		return start_qemu(s);
	}
	why = take_place(s);
	if (!why)
		return adopt_qemu(s);
	free(why);
	return -1;
}

int supervisor_run(const struct options *options, const struct host *host,
		   const struct adoption *adoption)
{
	struct supervisor s = {
		.options = options,
		.host = host,
		.adoption = adoption,
		.stream_fd = -1,
		.listener = { .fd = -1 },
		.migration_timer = { .fn = timer_fired, .context = &s },
		.limit_timer = { .fn = limit_timer_fired, .context = &s },
		.quit_timer = { .fn = signal_qemu, .context = &s },
	};

	for (size_t i = 0; i < options->nr_regions; i++)
		s.region_names[i] = options->regions[i].name;
	s.lines_end = &s.lines;
	migration_init(&s.migration, &migration_ops, &s, s.region_names, options->nr_regions);

	/* What it does takes little, but a guest may be stopped until it is done. */
	child_hurry(0);
	if (options->foreign_monitor)
		log_warning("-monitor %s is QEMU's own: it does not know umem's migrate; stdio and unix: do",
			    options->foreign_monitor);
	if (catch_signals(&s) || open_monitors(&s) || open_control(&s) || begin(&s)) {
		close_monitors(&s);
		control_close(s.control);
		if (adoption)
			forget_place(&s);
		else
			leave_place(&s);
		migration_destroy(&s.migration);
		return 1;
	}
	while (!s.leave && (s.qemu || umemds_left(&s) || migration_serving(&s.migration)))
		loop_once();

	end_collapse(&s);
	while (s.lines)
		write_line(&s);
	control_close(s.control);
	migration_destroy(&s.migration);
	close_stream(&s);
	socket_unlisten(&s.listener);
	leave_place(&s);
	return s.gave_up ? 1 : s.qemu_status;
}
