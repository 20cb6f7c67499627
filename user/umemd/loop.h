/* SPDX-License-Identifier: GPL-2.0-or-later */
/* epoll with an order: of what is ready, the most urgent is served first. */
#ifndef UMEMD_LOOP_H
#define UMEMD_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

enum loop_priority {
	PRIORITY_FAULTS,	/* pagers */
	PRIORITY_URGENT,
	PRIORITY_CONTROL,
	PRIORITY_BULK,
	PRIORITY_STRANGERS,
	LOOP_PRIORITIES
};

/**
 * struct watch - a descriptor in a loop
 * @fd: -1 when there is none
 * @events: what it is watched for now; 0 tells of nothing at all
 */
struct watch {
	int fd;
	uint32_t events;
	enum loop_priority priority;
	void (*ready)(void *owner, uint32_t events);
	void *owner;
};

#define LOOP_BATCH	32

struct loop {
	int epoll;
	bool stopped;	/* nothing more is to be served: a turn ends at once */
	int ready_count;
	struct epoll_event ready[LOOP_BATCH];
};

/* These return 0 or -errno. */
int loop_init(struct loop *loop);
int loop_add(struct loop *loop, struct watch *watch);
int loop_want(struct loop *loop, struct watch *watch, uint32_t events);

/* Ends the watching; the descriptor stays open. Safe from within a turn. */
void loop_remove(struct loop *loop, struct watch *watch);

/**
 * loop_turn - wait once and serve what is ready
 * @timeout_ns: how long to wait at most
 *
 * Return: 0 or -errno.
 */
int loop_turn(struct loop *loop, uint64_t timeout_ns);

void loop_destroy(struct loop *loop);

#endif
