/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of umemctl. */
#ifndef UMEMCTL_OPTIONS_H
#define UMEMCTL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum ctl_command {
	CTL_LIST,
	CTL_MIGRATE,
	CTL_START_POSTCOPY,
	CTL_CANCEL,
	CTL_PAUSE,
	CTL_RECOVER,
	CTL_RESTART_PAGER,
	CTL_GIVE_UP,
	CTL_GONE,
	CTL_SET,
	CTL_INFO,
	CTL_SHOW,
	CTL_STAT,
	CTL_EVENTS,
	CTL_HELP,
	CTL_VERSION,
};

/**
 * struct options - the command line, understood; strings are argv's
 * @guest: --guest, or NULL
 * @json: --json
 * @at_once: migrate: -p
 * @no_push: migrate: -n
 * @follow: migrate: -m
 * @detach: migrate: -d
 * @uri: migrate, recover; NULL: there is none
 * @value: set: of lost-source
 * @region: show, stat: an id or a name; NULL: all
 * @forward: migrate: pages, -1: not given
 * @backward: migrate: pages, -1: not given
 */
struct options {
	enum ctl_command command;
	const char *guest;
	bool json;
	bool at_once;
	bool no_push;
	bool follow;
	bool detach;
	const char *uri;
	const char *value;
	const char *region;
	int64_t forward;
	int64_t backward;
};

/**
 * options_parse - understand a command line
 * @argc: as main() got it
 * @argv: as main() got it; its order changes
 * @error: on failure a sentence, the caller's
 *
 * Return: 0, or -EINVAL.
 */
int options_parse(struct options *options, int argc, char **argv, char **error);

/**
 * options_help - the text of --help, the caller's
 */
char *options_help(void);

#endif
