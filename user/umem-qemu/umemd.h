/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pager: its command line, its process, its control connection. */
#ifndef UMEM_QEMU_UMEMD_H
#define UMEM_QEMU_UMEMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/jsonl.h"
#include "umem-qemu/loop.h"
#include "umem-qemu/migration.h"
#include "umem-qemu/options.h"

/**
 * struct umemd_setup - what umemd is started with
 * @path: the program
 * @role: source or destination
 * @uri: where the other side is, or where to listen; the descriptor of fd:NUMBER is
 *	umemd's once it was started
 * @claimed: that descriptor was set aside for it when umem-qemu began
 * @command: MIGRATION_SOURCE: pre-copy, prefault, push and compression
 * @tls: what tls_check() found good; NULL: without TLS
 * @touch: MIGRATION_DESTINATION: touch pages after publishing
 * @listener: MIGRATION_DESTINATION: a socket that listens at @uri, -1 for other ways
 * @session: what it is to go on with, see umemd/ticket.h; NULL: a new one
 * @regions: guest memory
 * @region_fds: a descriptor of each
 * @nr_regions: how many
 */
struct umemd_setup {
	const char *path;
	enum migration_role role;
	const char *uri;
	bool claimed;
	const struct hmp_command *command;
	json_t *tls;
	bool touch;
	int listener;
	json_t *session;
	const struct region_option *regions;
	const int *region_fds;
	size_t nr_regions;
};

/**
 * umemd_argv - the command line
 * @state_fd: the device state; @session if there is one
 *
 * Return: a NULL-terminated array, to be freed by options_free_argv().
 */
char **umemd_argv(const struct umemd_setup *setup, int control_fd, int state_fd);

struct umemd;

struct umemd_ops {
	void (*event)(void *context, struct umemd *umemd, json_t *event);
	/* @how in words; @clean: with status 0; @umemd is freed after this */
	void (*gone)(void *context, struct umemd *umemd, const char *how, bool clean);
};

/**
 * umemd_start - start one
 * @stream_fd: set to the end of the device state stream that is for QEMU; the caller's.
 *	-1 if there is a session to go on with: QEMU has its state
 * @error: set to a sentence, the caller's, on failure
 */
struct umemd *umemd_start(const struct umemd_setup *setup, const struct umemd_ops *ops,
			  void *context, int *stream_fd, char **error);
pid_t umemd_pid(const struct umemd *umemd);
void umemd_tell(struct umemd *umemd, json_t *command);

/**
 * umemd_hurry - the guest waits for its pages, which go before the work of others now
 *
 * From the start they do so, too, unless pre-copy comes first.
 */
void umemd_hurry(const struct umemd *umemd);

/**
 * umemd_dismiss - it is to end by itself; after a moment it is killed
 */
void umemd_dismiss(struct umemd *umemd);

/**
 * umemd_reaped - its process has ended: delivers what it still said, then gone()
 */
void umemd_reaped(struct umemd *umemd, int status);

#endif
