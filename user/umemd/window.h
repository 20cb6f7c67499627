/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much of bulk is on its way at once: enough to fill the link, and so little
 * that the answer to a request does not wait long behind it. While answers are
 * on their way themselves, it is what the link holds, and next to nothing more.
 *
 * Time and what is under way are given from outside.
 */
#ifndef UMEMD_WINDOW_H
#define UMEMD_WINDOW_H

#include <stdint.h>

#include "common/util.h"

/*
 * Beside what the path holds: what it gets through in this time, within these bounds, for
 * hosts that take and give in bursts. A frame of as much may begin then, so twice that is on its
 * way. Two emulated hosts with one processor each, joined by more than 1 Gbit/s, lose 18 % of
 * bulk with half of the most, nothing with all of it. On a slower link it is the time that
 * counts, for an answer may have to wait that long.
 */
#define WINDOW_SPARE_NS		(7 * NSEC_PER_MSEC)
#define WINDOW_SPARE_MIN	(6 * 1024)
#define WINDOW_SPARE_MAX	(192 * 1024)
#define WINDOW_SHARE		6	/* of the spare, beside answers */
#define WINDOW_RATE_MAX		100000000000ULL
#define WINDOW_RTT_MAX_NS	(10 * NSEC_PER_SEC)
#define WINDOW_URGENT_BYTES	4096	/* less: zero pages, whose receipt is told late */
#define WINDOW_LOOK_NS		(50 * NSEC_PER_MSEC)	/* between looks at the path */
#define WINDOW_POLL_MIN_NS	(100 * NSEC_PER_USEC)
#define WINDOW_POLL_MAX_NS	(1 * NSEC_PER_MSEC)

/**
 * struct window - of the bulk channels together
 * @bytes: to be on their way at most; a frame may begin as long as there are no more
 * @beside: the same while answers are on their way
 * @spare: what may be on its way that the path itself does not hold
 * @rate: bytes a second that arrive; 0: not known yet
 * @looked_ns: when that was measured
 */
struct window {
	uint64_t bytes;
	uint64_t beside;
	uint64_t spare;
	uint64_t rate;
	uint64_t looked_ns;
};

/**
 * window_set - the path was measured
 * @rate: 0: it cannot be; then there is no limit but beside answers
 */
void window_set(struct window *window, uint64_t rate, uint64_t rtt_ns, uint64_t now);

/**
 * window_frame - how many bytes to send at once at most
 * @urgent: bytes of answers on their way
 *
 * The spare, or beside answers half of its share: an answer waits for a frame.
 */
uint64_t window_frame(const struct window *window, uint64_t urgent);

/**
 * window_wait - how long bulk should not send
 * @bulk: bytes of it on their way
 * @urgent: bytes of answers on their way
 *
 * Return: nanoseconds after which to ask again; 0 if a frame may go.
 */
uint64_t window_wait(const struct window *window, uint64_t bulk, uint64_t urgent);

#endif
