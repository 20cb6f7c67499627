/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs that umem-qemu starts. */
#ifndef UMEM_QEMU_CHILD_H
#define UMEM_QEMU_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/**
 * struct child_setup - how a program is started
 * @path: the file to execute
 * @argv: NULL-terminated
 * @fds: descriptors it inherits besides 0, 1 and 2
 * @nr_fds: how many
 * @no_input: its standard input is /dev/null
 * @no_output: its standard output is
 * @own_session: it gets no signals from our terminal
 * @hurry: as if child_hurry() had been called for it; else it has the priority we were started with
 */
struct child_setup {
	const char *path;
	char **argv;
	const int *fds;
	size_t nr_fds;
	bool no_input;
	bool no_output;
	bool own_session;
	bool hurry;
};

/**
 * child_start - start a program
 *
 * Return: its pid, or a negative errno, that of execv() included.
 */
pid_t child_start(const struct child_setup *setup);

/**
 * child_wait - wait until a program has ended
 * @pid: from child_start()
 *
 * Return: its waitpid() status.
 */
int child_wait(pid_t pid);

/**
 * child_hurry - give it a better priority than guests have, where we may do that
 * @pid: who leads a session of its own, of which all are meant; or 0, for ourselves
 */
void child_hurry(pid_t pid);

/**
 * child_ended - a waitpid() status in words: "exited with status 1", "was killed by signal 9 (Killed)"
 *
 * Return: the caller's string.
 */
char *child_ended(int status);

/**
 * child_exit_status - a waitpid() status as a shell would give it
 */
int child_exit_status(int status);

/**
 * child_find - a program by name: as it is with a slash in it, else from PATH
 *
 * Return: the path, the caller's string; NULL if there is none that can be executed.
 */
char *child_find(const char *name);

#endif
