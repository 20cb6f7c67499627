/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a umem-qemu writes down for another that may have to take over from it
 * (--adopt): a JSON object in a file of this user's alone, beside the control sockets.
 */
#ifndef UMEM_QEMU_RECORD_H
#define UMEM_QEMU_RECORD_H

#include <jansson.h>
#include <sys/types.h>

/**
 * record_write - put @record in the place of what is at @path
 *
 * Whenever it is interrupted, the old one is there or the new one. It is on the disk when
 * this returns.
 *
 * Return: NULL, or why not, the caller's string.
 */
char *record_write(const char *path, json_t *record);

/**
 * record_find - the record of a umem-qemu
 * @target: its process id, the name of its guest, or the record's path
 * @path: set to where it is, the caller's
 * @error: on failure a sentence, the caller's
 *
 * Records of guests whose processes have all ended are removed on the way.
 *
 * Return: the record, the caller's; NULL if there is none, or more than one.
 */
json_t *record_find(const char *target, char **path, char **error);

/**
 * record_claim - of several who would adopt its QEMU one may
 * @error: on failure a sentence, the caller's
 *
 * Return: a descriptor, the caller's: nobody else has a claim while it is open; or -1.
 */
int record_claim(const char *path, char **error);

/**
 * process_json - a process, so that it is not taken for a later one of the same number
 */
json_t *process_json(pid_t pid);

/**
 * process_open - a pidfd of what process_json() gave
 *
 * Return: the descriptor; -ESRCH it has ended; another negative errno.
 */
int process_open(json_t *process);
pid_t process_pid(json_t *process);

/**
 * process_kill - end it, and wait until it has ended
 * @fd: from process_open(); closed
 *
 * Return: 0, or -ETIMEDOUT after a few seconds.
 */
int process_kill(int fd);

#endif
