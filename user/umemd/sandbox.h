/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a process gives up once it has all it needs: descriptors it does not know,
 * capabilities, and system calls that are not in a list. It cannot have them again.
 *
 * A call that is not in the list fails with EPERM and is told in the kernel's log,
 * as audit type 1326: a library that tries what it can do without goes on, and the
 * guest with it.
 */
#ifndef UMEMD_SANDBOX_H
#define UMEMD_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#define SANDBOX_ERROR_MAX	128

/* What the process may do from then on, added up; at least one. */
enum sandbox_right {
	SANDBOX_MIGRATE = 1,	/* all that umemd needs */
	SANDBOX_CONNECT = 2,	/* to the other side */
	SANDBOX_REMOVE = 4,	/* files */
	SANDBOX_TOUCH = 8,	/* memory, through descriptors of it */
};

/**
 * sandbox_close_others - close what was inherited by accident
 * @keep: descriptors that stay open, sorted by this; standard error does, too
 *
 * Standard input and output become /dev/null unless they are in @keep.
 *
 * Return: 0 or -errno.
 */
int sandbox_close_others(int *keep, size_t nr);

/**
 * sandbox_enter - from now on only what the rights need, for this and every child
 * @rights: of enum sandbox_right
 * @any_file: keep the capability, if it is there, to use files that others own
 * @error: SANDBOX_ERROR_MAX bytes, on failure a sentence
 *
 * No other process of the user can look into this one any more, and it leaves no
 * core file: these would hold pages of the guest.
 *
 * Return: 0 or -errno.
 */
int sandbox_enter(unsigned int rights, bool any_file, char *error);

#endif
