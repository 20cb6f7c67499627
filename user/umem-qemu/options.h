/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of umem-qemu: what is ours, what becomes a region, what QEMU gets. */
#ifndef UMEM_QEMU_OPTIONS_H
#define UMEM_QEMU_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_REGIONS_MAX	64
#define OPTIONS_MONITORS_MAX	8
#define OPTIONS_CONFIGS_MAX	8
#define OPTIONS_FLAG_TOUCH	1u	/* -postcopy-flags: touch pages after publishing */
#define OPTIONS_QMP_ID		"umem-qmp"

enum monitor_kind {
	MONITOR_STDIO,
	MONITOR_UNIX,
};

/**
 * struct monitor_option - a -monitor that umem-qemu serves itself
 * @path: MONITOR_UNIX: the socket
 * @wait: MONITOR_UNIX: QEMU starts only when a client has come
 */
struct monitor_option {
	enum monitor_kind kind;
	char *path;
	bool wait;
};

/**
 * struct region_option - a block of guest memory that is to be a region
 * @name: id of the memory backend, the region's name on the wire too
 * @length: bytes
 */
struct region_option {
	char *name;
	uint64_t length;
};

struct option_argument;

/**
 * struct options - the command line, understood
 * @qemu: --qemu; NULL when not given
 * @umemd: --umemd; NULL when not given
 * @postcopy: the guest comes from a umem source
 * @postcopy_flags: of OPTIONS_FLAG_*
 * @incoming: with @postcopy, where from; "defer" is possible
 * @paused: the user gave -S
 * @kvm: the option that demands KVM, NULL if none does
 * @stdio_user: the option by which QEMU itself reads standard input, NULL if none does
 * @name: -name of the guest; NULL when not given
 * @control: -control; NULL: the default
 * @no_control: -control none
 * @adopt: --adopt: whose QEMU; NULL when not given
 * @help: --help was given
 * @version: --version was given
 * @lists: QEMU is asked for a list and will start no guest (-cpu help)
 * @foreign_monitor: a -monitor that is left to QEMU, NULL if there is none
 * @configs: files of -readconfig, to be shown to options_check_config()
 */
struct options {
	char *qemu;
	char *umemd;
	bool postcopy;
	unsigned int postcopy_flags;
	char *incoming;
	bool paused;
	char *kvm;
	char *stdio_user;
	char *name;
	char *control;
	bool no_control;
	char *adopt;
	bool help;
	bool version;
	bool lists;
	char *foreign_monitor;
	struct region_option regions[OPTIONS_REGIONS_MAX];
	size_t nr_regions;
	struct monitor_option monitors[OPTIONS_MONITORS_MAX];
	size_t nr_monitors;
	char *configs[OPTIONS_CONFIGS_MAX];
	size_t nr_configs;
	struct option_argument *arguments;
	size_t nr_arguments;
};

/**
 * options_parse - understand a command line
 * @argc: as main() got it
 * @argv: as main() got it
 * @error: on failure a sentence naming the option, what it got and what it wants
 *
 * Return: 0, or -EINVAL. options_destroy() is due in both cases.
 */
int options_parse(struct options *options, int argc, char **argv, char **error);
void options_destroy(struct options *options);

/**
 * options_qemu_argv - the command line for QEMU
 * @program: argv[0]
 * @region_fds: a descriptor for each region, in their order
 * @qmp_fd: QEMU's end of the QMP connection, or -1
 * @qmp_listens: it is a socket at which QEMU is to listen for that
 *
 * Return: a NULL-terminated array, to be freed by options_free_argv().
 */
char **options_qemu_argv(const struct options *options, const char *program,
			 const int *region_fds, int qmp_fd, bool qmp_listens);
void options_free_argv(char **argv);

/**
 * options_check_config - a file of -readconfig must not describe memory
 * @path: its name, for the message
 * @text: its contents
 * @error: on failure a sentence, the caller's
 *
 * Nobody would make a region of it.
 *
 * Return: 0, or -EINVAL.
 */
int options_check_config(const char *path, const char *text, char **error);

/**
 * options_help - the text of --help
 */
const char *options_help(void);

#endif
