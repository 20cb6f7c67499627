/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rounds in which memory is sent while the guest still writes to it, and when
 * what is left is little enough. Time is given from outside.
 *
 * A round collects which pages are dirty, then sends those. The next begins when
 * all went, but not too soon after this one did: to collect costs time, and the
 * guest a fault for each page it writes to afterwards.
 */
#ifndef UMEMD_PRECOPY_H
#define UMEMD_PRECOPY_H

#include <stdbool.h>
#include <stdint.h>

#define PRECOPY_PERIOD_NS	100000000ULL	/* of rounds, at least */
#define PRECOPY_COLLECT_PART	5		/* of a round, at most, is spent collecting */
#define PRECOPY_RATE_BYTES	(16ULL << 20)	/* fewer may all be in the sockets' buffers */
#define DOWNTIME_LIMIT_MS	300		/* QEMU's own default of downtime-limit */

enum precopy_step {
	PRECOPY_COLLECT,	/* which pages are dirty is being found out */
	PRECOPY_SEND,		/* they are sent */
	PRECOPY_WAIT,		/* until the next round may begin */
};

/**
 * struct precopy - where the rounds stand
 * @limit_ms: how long the pages that are left may take to send
 * @round: its number, from 1 on; 0 before the first
 * @dirty: pages that were dirty when this round had collected
 * @begun_ns: when it began to collect
 * @collect_ns: what that costs, in time of the processor: on a busy host collecting takes
 *	long and costs no more
 * @send_ns: when it began to send
 * @send_bytes: what had gone by then
 * @rate: bytes a second; 0: not known yet
 * @converged: the limit was met once
 */
struct precopy {
	uint64_t limit_ms;
	enum precopy_step step;
	uint64_t round;
	uint64_t dirty;
	uint64_t begun_ns, collect_ns, send_ns, send_bytes;
	uint64_t rate;
	bool converged;
};

/* The next round begins, with PRECOPY_COLLECT. @cpu: see thread_cpu_ns() */
void precopy_begin(struct precopy *precopy, uint64_t now, uint64_t cpu);

/**
 * precopy_collected - which pages are dirty is known, send them
 * @dirty: how many
 * @bytes: sent in all so far
 *
 * Return: true if they are few enough, the first time that they are.
 */
bool precopy_collected(struct precopy *precopy, uint64_t dirty, uint64_t bytes, uint64_t now,
		       uint64_t cpu);

/* All were sent: PRECOPY_WAIT. */
void precopy_sent(struct precopy *precopy, uint64_t bytes, uint64_t now);

/* Return: nanoseconds until the next round may begin; 0 at once. */
uint64_t precopy_wait(const struct precopy *precopy, uint64_t now);

/**
 * precopy_expected_ms - how long @pages take to send
 *
 * Return: milliseconds, rounded up; UINT64_MAX if the rate is not known.
 */
uint64_t precopy_expected_ms(const struct precopy *precopy, uint64_t pages);

#endif
