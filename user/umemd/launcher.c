// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

#define LINE_MAX_BYTES	65536
#define UNSENT_MAX	(1024 * 1024)
#define FINISH_MS	1000

static void lose(struct launcher *launcher)
{
	if (launcher->gone)
		return;
	launcher->gone = true;
	loop_remove(launcher->loop, &launcher->watch);
	launcher->lost(launcher->owner);
}

static void take_objects(struct launcher *launcher)
{
	char error[JSONL_ERROR_MAX];
	json_t *object;
	int err;

	while (!launcher->gone && (err = jsonl_next(&launcher->jsonl, &object, error))) {
		const char *name;

		if (err < 0) {
			log_warning("from the launcher: %s", error);
			if (err == -EMSGSIZE)
				lose(launcher);
			continue;
		}
		name = json_string_value(json_object_get(object, "cmd"));
		if (name)
			launcher->command(launcher->owner, name, object);
		else
			log_warning("from the launcher: an object without a string \"cmd\"");
		json_decref(object);
	}
}

static void ready(void *owner, uint32_t events)
{
	struct launcher *launcher = owner;
	int err;

	if (events & EPOLLOUT) {
		err = jsonl_flush(&launcher->jsonl);
		if (!err)
			loop_want(launcher->loop, &launcher->watch, EPOLLIN);
		else if (err != -EAGAIN)
			lose(launcher);
	}
	if (launcher->gone || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	err = jsonl_receive(&launcher->jsonl);
	if (err == 1)
		take_objects(launcher);
	else if (err != -EAGAIN)
		lose(launcher);
}

int launcher_init(struct launcher *launcher, struct loop *loop, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	/* Else it is taken from a file when it is first needed, which is too late in a sandbox. */
	json_object_seed(0);
	launcher->loop = loop;
	launcher->gone = false;
	launcher->watch = (struct watch){
		.fd = fd,
		.events = EPOLLIN,
		.priority = PRIORITY_CONTROL,
		.ready = ready,
		.owner = launcher,
	};
	jsonl_init(&launcher->jsonl, fd, LINE_MAX_BYTES, UNSENT_MAX);
	return loop_add(loop, &launcher->watch);
}

void launcher_send(struct launcher *launcher, json_t *event)
{
	int err;

	if (launcher->gone) {
		json_decref(event);
		return;
	}
	err = jsonl_send(&launcher->jsonl, event);
	if (err == -ENOBUFS || err == -ENOMEM)
		log_warning("an event for the launcher is lost: %s", strerror(-err));
	else if (!err && jsonl_unsent(&launcher->jsonl))
		loop_want(launcher->loop, &launcher->watch, EPOLLIN | EPOLLOUT);
	/* Other errors show again as the end of the stream, outside of our caller. */
}

void launcher_state(struct launcher *launcher, const char *state)
{
	launcher_send(launcher, json_pack("{s:s,s:s}", "event", "state", "state", state));
}

void launcher_message(struct launcher *launcher, const char *event, const char *format, ...)
{
	char text[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_message(strcmp(event, "error") ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR, "%s", text);
	launcher_send(launcher, json_pack("{s:s,s:s}", "event", event, "message", text));
}

void launcher_finish(struct launcher *launcher)
{
	struct pollfd poll_fd = { .fd = launcher->watch.fd, .events = POLLOUT };

	loop_remove(launcher->loop, &launcher->watch);
	while (!launcher->gone && jsonl_flush(&launcher->jsonl) == -EAGAIN &&
	       poll(&poll_fd, 1, FINISH_MS) > 0)
		;
	jsonl_destroy(&launcher->jsonl);
}
