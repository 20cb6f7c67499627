// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/loop.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "common/util.h"

int loop_init(struct loop *loop)
{
	loop->ready_count = 0;
	loop->stopped = false;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll < 0 ? -errno : 0;
}

void loop_destroy(struct loop *loop)
{
	close(loop->epoll);
	loop->epoll = -1;
}

static int control(struct loop *loop, int operation, struct watch *watch)
{
	struct epoll_event event = { .events = watch->events, .data.ptr = watch };

	return epoll_ctl(loop->epoll, operation, watch->fd, &event) < 0 ? -errno : 0;
}

int loop_add(struct loop *loop, struct watch *watch)
{
	return watch->events ? control(loop, EPOLL_CTL_ADD, watch) : 0;
}

/*
 * epoll tells of hang-ups even when asked for nothing, so a descriptor that is
 * watched for nothing leaves the set: else a full buffer and a peer that went
 * away together would spin.
 */
int loop_want(struct loop *loop, struct watch *watch, uint32_t events)
{
	uint32_t before = watch->events;

	if (watch->fd < 0 || events == before)
		return 0;
	watch->events = events;
	if (!before)
		return control(loop, EPOLL_CTL_ADD, watch);
	return control(loop, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, watch);
}

void loop_remove(struct loop *loop, struct watch *watch)
{
	if (watch->fd < 0)
		return;
	loop_want(loop, watch, 0);
	for (int i = 0; i < loop->ready_count; i++) {
		if (loop->ready[i].data.ptr == watch)
			loop->ready[i].data.ptr = NULL;
	}
}

int loop_turn(struct loop *loop, uint64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / NSEC_PER_SEC),
		.tv_nsec = (long)(timeout_ns % NSEC_PER_SEC),
	};
	int n = epoll_pwait2(loop->epoll, loop->ready, LOOP_BATCH, &timeout, NULL);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	loop->ready_count = n;
	for (int priority = 0; priority < LOOP_PRIORITIES; priority++) {
		for (int i = 0; i < n; i++) {
			struct watch *watch = loop->ready[i].data.ptr;

			if (loop->stopped)
				break;
			if (!watch || (int)watch->priority != priority)
				continue;
			loop->ready[i].data.ptr = NULL;
			watch->ready(watch->owner, loop->ready[i].events);
		}
	}
	loop->ready_count = 0;
	return 0;
}
