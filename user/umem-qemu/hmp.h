/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines typed at the monitor: which of them are umem's, the others are QEMU's. */
#ifndef UMEM_QEMU_HMP_H
#define UMEM_QEMU_HMP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/uri.h"

#define HMP_PREFAULT_MAX	65536u
/*
 * Pages sent along after and before each requested one if migrate -p does not say.
 * The longest gap of a guest rewriting its memory was 1.6 s with 8 and 8, 1.4 s
 * with 16 and 16, 2.5 s with 32 and 0, 3.4 s with none (medians of 3 between two
 * hosts of the lab); the time to the end was the same.
 */
#define HMP_PREFAULT_DEFAULT	8u
#define HMP_URGENT_CHANNELS	"urgent-channels"	/* a parameter that QEMU does not have */
#define HMP_URGENT_CHANNELS_MAX	16u
#define HMP_LOST_SOURCE		"lost-source"		/* another one */
#define HMP_PAUSED_LIMIT	"paused-limit"		/* and another */
#define HMP_PAUSED_LIMIT_MAX	1000000u		/* seconds */
#define HMP_ERROR_MAX		(URI_ERROR_MAX + 128)

enum hmp_kind {
	HMP_EMPTY,
	HMP_PASS,		/* for QEMU as it is */
	HMP_MIGRATE,		/* migrate -p */
	HMP_MIGRATE_EITHER,	/* migrate: ours if capability postcopy-ram is on, else QEMU's */
	HMP_START_POSTCOPY,	/* migrate_start_postcopy */
	HMP_INCOMING,		/* migrate_incoming */
	HMP_CANCEL,		/* migrate_cancel */
	HMP_PAUSE,		/* migrate_pause */
	HMP_RECOVER,		/* migrate_recover, migrate -r */
	HMP_GIVE_UP,		/* migrate_give_up */
	HMP_INFO_MIGRATE,
	HMP_INFO_PARAMETERS,	/* QEMU's and ours */
	HMP_CONT,
	HMP_STOP,
	HMP_GUARDED,		/* for QEMU, unless the guest is on its way elsewhere */
	HMP_PARAMETER,		/* for QEMU, which keeps it; umem goes by it, too */
	HMP_CHANNELS,		/* migrate_set_parameter urgent-channels */
	HMP_PAUSED_LIMIT_IS,	/* migrate_set_parameter paused-limit */
	HMP_LOST_SOURCE_IS,	/* migrate_set_parameter lost-source */
	HMP_POSTCOPY_RAM,	/* migrate_set_capability postcopy-ram */
	HMP_CPU,		/* cpu N: the following commands are about that one */
	HMP_HELP,		/* help: QEMU's and ours */
	HMP_HELP_MIGRATE,	/* help about a command of ours */
	HMP_ERROR,
};

/**
 * struct hmp_command - a line, understood
 * @word: its first word, for messages
 * @detach: migrate: -d
 * @precopy: migrate: not -p
 * @no_push: migrate: -n
 * @follow: migrate: -m
 * @ours: HMP_MIGRATE_EITHER: QEMU does not know a part of it
 * @forward: migrate: pages sent after each requested one
 * @backward: migrate: pages sent before it
 * @compress: migrate: not typed with it, QEMU's multifd-compression is zstd
 * @on: HMP_POSTCOPY_RAM; HMP_LOST_SOURCE_IS: poison
 * @channels: HMP_CHANNELS
 * @seconds: HMP_PAUSED_LIMIT_IS
 * @cpu: HMP_CPU
 * @uri: migrate, HMP_INCOMING, HMP_RECOVER; empty: there is none
 * @error: HMP_ERROR: a sentence; HMP_MIGRATE_EITHER, HMP_RECOVER: why umem could not, or empty
 */
struct hmp_command {
	enum hmp_kind kind;
	char word[32];
	bool detach;
	bool precopy;
	bool no_push;
	bool follow;
	bool ours;
	bool compress;
	bool on;
	unsigned int channels;
	unsigned int seconds;
	uint32_t forward;
	uint32_t backward;
	int cpu;
	char uri[URI_TEXT_MAX];
	char error[HMP_ERROR_MAX];
};

/**
 * hmp_parse - understand one line
 * @incoming: this umem-qemu waits for migrate_incoming, else that is QEMU's
 */
void hmp_parse(struct hmp_command *command, const char *line, bool incoming);

/**
 * hmp_init_migrate - a migrate with nothing said but -p
 */
void hmp_init_migrate(struct hmp_command *command);

/**
 * hmp_take_uri - give a command its URI
 * @name: of the command, for the message
 *
 * Return: false with @command's error filled if umem cannot take it.
 */
bool hmp_take_uri(struct hmp_command *command, const char *name, const char *text);

/**
 * hmp_take_lost_source - what is done when a source is lost
 *
 * Return: false if @text is neither wait nor poison.
 */
bool hmp_take_lost_source(const char *text, bool *poison);

/**
 * hmp_help - what umem adds to QEMU's help
 */
const char *hmp_help(void);

#endif
