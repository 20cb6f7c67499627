// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/blocktime.h"

#include <stdbool.h>

#include "common/util.h"

/* A thread keeps its place: the same one is found when its wait ends. */
static struct blocktime_thread *find(struct blocktime *blocktime, uint32_t tid)
{
	struct blocktime_thread *thread = blocktime->threads;

	if (!tid)
		return &blocktime->others;
	for (uint32_t i = 0; i < blocktime->nr_threads; i++, thread++) {
		if (thread->tid == tid)
			return thread;
	}
	if (blocktime->nr_threads == BLOCKTIME_THREADS)
		return &blocktime->others;
	blocktime->nr_threads++;
	thread->tid = tid;
	return thread;
}

void blocktime_begin(struct blocktime *blocktime, uint32_t tid, uint64_t time_ns)
{
	struct blocktime_thread *thread = find(blocktime, tid);

	/* It may have asked before the page of its last wait was put in place. */
	if (!thread->pages++)
		thread->counted_ns = max(thread->counted_ns, time_ns);
}

void blocktime_end(struct blocktime *blocktime, uint32_t tid, uint64_t now)
{
	struct blocktime_thread *thread = find(blocktime, tid);

	thread->total_ns = blocktime_total(thread, now);
	thread->counted_ns = max(thread->counted_ns, now);
	thread->pages--;
}

uint64_t blocktime_total(const struct blocktime_thread *thread, uint64_t now)
{
	bool waits = thread->pages && now > thread->counted_ns;

	return thread->total_ns + (waits ? now - thread->counted_ns : 0);
}
