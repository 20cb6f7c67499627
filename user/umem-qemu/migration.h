/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration of one guest, seen from either side: what QEMU and umemd are told
 * to do next. Nothing here has a descriptor or waits for anything: everything that
 * happens comes in through a function, everything to be done goes out through
 * struct migration_ops.
 *
 * Source                          Destination
 *
 * QUERY    how does QEMU stand    ARM      capabilities are set
 * ADVISE   umemd connects         WAIT     umemd waits for a source
 * PRECOPY  umemd sends rounds     ADVISE   a source came, QEMU gets the stream
 * PREPARE  QEMU gets the stream   LOAD     QEMU reads device state
 * STREAM   the guest runs, QEMU   READY    it is loaded, the source is told
 *          sends video RAM, ROMs
 * SWITCH   the guest is stopped
 * ------------------------- GO: the guest has moved --------------------------
 * AFTER    pages travel           AFTER    the guest runs, pages arrive
 * END      all pages are there    END
 *
 * PRECOPY is there without -p only. It lasts until little enough is dirty, which umemd
 * says, or the user wants no more of it; the guest may be paused and go on meanwhile.
 * With -p all that PREPARE is for begins in ADVISE.
 *
 * Whatever fails at the source before GO leads through UNDO: QEMU's migration is
 * cancelled, the guest goes on if it ran before, settings are as they were. From
 * GO on the source never lets the guest run again.
 *
 * From GO on, and at the destination from READY on, since GO may have been said, the
 * session outlives its umemd: another goes on with it, at once or, after migrate_pause,
 * when migrate_recover is typed.
 */
#ifndef UMEM_QEMU_MIGRATION_H
#define UMEM_QEMU_MIGRATION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "umem-qemu/hmp.h"

enum migration_role {
	MIGRATION_NONE,
	MIGRATION_SOURCE,
	MIGRATION_DESTINATION,
};

enum migration_phase {
	PHASE_IDLE,		/* no migration was ever made, or the last one is undone */
	PHASE_EXPECT,		/* destination: migration_listen() is to come */
	PHASE_QUERY,
	PHASE_ARM,
	PHASE_WAIT,
	PHASE_ADVISE,
	PHASE_PRECOPY,
	PHASE_PREPARE,
	PHASE_STREAM,
	PHASE_SWITCH,
	PHASE_LOAD,
	PHASE_READY,
	PHASE_AFTER,
	PHASE_END,
	PHASE_UNDO,
	PHASE_LOST,		/* destination: it cannot come to anything, QEMU is to quit */
};

/* Questions to QEMU whose answers the machine waits for. */
enum migration_question {
	ASK_STATUS,		/* query-status before anything is done */
	ASK_CAPABILITIES,	/* this, ASK_PARAMETERS and ASK_MEMORY: again after pre-copy */
	ASK_PARAMETERS,
	ASK_TLS,		/* qom-get: the next of the tls_properties[] */
	ASK_MEMORY,
	ASK_PARAMETERS_AGAIN,	/* somebody set one */
	ASK_RESTORE,		/* the parameters, to see which are to be set back */
	ASK_SET_CAPABILITIES,
	ASK_SET_PARAMETERS,
	ASK_GETFD,
	ASK_MIGRATE,
	ASK_INCOMING,
	ASK_CONTINUE,		/* migrate-continue */
	ASK_WHY,		/* query-migrate, for the words of a failure */
	ASK_WHO_STOPPED,	/* query-status after a STOP */
	ASK_CONT,		/* destination, after GO */
	ASK_ADOPTED,		/* after another umem-qemu: query-status */
	ASK_ADOPTED_STREAM,	/* and before GO at the source: query-migrate */
	ASK_CPUS,		/* destination: which threads are vCPUs, query-cpus-fast */
	ASK_UNDO_CANCEL,
	ASK_UNDO_STATUS,
	ASK_UNDO_CONT,
	ASK_NOTHING,		/* the answer does not matter */
};

struct migration_ops {
	/*
	 * NULL, or a sentence (the machine's from then on) why umemd cannot be started.
	 * @session: to go on with, as umemd wants it; NULL: a new one
	 */
	char *(*start_umemd)(void *context, enum migration_role role, const char *uri,
			     const struct hmp_command *command, json_t *session);
	void (*tell_umemd)(void *context, json_t *command);
	/* the guest has stopped and waits for umemd */
	void (*hurry_umemd)(void *context);
	/* umemd is of no more use: see that it ends */
	void (*stop_umemd)(void *context);
	/* umemd is about to end: see that it does; what it says still counts */
	void (*dismiss_umemd)(void *context);
	/* @with_stream: QEMU's end of the device state stream goes with the command */
	void (*ask_qemu)(void *context, enum migration_question question, const char *command,
			 json_t *arguments, bool with_stream);
	/* call migration_timer() later; replaces an earlier one; 0 stops it */
	void (*set_timer)(void *context, unsigned int milliseconds);
	/* the same, of migration_limit_timer() */
	void (*set_limit_timer)(void *context, unsigned int milliseconds);
	/* a line for whoever gave the command */
	void (*say)(void *context, const char *text);
	/* the command is over: whoever gave it may give the next */
	void (*done)(void *context);
	/* a line for the log, @name and what belongs to it */
	void (*log)(void *context, const char *name, const char *details);
	/* all of the guest's memory is here: it may be mapped by huge pages */
	void (*collapse)(void *context);
	/* the guest does not come: QEMU shall quit, the exit status is 1 */
	void (*give_up)(void *context, const char *reason);
	uint64_t (*now_us)(void *context);
	/* NULL, it is written down how things are; or why not, the machine's string */
	char *(*save)(void *context);
};

/**
 * struct migration - one guest's migration; fields are for reading
 * @paused: destination: the guest shall not start by itself
 * @running: source: the guest ran when it was stopped for this
 * @moved: GO was said: the guest is, or was, on the other side
 * @state: the design's word for how it stands, for people
 * @reason: why @state is failed, cancelled or paused
 * @paused_limit: destination: seconds to wait for a lost source, 0: any time
 * @limit_runs: it does so, and was told the timer
 * @limit_passed: and the timer has come
 * @held: after migrate_pause, there is no umemd until migrate_recover
 * @replacing: umemd was told to end, another follows at once
 * @erred: umemd has said why it ends
 * @restart_due: another is started when the timer has come
 * @restarts: how many were started after the first
 * @session: what umemd told of the session, for its successors; a secret
 * @totals: what umemds that have ended had counted, or NULL
 * @switch_soon: source: no more pre-copy than was made until now
 * @urgent_channels: source: how many umemd is to have
 * @poison_lost: destination: what lost-source says
 * @giving_up: destination: umemd was told to
 * @pages_gone: destination: that never arrive
 * @gone_ranges: destination: where they are: arrays of region's name, offset, length;
 *	NULL if none are gone, not all if they are very many
 * @tls: what umemd is told of TLS, see tls.h; NULL: there is to be none
 * @postcopy_held: destination: @postcopy_ram is set in QEMU once the guest is here
 * @stopped_us: source: when QEMU stopped the guest
 * @go_us: when GO was sent, or came
 * @resumed_us: destination: when QEMU started it
 */
struct migration {
	const struct migration_ops *ops;
	void *context;
	const char *const *regions;
	size_t nr_regions;

	enum migration_role role;
	enum migration_phase phase;
	struct hmp_command command;
	bool deferred;
	bool paused;

	bool running;
	bool moved;
	bool umemd_alive;
	bool umemd_ready;
	bool stream_offered;	/* QEMU was asked to take it */
	bool stream_taken;	/* and has */
	bool stream_given;	/* QEMU was asked to migrate, or to load */
	bool stream_over;	/* QEMU has done with it, well or not */
	bool device_state_done;	/* well */
	bool stream_received;	/* destination: umemd has given QEMU all of it */
	bool load_failed;	/* QEMU could not load it; the reason is to come */
	bool user_cancelled;
	bool switch_soon;
	unsigned int undo_tries;

	unsigned int paused_limit;
	bool limit_runs, limit_passed;
	bool held;
	bool replacing;
	bool erred;
	bool restart_due;
	unsigned int restart_ms;	/* the last pause before a start */
	unsigned int restarts;
	uint64_t umemd_started_us;
	json_t *session;
	json_t *totals;

	unsigned int urgent_channels;
	json_t *capabilities;	/* as the user has them, to be set again */
	json_t *parameters;
	bool capabilities_changed, parameters_changed;
	json_t *tls;
	size_t tls_known;	/* how many of its properties */
	bool postcopy_held, postcopy_ram;
	bool poison_lost, giving_up;
	uint64_t pages_gone;
	json_t *gone_ranges;

	const char *state;
	char *reason;
	uint64_t started_us, ended_us, stopped_us, go_us, resumed_us;
	json_t *progress;	/* umemd's last event of that name, or NULL */
	json_t *cpus;		/* destination: what ASK_CPUS gave, or NULL */
};

/**
 * migration_init - a guest that is going nowhere
 * @regions: their names, kept, not copied
 */
void migration_init(struct migration *migration, const struct migration_ops *ops, void *context,
		    const char *const *regions, size_t nr_regions);
void migration_destroy(struct migration *migration);

/**
 * migration_start - the user wants the guest elsewhere
 * @command: with -p, or with pre-copy
 *
 * Return: NULL, and done() follows some time; or why not, the caller's string.
 */
char *migration_start(struct migration *migration, const struct hmp_command *command);

/**
 * migration_listen - become a destination
 * @uri: where umemd shall listen, tcp:
 *
 * After migration_expect().
 *
 * Return: NULL, or why not, the caller's string.
 */
char *migration_listen(struct migration *migration, const char *uri);

/**
 * migration_expect - become a destination that has no address yet
 * @deferred: the user gives it, and may try again when it is no good
 * @paused: -S was given
 */
void migration_expect(struct migration *migration, bool deferred, bool paused);

/**
 * migration_start_postcopy - the user typed migrate_start_postcopy
 *
 * Return: NULL, the switchover begins as soon as umemd is connected; or why not, the
 * caller's string.
 */
char *migration_start_postcopy(struct migration *migration);

/**
 * migration_cancel - the user typed migrate_cancel
 *
 * Return: NULL, or why not, the caller's string.
 */
char *migration_cancel(struct migration *migration);

/**
 * migration_pause - the user typed migrate_pause
 *
 * Return: NULL, or why not, the caller's string.
 */
char *migration_pause(struct migration *migration);

/**
 * migration_recover - the user typed migrate_recover
 * @uri: where to connect, or to listen, from now on; NULL: where it was
 *
 * Return: NULL, or why not, the caller's string.
 */
char *migration_recover(struct migration *migration, const char *uri);

/**
 * migration_restart_umemd - put what is at umemd's path now in the place of the one that runs
 *
 * Return: NULL, or why not, the caller's string.
 */
char *migration_restart_umemd(struct migration *migration);

/**
 * migration_give_up - the user typed migrate_give_up: the source is lost for good
 *
 * Return: NULL, umemd poisons what is missing and ends; or why not, the caller's string.
 */
char *migration_give_up(struct migration *migration);

/**
 * migration_set_lost_source - umem's own parameter was set
 */
void migration_set_lost_source(struct migration *migration, bool poison);

/**
 * migration_source_lost - it was waited for as long as is allowed
 *
 * Gives it up if that is what lost-source says.
 */
void migration_source_lost(struct migration *migration);

/**
 * migration_active - a migration is under way that did not come to an end
 */
bool migration_active(const struct migration *migration);

/**
 * migration_exists - info migrate is about a migration of umem
 */
bool migration_exists(const struct migration *migration);

/**
 * migration_serving - the guest's memory is to be sent or brought still
 */
bool migration_serving(const struct migration *migration);

/**
 * migration_guard - may this line go to QEMU now
 * @answer: when it may not, what the user is told; the caller's
 *
 * Knows cont and stop: while QEMU cannot be asked they change what will be
 * done at the hand-over.
 *
 * Return: true if the line may go to QEMU.
 */
bool migration_guard(struct migration *migration, const struct hmp_command *command,
		     char **answer);

/**
 * migration_parameters_changed - a parameter of QEMU's that umem goes by was set
 */
void migration_parameters_changed(struct migration *migration);

/**
 * migration_set_urgent_channels - umem's own parameter was set
 */
void migration_set_urgent_channels(struct migration *migration, unsigned int channels);

/**
 * migration_set_paused_limit - umem's own parameter was set
 * @seconds: 0: no limit
 */
void migration_set_paused_limit(struct migration *migration, unsigned int seconds);

/**
 * migration_adopted - go on, in another umem-qemu, from what saved_decode() gave
 *
 * Before GO that is to undo the migration. QEMU need not answer yet: what it is asked waits.
 */
void migration_adopted(struct migration *migration);

/**
 * migration_postcopy_ram - is that capability on
 * @capabilities: QEMU's answer to query-migrate-capabilities
 */
bool migration_postcopy_ram(json_t *capabilities);

/**
 * migration_hold_postcopy_ram - keep a setting of that capability from QEMU for now
 *
 * A QEMU that waits for a guest refuses it beside x-ignore-shared, and where it cannot
 * have userfaultfd; umem's destination needs neither of QEMU's post-copy.
 *
 * Return: false if QEMU may be told.
 */
bool migration_hold_postcopy_ram(struct migration *migration, bool on);

void migration_qemu_reply(struct migration *migration, enum migration_question question,
			  json_t *result, const char *error);
void migration_qemu_event(struct migration *migration, const char *name, json_t *data,
			  uint64_t time_us);
/* QEMU ended, or closed its QMP connection. */
void migration_qemu_gone(struct migration *migration, const char *how);
void migration_umemd_event(struct migration *migration, json_t *event);
/* umemd has ended; @clean: with status 0 */
void migration_umemd_gone(struct migration *migration, const char *how, bool clean);
void migration_timer(struct migration *migration);
void migration_limit_timer(struct migration *migration);

#endif
