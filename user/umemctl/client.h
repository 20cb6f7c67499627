/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection to a umem-qemu's control socket. */
#ifndef UMEMCTL_CLIENT_H
#define UMEMCTL_CLIENT_H

#include <jansson.h>

#include "common/jsonl.h"

struct client {
	int fd;
	char *path;
	struct jsonl jsonl;
};

/**
 * client_open - connect to the socket @path
 *
 * Return: 0, client_close() is due then; or a negative errno, -ECONNREFUSED nobody
 * listens there.
 */
int client_open(struct client *client, const char *path);
void client_close(struct client *client);

/**
 * client_send - give a command
 * @command: taken over
 *
 * Return: 0, or -1 with a sentence in @error, the caller's.
 */
int client_send(struct client *client, json_t *command, char **error);

/**
 * client_next - the next reply or event
 * @timeout_ms: how long to wait for it, -1: for ever
 * @error: set when there is none: a sentence, the caller's
 *
 * Return: an object, the caller's, or NULL.
 */
json_t *client_next(struct client *client, int timeout_ms, char **error);

/**
 * client_ask - give a command and wait for its reply
 * @command: taken over
 * @error: set when there is no reply or it is an error: a sentence, the caller's
 *
 * Return: the reply, the caller's, or NULL.
 */
json_t *client_ask(struct client *client, json_t *command, char **error);

#endif
