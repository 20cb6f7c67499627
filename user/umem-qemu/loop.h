/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waits for descriptors and timers, and calls whom they belong to. */
#ifndef UMEM_QEMU_LOOP_H
#define UMEM_QEMU_LOOP_H

#include <stdbool.h>
#include <stdint.h>

typedef void loop_fd_fn(void *context, short revents);
typedef void loop_timer_fn(void *context);

struct loop_timer {
	loop_timer_fn *fn;
	void *context;
	uint64_t due_ns;	/* 0: not set */
	struct loop_timer *next;
};

/**
 * loop_watch - call @fn when @fd has one of @events; replaces what was said of @fd before
 */
void loop_watch(int fd, short events, loop_fd_fn *fn, void *context);

/**
 * loop_watch_idle - as loop_watch(), but only called when nothing else is ready
 */
void loop_watch_idle(int fd, short events, loop_fd_fn *fn, void *context);

/**
 * loop_events - other events for a descriptor that is watched
 */
void loop_events(int fd, short events);
void loop_forget(int fd);

/**
 * loop_timer_set - call the timer's @fn once, so many milliseconds from now
 *
 * @timer lives until it has fired or was cleared.
 */
void loop_timer_set(struct loop_timer *timer, unsigned int milliseconds);
void loop_timer_clear(struct loop_timer *timer);

/**
 * loop_once - wait until something happens and deliver it
 */
void loop_once(void);

#endif
