/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much of bulk may be on the way at once. What is on the way lies in queues
 * that a request's answer has to pass, so it is kept to what the link needs:
 * its rate times its round trip, and half a millisecond for whoever is late.
 */
#ifndef UMEMD_WINDOW_H
#define UMEMD_WINDOW_H

#include <stdint.h>

#define WINDOW_MIN		(128 * 1024)
#define WINDOW_PERIOD_NS	1000000000ULL

/**
 * struct window - what is known of the link
 * @rates: bytes a second, the best of the period that runs and of the one before
 * @period_ns: when the period that runs began
 * @round_trip_us: the shortest one seen
 */
struct window {
	uint64_t rates[2];
	uint64_t period_ns;
	uint32_t round_trip_us;
};

/* What TCP measured: its last delivery rate and its shortest round trip. */
void window_sample(struct window *window, uint64_t now_ns, uint64_t rate, uint32_t round_trip_us);

/* Bytes that may be on the way. */
uint64_t window_bytes(const struct window *window);

#endif
