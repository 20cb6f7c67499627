// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/damage.h"

#include <stddef.h>

void damage_init(struct damage *damage)
{
	damage->count = 0;
	damage->full = false;
}

static struct damaged_page *find(const struct damage *damage, uint32_t region, uint64_t page)
{
	for (uint32_t i = 0; i < damage->count; i++) {
		const struct damaged_page *damaged = &damage->pages[i];

		if (damaged->page == page && damaged->region == region)
			return (struct damaged_page *)damaged;
	}
	return NULL;
}

static void put_off(struct damaged_page *damaged, uint64_t now)
{
	unsigned int doublings = min(damaged->times - DAMAGE_REPORTED, 8u);

	damaged->ask_ns = now + min(DAMAGE_WAIT_NS << doublings, DAMAGE_WAIT_MAX_NS);
}

uint32_t damage_add(struct damage *damage, uint32_t region, uint64_t page, uint64_t now)
{
	struct damaged_page *damaged = find(damage, region, page);

	if (!damaged) {
		if (damage->count == DAMAGE_MAX) {
			damage->full = true;
			return 0;
		}
		damaged = &damage->pages[damage->count++];
		*damaged = (struct damaged_page){ .page = page, .region = region };
	}
	if (++damaged->times >= DAMAGE_REPORTED)
		put_off(damaged, now);
	return damaged->times;
}

void damage_remove(struct damage *damage, uint32_t region, uint64_t page)
{
	struct damaged_page *damaged = find(damage, region, page);

	if (damaged)
		*damaged = damage->pages[--damage->count];
}

bool damage_waits(const struct damage *damage, uint32_t region, uint64_t page)
{
	const struct damaged_page *damaged = find(damage, region, page);

	return damaged && damaged->times >= DAMAGE_REPORTED;
}

bool damage_due(struct damage *damage, uint32_t region, uint64_t now, uint64_t *page)
{
	for (uint32_t i = 0; i < damage->count; i++) {
		struct damaged_page *damaged = &damage->pages[i];

		if (damaged->region != region || damaged->times < DAMAGE_REPORTED ||
		    now < damaged->ask_ns)
			continue;
		put_off(damaged, now);
		*page = damaged->page;
		return true;
	}
	return false;
}
