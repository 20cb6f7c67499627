/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long threads had to wait for pages. The kernel asks once for a page and names
 * the thread that touched it first: that one waits, here, until the page is there;
 * who joined it is not known. A thread with several pages under way, as a vCPU with
 * asynchronous page faults, waits once: its time never exceeds what has passed.
 *
 * Bounded: the threads that do not fit are one, together.
 */
#ifndef UMEMD_BLOCKTIME_H
#define UMEMD_BLOCKTIME_H

#include <stdint.h>

#define BLOCKTIME_THREADS	256

/**
 * struct blocktime_thread - one thread
 * @pages: it waits for now
 * @counted_ns: up to when @total_ns has its waiting
 */
struct blocktime_thread {
	uint32_t tid;
	uint32_t pages;
	uint64_t counted_ns;
	uint64_t total_ns;
};

/**
 * struct blocktime - all zero is an empty one
 * @others: the threads that do not fit, and those whose id is not known (0)
 */
struct blocktime {
	uint32_t nr_threads;
	struct blocktime_thread threads[BLOCKTIME_THREADS];
	struct blocktime_thread others;
};

/* The thread asked for a page at @time_ns. */
void blocktime_begin(struct blocktime *blocktime, uint32_t tid, uint64_t time_ns);

/* That page is there; as many of these as of blocktime_begin(). */
void blocktime_end(struct blocktime *blocktime, uint32_t tid, uint64_t now);

/**
 * blocktime_total - nanoseconds that a thread has waited, until @now if it still does
 */
uint64_t blocktime_total(const struct blocktime_thread *thread, uint64_t now);

#endif
