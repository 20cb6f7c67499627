// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/precopy.h"

#include "common/util.h"
#include "umemd/codec.h"

void precopy_begin(struct precopy *precopy, uint64_t now, uint64_t cpu)
{
	precopy->round++;
	precopy->step = PRECOPY_COLLECT;
	precopy->begun_ns = now;
	precopy->collect_ns = -cpu;
}

uint64_t precopy_expected_ms(const struct precopy *precopy, uint64_t pages)
{
	double ms = (double)pages * PAGE_BYTES * 1e3;

	if (!pages)
		return 0;
	if (!precopy->rate)
		return UINT64_MAX;
	ms /= (double)precopy->rate;
	return ms < 1e18 ? (uint64_t)ms + (ms > (double)(uint64_t)ms) : UINT64_MAX;
}

bool precopy_collected(struct precopy *precopy, uint64_t dirty, uint64_t bytes, uint64_t now,
		       uint64_t cpu)
{
	bool was = precopy->converged;

	precopy->step = PRECOPY_SEND;
	precopy->dirty = dirty;
	precopy->collect_ns += cpu;
	precopy->send_ns = now;
	precopy->send_bytes = bytes;
	/* In the first round every page is dirty, and that says nothing. */
	if (precopy->round > 1 && precopy_expected_ms(precopy, dirty) <= precopy->limit_ms)
		precopy->converged = true;
	return precopy->converged && !was;
}

void precopy_sent(struct precopy *precopy, uint64_t bytes, uint64_t now)
{
	uint64_t sent = bytes - precopy->send_bytes;
	uint64_t elapsed = max(now - precopy->send_ns, (uint64_t)1);

	precopy->step = PRECOPY_WAIT;
	if (sent >= PRECOPY_RATE_BYTES || !precopy->rate)
		precopy->rate = (uint64_t)((double)sent * 1e9 / (double)elapsed);
}

uint64_t precopy_wait(const struct precopy *precopy, uint64_t now)
{
	uint64_t next = precopy->begun_ns +
			max(PRECOPY_PERIOD_NS, precopy->collect_ns * PRECOPY_COLLECT_PART);

	return next > now ? next - now : 0;
}
