// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/window.h"

#include <stdbool.h>

#include "common/util.h"

#define MEGA	1000000

void window_set(struct window *window, uint64_t rate, uint64_t rtt_ns, uint64_t now)
{
	uint64_t held;

	window->looked_ns = now;
	window->rate = rate;
	window->spare = WINDOW_SPARE_MAX;
	window->beside = WINDOW_SPARE_MAX / WINDOW_SHARE;
	window->bytes = UINT64_MAX;
	if (!rate)
		return;
	rate = min(rate, WINDOW_RATE_MAX);
	held = rate / MEGA * (min(rtt_ns, WINDOW_RTT_MAX_NS) / NSEC_PER_USEC);
	window->spare = min(max(rate / (NSEC_PER_SEC / WINDOW_SPARE_NS),
				(uint64_t)WINDOW_SPARE_MIN), (uint64_t)WINDOW_SPARE_MAX);
	/* Half as much again as the path holds, so that a rate that could rise does. */
	window->bytes = window->spare + held / 2 * 3;
	window->beside = window->spare / WINDOW_SHARE + held;
}

static bool beside_answers(uint64_t urgent)
{
	return urgent >= WINDOW_URGENT_BYTES;
}

uint64_t window_frame(const struct window *window, uint64_t urgent)
{
	return window->spare / (beside_answers(urgent) ? WINDOW_SHARE * 2 : 1);
}

uint64_t window_wait(const struct window *window, uint64_t bulk, uint64_t urgent)
{
	uint64_t most = beside_answers(urgent) ? window->beside : window->bytes, us;

	if (bulk <= most)
		return 0;
	us = min((bulk - most) / (window->rate / MEGA + 1), WINDOW_POLL_MAX_NS / NSEC_PER_USEC);
	return max(us * NSEC_PER_USEC, WINDOW_POLL_MIN_NS);
}
