/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that somebody waits for, since when and who. Bounded: a page that does not
 * fit is asked for all the same, only its waiting time is not known.
 */
#ifndef UMEMD_PENDING_H
#define UMEMD_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#define PENDING_SLOTS	65536	/* a power of two */
#define PENDING_MAX	(PENDING_SLOTS / 4 * 3)

/**
 * struct pending_wait - what is known of a page's waiting
 * @time_ns: when it was asked for
 * @tid: by which thread
 */
struct pending_wait {
	uint64_t time_ns;
	uint32_t tid;
};

struct pending_slot {
	uint64_t page;
	struct pending_wait wait;
	uint32_t region;
	bool used;
};

struct pending {
	uint32_t count;
	struct pending_slot *slots;
};

enum pending_result {
	PENDING_NEW,
	PENDING_KNOWN,
	PENDING_FULL,
};

/* Return: 0 or -ENOMEM. */
int pending_init(struct pending *pending);
void pending_destroy(struct pending *pending);

enum pending_result pending_add(struct pending *pending, uint32_t region, uint64_t page,
				const struct pending_wait *wait);

/* Return: whether the page was there; then @wait is what it was added with. */
bool pending_remove(struct pending *pending, uint32_t region, uint64_t page,
		    struct pending_wait *wait);

#endif
