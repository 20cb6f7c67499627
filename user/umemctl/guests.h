/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The running umem-qemus of this user. */
#ifndef UMEMCTL_GUESTS_H
#define UMEMCTL_GUESTS_H

#include <jansson.h>
#include <stddef.h>
#include <sys/types.h>

/**
 * struct guest - one of them
 * @name: -name, empty if there is none
 * @state: of its migration; "none" if it never had one, "silent" if it does not answer
 * @path: its control socket
 */
struct guest {
	pid_t pid;
	char *name;
	char *state;
	char *path;
};

struct guests {
	struct guest *guest;
	size_t nr;
};

/**
 * guests_find - look in every folder of common/runtime.h
 *
 * Takes away sockets whose process is gone.
 */
void guests_find(struct guests *guests);

/**
 * guests_add - for those who know better where one is; strings are copied
 */
void guests_add(struct guests *guests, pid_t pid, const char *name, const char *state,
		const char *path);
void guests_free(struct guests *guests);

/**
 * guests_choose - the one that is meant
 * @wanted: a process id or a name; NULL: the only one
 * @error: on failure a sentence that lists them, the caller's
 *
 * Return: one of @guests, or NULL.
 */
const struct guest *guests_choose(const struct guests *guests, const char *wanted, char **error);

/**
 * guests_table - what "list" prints, the caller's
 */
char *guests_table(const struct guests *guests);

/**
 * guests_json - the same as an array, the caller's
 */
json_t *guests_json(const struct guests *guests);

#endif
