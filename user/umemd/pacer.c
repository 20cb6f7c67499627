// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/pacer.h"

#include "common/util.h"

static uint64_t elapsed(const struct pacer *pacer, uint64_t now)
{
	return now > pacer->at_ns ? now - pacer->at_ns : 0;
}

/* rate * ns / NSEC_PER_SEC, at most INT64_MAX, with no overflow on the way. */
static int64_t earned(uint64_t rate, uint64_t ns)
{
	uint64_t seconds = ns / NSEC_PER_SEC, rest = ns % NSEC_PER_SEC;
	uint64_t whole, part = rate / NSEC_PER_SEC * rest +
			       rate % NSEC_PER_SEC * rest / NSEC_PER_SEC;

	if (__builtin_mul_overflow(rate, seconds, &whole) ||
	    __builtin_add_overflow(whole, part, &whole) || whole > INT64_MAX)
		return INT64_MAX;
	return (int64_t)whole;
}

/* The time in which @rate earns @bytes: never less, little more, saturated. */
static uint64_t time_of(uint64_t rate, uint64_t bytes)
{
	uint64_t seconds = bytes / rate, rest = bytes % rate;
	uint64_t whole, part;

	if (rest <= UINT64_MAX / NSEC_PER_SEC)
		part = rest * NSEC_PER_SEC / rate + 1;
	else	/* the rate is above @rest and so far above NSEC_PER_SEC */
		part = rest / (rate / NSEC_PER_SEC) + 1;
	if (__builtin_mul_overflow(seconds, NSEC_PER_SEC, &whole) ||
	    __builtin_add_overflow(whole, part, &whole))
		return UINT64_MAX;
	return whole;
}

/* Up to @now, with what the time since then has brought. */
static void bring_up(struct pacer *pacer, uint64_t now)
{
	int64_t most = (int64_t)(pacer->rate / PACER_PART);

	if (__builtin_add_overflow(pacer->balance, earned(pacer->rate, elapsed(pacer, now)),
				   &pacer->balance) || pacer->balance > most)
		pacer->balance = most;
	pacer->at_ns = max(pacer->at_ns, now);
}

void pacer_set(struct pacer *pacer, uint64_t rate, uint64_t now)
{
	bool limited = pacer->rate;

	bring_up(pacer, now);
	pacer->rate = rate;
	if (!limited || !rate)
		pacer->balance = 0;
	pacer->balance = min(pacer->balance, (int64_t)(rate / PACER_PART));
}

uint64_t pacer_wait(const struct pacer *pacer, uint64_t now)
{
	uint64_t wait, passed = elapsed(pacer, now);

	if (!pacer->rate || pacer->balance >= 0)
		return 0;
	wait = time_of(pacer->rate, -(uint64_t)pacer->balance);
	return wait > passed ? wait - passed : 0;
}

uint64_t pacer_frame(const struct pacer *pacer)
{
	return pacer->rate ? pacer->rate / PACER_PART : UINT64_MAX;
}

void pacer_sent(struct pacer *pacer, uint64_t bytes, uint64_t now)
{
	if (!pacer->rate)
		return;
	bring_up(pacer, now);
	if (__builtin_sub_overflow(pacer->balance, (int64_t)min(bytes, (uint64_t)INT64_MAX),
				   &pacer->balance))
		pacer->balance = INT64_MIN;
}
