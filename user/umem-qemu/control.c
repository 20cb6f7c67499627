// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/control.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/jsonl.h"
#include "common/runtime.h"
#include "common/text.h"
#include "umem-qemu/loop.h"

#define UNSENT_MAX	65536
#define FULL_ROUNDS	4

struct client {
	struct client *next;
	struct control *control;
	struct jsonl jsonl;
	int fd;
	bool watching;
	bool ended;		/* nothing more is read from it */
};

struct control {
	control_fn *fn;
	void *context;
	char *path;
	int listener;
	struct client *clients;
	size_t nr_clients;
	unsigned int full_rounds;	/* of the loop, since somebody wants to come in */
};

/* ---- clients ---- */

static void client_event(void *context, short revents);

static void watch_client(struct client *client)
{
	short events = client->ended ? 0 : POLLIN;

	if (jsonl_unsent(&client->jsonl))
		events |= POLLOUT;
	/* Without events, too: a hang-up is always told. */
	loop_watch(client->fd, events, client_event, client);
}

static void drop(struct client *client)
{
	struct client **at = &client->control->clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	client->control->nr_clients--;
	loop_forget(client->fd);
	close(client->fd);
	jsonl_destroy(&client->jsonl);
	free(client);
}

/* Who cannot be told hangs up: the loop finds that, here somebody may hold @client. */
static void tell(struct client *client, json_t *object)
{
	if (jsonl_send(&client->jsonl, object)) {
		client->watching = false;
		shutdown(client->fd, SHUT_RDWR);
	}
	watch_client(client);
}

static json_t *error_reply(const char *why)
{
	return json_pack("{s:o}", "error", memory_or_exit(jsonl_string(why)));
}

static void obey(struct client *client, json_t *object)
{
	struct control *control = client->control;
	struct control_answer answer = { 0 };
	struct request request;
	char *error;

	if (request_decode(&request, object, &error)) {
		tell(client, error_reply(error));
		free(error);
		return;
	}
	control->fn(control->context, &request, &answer);
	tell(client, answer.reply);
	if (answer.event)
		tell(client, answer.event);
	if (answer.watch)
		client->watching = true;
}

static void take_objects(struct client *client)
{
	char error[JSONL_ERROR_MAX];
	json_t *object;
	int err;

	while ((err = jsonl_next(&client->jsonl, &object, error))) {
		if (err == 1) {
			obey(client, object);
			json_decref(object);
			continue;
		}
		tell(client, error_reply(error));
		if (err == -EPROTO)
			continue;
		client->ended = true;
		return;
	}
}

static void read_client(struct client *client)
{
	int err = jsonl_receive(&client->jsonl);

	if (err == -EAGAIN)
		return;
	if (err == 1)
		take_objects(client);
	else
		client->ended = true;
}

static void client_event(void *context, short revents)
{
	struct client *client = context;
	int err = 0;

	if (revents & POLLOUT)
		err = jsonl_flush(&client->jsonl);
	if (revents & POLLIN && !client->ended)
		read_client(client);
	else if (revents & (POLLHUP | POLLERR))
		err = -EPIPE;
	/* A client may send its requests, close its side, and read the answers. */
	if ((err && err != -EAGAIN) ||
	    (client->ended && !client->watching && !jsonl_unsent(&client->jsonl)))
		drop(client);
	else
		watch_client(client);
}

static void add_client(struct control *control, int fd)
{
	struct client *client = memory_or_exit(calloc(1, sizeof(*client)));

	*client = (struct client){ .next = control->clients, .control = control, .fd = fd };
	jsonl_init(&client->jsonl, fd, CONTROL_LINE_MAX, UNSENT_MAX);
	control->clients = client;
	control->nr_clients++;
	watch_client(client);
}

static void refuse_client(int fd)
{
	char *why = text_format("%d clients are connected, wanted fewer: try again when one has left",
				CONTROL_CLIENTS_MAX);
	struct jsonl jsonl;

	jsonl_init(&jsonl, fd, CONTROL_LINE_MAX, UNSENT_MAX);
	jsonl_send(&jsonl, error_reply(why));
	jsonl_destroy(&jsonl);
	close(fd);
	free(why);
}

static void accept_client(void *context, short revents)
{
	struct control *control = context;
	bool full = control->nr_clients == CONTROL_CLIENTS_MAX;
	int fd;

	(void)revents;
	/* Some may be about to leave: what they sent is read first, then their end. */
	if (full && ++control->full_rounds < FULL_ROUNDS)
		return;
	control->full_rounds = 0;
	fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (full)
		refuse_client(fd);
	else
		add_client(control, fd);
}

bool control_watched(const struct control *control)
{
	for (struct client *client = control ? control->clients : NULL; client;
	     client = client->next) {
		if (client->watching)
			return true;
	}
	return false;
}

void control_tell(struct control *control, json_t *event, bool last)
{
	for (struct client *client = control ? control->clients : NULL; client;
	     client = client->next) {
		if (!client->watching)
			continue;
		client->watching = !last;
		tell(client, json_incref(event));
	}
	json_decref(event);
}

/* ---- the socket ---- */

struct control *control_open(const char *path, control_fn *fn, void *context, char **error)
{
	struct control *control;
	int fd = runtime_listen(path, true, error);

	if (fd < 0)
		return NULL;
	control = memory_or_exit(calloc(1, sizeof(*control)));
	*control = (struct control){
		.fn = fn,
		.context = context,
		.path = text_copy(path),
		.listener = fd,
	};
	loop_watch(fd, POLLIN, accept_client, control);
	return control;
}

struct control *control_open_default(control_fn *fn, void *context, char **error)
{
	char *folders[RUNTIME_FOLDERS_MAX];
	size_t nr = runtime_folders(folders);
	struct control *control = NULL;

	*error = NULL;
	for (size_t i = 0; i < nr; i++) {
		char *path = runtime_file(folders[i], getpid(), RUNTIME_SOCKET);

		if (!control) {
			free(*error);
			*error = NULL;
			if (!runtime_make(folders[i], error))
				control = control_open(path, fn, context, error);
		}
		free(path);
		free(folders[i]);
	}
	return control;
}

void control_close(struct control *control)
{
	if (!control)
		return;
	while (control->clients)
		drop(control->clients);
	loop_forget(control->listener);
	close(control->listener);
	unlink(control->path);
	free(control->path);
	free(control);
}
