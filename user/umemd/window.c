// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/window.h"

#include "common/util.h"

#define MEGA	1000000

void window_set(struct window *window, uint64_t rate, uint64_t rtt_ns, uint64_t now)
{
	window->looked_ns = now;
	window->rate = rate;
	window->rtt_ns = rtt_ns;
	window->spare = WINDOW_SPARE_MAX;
	window->bytes = UINT64_MAX;
	if (!rate)
		return;
	rate = min(rate, WINDOW_RATE_MAX);
	window->spare = min(max(rate / (NSEC_PER_SEC / WINDOW_SPARE_NS),
				(uint64_t)WINDOW_SPARE_MIN), (uint64_t)WINDOW_SPARE_MAX);
	/* Half as much again as the path holds, so that a rate that could rise does. */
	window->bytes = window->spare +
			rate / MEGA * (min(rtt_ns, WINDOW_RTT_MAX_NS) / NSEC_PER_USEC) / 2 * 3;
}

uint64_t window_frame(const struct window *window)
{
	return window->spare / 2;
}

static uint64_t poll_ns(uint64_t ns)
{
	return min(max(ns, WINDOW_POLL_MIN_NS), WINDOW_POLL_MAX_NS);
}

uint64_t window_wait(struct window *window, uint64_t bulk, uint64_t urgent, uint64_t now)
{
	if (bulk > window->bytes)
		return poll_ns((bulk - window->bytes) * 1000 / (window->rate / MEGA + 1));
	if (urgent < WINDOW_URGENT_BYTES) {
		window->held_ns = 0;
		return 0;
	}
	if (!window->held_ns)
		window->held_ns = now;
	if (now - window->held_ns < WINDOW_HOLD_NS)
		return poll_ns(window->rtt_ns / 4);
	window->held_ns = now;
	return 0;
}
