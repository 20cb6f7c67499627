// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/pending.h"

#include <errno.h>
#include <stdlib.h>

int pending_init(struct pending *pending)
{
	pending->count = 0;
	pending->slots = calloc(PENDING_SLOTS, sizeof(*pending->slots));
	return pending->slots ? 0 : -ENOMEM;
}

void pending_destroy(struct pending *pending)
{
	free(pending->slots);
	pending->slots = NULL;
}

static uint32_t home(uint32_t region, uint64_t page)
{
	uint64_t key = page ^ (uint64_t)region << 40;

	return (uint32_t)(key * 0x9e3779b97f4a7c15ULL >> 48) & (PENDING_SLOTS - 1);
}

/* The slot of the page, or the empty one where it belongs. */
static uint32_t find(const struct pending *pending, uint32_t region, uint64_t page)
{
	uint32_t at = home(region, page);

	while (pending->slots[at].used &&
	       (pending->slots[at].page != page || pending->slots[at].region != region))
		at = (at + 1) & (PENDING_SLOTS - 1);
	return at;
}

enum pending_result pending_add(struct pending *pending, uint32_t region, uint64_t page,
				const struct pending_wait *wait)
{
	struct pending_slot *slot = &pending->slots[find(pending, region, page)];

	if (slot->used)
		return PENDING_KNOWN;
	if (pending->count == PENDING_MAX)
		return PENDING_FULL;
	*slot = (struct pending_slot){ page, *wait, region, true };
	pending->count++;
	return PENDING_NEW;
}

bool pending_remove(struct pending *pending, uint32_t region, uint64_t page,
		    struct pending_wait *wait)
{
	uint32_t hole;

	/* Mostly nobody waits, and most pages come unasked. */
	if (!pending->count)
		return false;
	hole = find(pending, region, page);
	if (!pending->slots[hole].used)
		return false;
	*wait = pending->slots[hole].wait;
	pending->count--;

	/* Close the gap: what was pushed past the hole moves back into it. */
	for (uint32_t at = hole;;) {
		uint32_t wanted;

		at = (at + 1) & (PENDING_SLOTS - 1);
		if (!pending->slots[at].used)
			break;
		wanted = home(pending->slots[at].region, pending->slots[at].page);
		if (((at - wanted) & (PENDING_SLOTS - 1)) >= ((at - hole) & (PENDING_SLOTS - 1))) {
			pending->slots[hole] = pending->slots[at];
			hole = at;
		}
	}
	pending->slots[hole].used = false;
	return true;
}
