/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's machine protocol: commands with their replies, events, descriptors. */
#ifndef UMEM_QEMU_QMP_H
#define UMEM_QEMU_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/jsonl.h"

/**
 * typedef qmp_reply_fn - called once for each command
 * @result: what QEMU returned, NULL if it refused or went away
 * @error: NULL, or QEMU's words
 */
typedef void qmp_reply_fn(void *context, json_t *result, const char *error);

/**
 * struct qmp_event - something QEMU tells
 * @time_us: microseconds since the epoch, by QEMU's clock; 0 if it told none
 */
struct qmp_event {
	const char *name;
	json_t *data;
	uint64_t time_us;
};

struct qmp_ops {
	/* QEMU said hello and takes commands; @error is NULL, or why it does not */
	void (*ready)(void *context, const char *error);
	void (*event)(void *context, const struct qmp_event *event);
};

struct qmp_command;
struct qmp_output;

/**
 * struct qmp - one connection; not to be touched from outside
 */
struct qmp {
	struct jsonl input;
	int fd;
	const struct qmp_ops *ops;
	void *context;
	uint64_t next_id;
	bool greeted;
	struct qmp_command *waiting;
	struct qmp_output *output;
	struct qmp_output **output_end;
};

/**
 * qmp_init - begin to speak over @fd, a non-blocking socket
 */
void qmp_init(struct qmp *qmp, int fd, const struct qmp_ops *ops, void *context);

/**
 * qmp_destroy - forget everything; commands without a reply get an error first
 */
void qmp_destroy(struct qmp *qmp);

/**
 * qmp_execute - send a command, once QEMU has said hello
 * @arguments: taken over; NULL for none
 * @fd: a descriptor that goes with it, or -1; taken over: closed once it was sent
 * @reply: called when QEMU answers, NULL if nobody cares
 */
void qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, int fd,
		 qmp_reply_fn *reply, void *context);

/**
 * qmp_receive - read and deliver what came
 *
 * Return: 1; 0 QEMU closed the connection; a negative errno.
 */
int qmp_receive(struct qmp *qmp);

/**
 * qmp_flush - write what is queued
 *
 * Return: 0 nothing is left, -EAGAIN, or another negative errno.
 */
int qmp_flush(struct qmp *qmp);

/**
 * qmp_unsent - whether something is queued: poll for POLLOUT meanwhile
 */
bool qmp_unsent(const struct qmp *qmp);

#endif
