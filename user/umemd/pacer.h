/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast something may be sent: a bucket of bytes that fills with time. What is
 * sent is taken from it and may take it below nothing; then there is to be waited.
 * Time is given from outside.
 */
#ifndef UMEMD_PACER_H
#define UMEMD_PACER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The bucket holds this part of a second, and one frame should not be more: over
 * any second no more than twice that is sent above the rate.
 */
#define PACER_PART	50

/**
 * struct pacer - a limit and what is left of it
 * @rate: bytes a second; 0: no limit
 * @balance: bytes that could go at @at_ns; below 0 they went in advance
 */
struct pacer {
	uint64_t rate;
	int64_t balance;
	uint64_t at_ns;
};

/**
 * pacer_set - another limit, from @now on
 * @rate: bytes a second; 0: no limit
 *
 * What went in advance stays so, in bytes: it is waited for at the new rate.
 */
void pacer_set(struct pacer *pacer, uint64_t rate, uint64_t now);

/**
 * pacer_wait - how long nothing may be sent
 *
 * Return: nanoseconds from @now on; 0 if something may be sent.
 */
uint64_t pacer_wait(const struct pacer *pacer, uint64_t now);

/**
 * pacer_frame - how many bytes to send at once at most
 *
 * Whoever has to send more than that in one piece may: the wait is longer then.
 */
uint64_t pacer_frame(const struct pacer *pacer);

/**
 * pacer_sent - @bytes went, all at @now
 */
void pacer_sent(struct pacer *pacer, uint64_t bytes, uint64_t now);

#endif
