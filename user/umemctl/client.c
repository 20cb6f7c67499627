// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/runtime.h"
#include "common/text.h"
#include "common/util.h"

#define LINE_MAX_BYTES	65536
#define REPLY_MS	5000

int client_open(struct client *client, const char *path)
{
	int fd = runtime_connect(path);

	if (fd < 0)
		return fd;
	*client = (struct client){ .fd = fd, .path = text_copy(path) };
	jsonl_init(&client->jsonl, fd, LINE_MAX_BYTES, LINE_MAX_BYTES);
	return 0;
}

void client_close(struct client *client)
{
	jsonl_destroy(&client->jsonl);
	close(client->fd);
	free(client->path);
}

int client_send(struct client *client, json_t *command, char **error)
{
	int err = jsonl_send(&client->jsonl, command);

	if (!err)
		return 0;
	*error = text_format("%s does not take the command: %s", client->path, strerror(-err));
	return -1;
}

/* Until the descriptor has something to say. False: it took too long. */
static bool wait_for(struct client *client, uint64_t until_ns, bool for_ever)
{
	uint64_t now = now_ns();
	short out = jsonl_unsent(&client->jsonl) ? POLLOUT : 0;
	struct pollfd pollfd = { .fd = client->fd, .events = POLLIN | out };
	int left = now < until_ns ? (int)((until_ns - now) / NSEC_PER_MSEC) + 1 : 0;

	if (poll(&pollfd, 1, for_ever ? -1 : left) == 0)
		return false;
	if (pollfd.revents & POLLOUT)
		jsonl_flush(&client->jsonl);
	return true;
}

json_t *client_next(struct client *client, int timeout_ms, char **error)
{
	uint64_t until = now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NSEC_PER_MSEC;
	char why[JSONL_ERROR_MAX];
	json_t *object;
	int err;

	while (!(err = jsonl_next(&client->jsonl, &object, why))) {
		if (!wait_for(client, until, timeout_ms < 0)) {
			*error = text_format("%s: no answer in %d ms", client->path, timeout_ms);
			return NULL;
		}
		err = jsonl_receive(&client->jsonl);
		if (err <= 0 && err != -EAGAIN) {
			*error = text_format("%s: umem-qemu has closed the connection%s%s",
					     client->path, err ? ": " : "",
					     err ? strerror(-err) : "");
			return NULL;
		}
	}
	if (err == 1)
		return object;
	*error = text_format("%s: %s", client->path, why);
	return NULL;
}

json_t *client_ask(struct client *client, json_t *command, char **error)
{
	const char *why;
	json_t *reply;

	*error = NULL;
	if (client_send(client, command, error))
		return NULL;
	reply = client_next(client, REPLY_MS, error);
	if (!reply || json_is_true(json_object_get(reply, "ok")))
		return reply;
	why = json_string_value(json_object_get(reply, "error"));
	*error = text_copy(why && why[0] ? why : "umem-qemu answers neither ok nor an error");
	json_decref(reply);
	return NULL;
}
