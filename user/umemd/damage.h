/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that came damaged and have not come well since: how often, and when each is to be
 * asked for again. The first times that is at once; a page that keeps coming damaged is
 * reported and asked for ever more seldom. Bounded: what does not fit is not remembered.
 */
#ifndef UMEMD_DAMAGE_H
#define UMEMD_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util.h"

#define DAMAGE_MAX		1024			/* pages */
#define DAMAGE_REPORTED		3			/* times, and it is reported */
#define DAMAGE_WAIT_NS		(250 * NSEC_PER_MSEC)	/* doubles from then on, up to */
#define DAMAGE_WAIT_MAX_NS	(8 * NSEC_PER_SEC)

/**
 * struct damaged_page - one of them
 * @times: that it came damaged
 * @ask_ns: from DAMAGE_REPORTED times on: when to ask again
 */
struct damaged_page {
	uint64_t page, ask_ns;
	uint32_t region, times;
};

/**
 * struct damage - all of them
 * @full: one did not fit
 */
struct damage {
	uint32_t count;
	bool full;
	struct damaged_page pages[DAMAGE_MAX];
};

void damage_init(struct damage *damage);

/**
 * damage_add - a page came damaged
 *
 * Below DAMAGE_REPORTED it is to be asked for at once; from then on damage_due() says when.
 *
 * Return: how often it has; 0: it does not fit.
 */
uint32_t damage_add(struct damage *damage, uint32_t region, uint64_t page, uint64_t now);

/* It is there, or needed no more. */
void damage_remove(struct damage *damage, uint32_t region, uint64_t page);

/* Does damage_due() look after it? Then nobody else need ask. */
bool damage_waits(const struct damage *damage, uint32_t region, uint64_t page);

/**
 * damage_due - a page of @region that is to be asked for now
 * @page: filled
 *
 * It comes again, later, unless it is removed.
 *
 * Return: whether there is one.
 */
bool damage_due(struct damage *damage, uint32_t region, uint64_t now, uint64_t *page);

#endif
