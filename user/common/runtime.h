/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets in the file system, and where control sockets are: $XDG_RUNTIME_DIR, else
 * /run/umem for root, else /tmp/umem-UID. A folder counts only if it is this user's
 * and nobody else can write to it.
 */
#ifndef COMMON_RUNTIME_H
#define COMMON_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define RUNTIME_FOLDERS_MAX	3

/* What a umem-qemu has there, by the ends of the names. */
#define RUNTIME_SOCKET		".sock"		/* control socket */
#define RUNTIME_RECORD		".record"	/* for who adopts its QEMU */
#define RUNTIME_QMP		".qmp"		/* where its QEMU listens */

/**
 * runtime_folders - every folder where a control socket of this user may be
 * @folders: filled, best first; the strings are the caller's
 *
 * They need not exist.
 *
 * Return: how many.
 */
size_t runtime_folders(char *folders[RUNTIME_FOLDERS_MAX]);

/**
 * runtime_make - see that @folder is there and this user's own
 *
 * Return: 0, or -1 with a sentence in @error, the caller's.
 */
int runtime_make(const char *folder, char **error);

/**
 * runtime_file - path of a file of process @pid in @folder
 * @end: RUNTIME_SOCKET, or another
 *
 * Return: the caller's string.
 */
char *runtime_file(const char *folder, pid_t pid, const char *end);

/**
 * runtime_file_pid - whose file one of this name is
 * @name: without its folder
 *
 * Return: the process, or 0: it is none that ends so.
 */
pid_t runtime_file_pid(const char *name, const char *end);

/**
 * runtime_connect - connect to the socket @path
 *
 * Return: a descriptor that does not block, or a negative errno; -ECONNREFUSED nobody
 * listens there, -EAGAIN somebody does who takes no connection for two seconds.
 */
int runtime_connect(const char *path);

/**
 * runtime_clear - take away a socket that nobody listens at any more
 *
 * Return: 0, nothing is at @path now; -EADDRINUSE somebody listens there, -EEXIST it is
 * no socket, or another negative errno.
 */
int runtime_clear(const char *path);

/**
 * runtime_listen - listen at the socket @path
 * @own: only this user and root may connect; else as the umask says
 * @error: on failure a sentence, the caller's
 *
 * A socket where nobody listens any more is replaced, nothing else is.
 *
 * Return: a descriptor that does not block, or -1.
 */
int runtime_listen(const char *path, bool own, char **error);

#endif
