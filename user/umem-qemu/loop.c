// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/loop.h"

#include <poll.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/text.h"
#include "common/util.h"

struct watch {
	loop_fd_fn *fn;		/* NULL: forgotten, to be swept */
	void *context;
	bool idle;
};

static struct pollfd *polled;
static struct watch *watches;
static size_t nr_watches;
static struct loop_timer *timers;

static size_t find_watch(int fd)
{
	for (size_t i = 0; i < nr_watches; i++) {
		if (watches[i].fn && polled[i].fd == fd)
			return i;
	}
	return nr_watches;
}

static void set_watch(int fd, short events, struct watch watch)
{
	size_t i = find_watch(fd);

	if (i == nr_watches) {
		polled = memory_or_exit(reallocarray(polled, nr_watches + 1, sizeof(*polled)));
		watches = memory_or_exit(reallocarray(watches, nr_watches + 1, sizeof(*watches)));
		nr_watches++;
	}
	polled[i] = (struct pollfd){ .fd = fd, .events = events };
	watches[i] = watch;
}

void loop_watch(int fd, short events, loop_fd_fn *fn, void *context)
{
	set_watch(fd, events, (struct watch){ .fn = fn, .context = context });
}

void loop_watch_idle(int fd, short events, loop_fd_fn *fn, void *context)
{
	set_watch(fd, events, (struct watch){ .fn = fn, .context = context, .idle = true });
}

void loop_events(int fd, short events)
{
	size_t i = find_watch(fd);

	if (i < nr_watches)
		polled[i].events = events;
}

void loop_forget(int fd)
{
	size_t i = find_watch(fd);

	if (i == nr_watches)
		return;
	polled[i].fd = -1;
	watches[i].fn = NULL;
}

static void sweep(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < nr_watches; i++) {
		if (!watches[i].fn)
			continue;
		polled[kept] = polled[i];
		watches[kept++] = watches[i];
	}
	nr_watches = kept;
}

void loop_timer_clear(struct loop_timer *timer)
{
	struct loop_timer **at;

	for (at = &timers; *at; at = &(*at)->next) {
		if (*at != timer)
			continue;
		*at = timer->next;
		break;
	}
	timer->due_ns = 0;
}

void loop_timer_set(struct loop_timer *timer, unsigned int milliseconds)
{
	loop_timer_clear(timer);
	timer->due_ns = now_ns() + milliseconds * NSEC_PER_MSEC;
	timer->next = timers;
	timers = timer;
}

static int next_timeout(void)
{
	uint64_t now = now_ns(), first = UINT64_MAX;

	for (struct loop_timer *timer = timers; timer; timer = timer->next)
		first = min(first, timer->due_ns);
	if (first == UINT64_MAX)
		return -1;
	return first <= now ? 0 : (int)((first - now) / NSEC_PER_MSEC + 1);
}

static struct loop_timer *due_timer(uint64_t now)
{
	for (struct loop_timer *timer = timers; timer; timer = timer->next) {
		if (timer->due_ns <= now)
			return timer;
	}
	return NULL;
}

static void run_timers(void)
{
	uint64_t now = now_ns();
	struct loop_timer *timer;

	while ((timer = due_timer(now))) {
		loop_timer_clear(timer);
		timer->fn(timer->context);
	}
}

/* What is added meanwhile has no revents yet and comes next time. */
static bool call_ready(size_t nr, bool idle)
{
	bool called = false;

	for (size_t i = 0; i < nr; i++) {
		if (!watches[i].fn || !polled[i].revents || watches[i].idle != idle)
			continue;
		watches[i].fn(watches[i].context, polled[i].revents);
		called = true;
	}
	return called;
}

void loop_once(void)
{
	size_t nr;

	sweep();
	nr = nr_watches;
	if (poll(polled, nr, next_timeout()) > 0 && !call_ready(nr, false))
		call_ready(nr, true);
	run_timers();
}
