// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/window.h"

#include "common/util.h"

#define SLACK_US	500
#define RATE_MAX	(1ULL << 40)	/* keeps the products below within 64 bits */
#define ROUND_TRIP_MAX	10000000	/* likewise, 10 s */

static uint64_t best_rate(const struct window *window)
{
	return max(window->rates[0], window->rates[1]);
}

void window_sample(struct window *window, uint64_t now_ns, uint64_t rate, uint32_t round_trip_us)
{
	if (now_ns - window->period_ns >= WINDOW_PERIOD_NS) {
		window->rates[1] = window->rates[0];
		window->rates[0] = 0;
		window->period_ns = now_ns;
	}
	window->rates[0] = max(window->rates[0], min(rate, (uint64_t)RATE_MAX));
	window->round_trip_us = min(round_trip_us, (uint32_t)ROUND_TRIP_MAX);
}

/* A quarter more than the rate needs, so that a rate taken for too low is found out. */
uint64_t window_bytes(const struct window *window)
{
	uint64_t time_us = window->round_trip_us + window->round_trip_us / 4 + SLACK_US;

	return max((uint64_t)WINDOW_MIN, best_rate(window) * time_us / 1000000);
}
