/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the source sends next. Knows pages and the order they go in; knows
 * nothing of sockets or of what is in the pages.
 *
 * Requested pages go first, whoever's turn it is; then, request message by
 * request message, the pages around the requested ones; then the rest of
 * memory. Each page goes once, except one that is requested after it went on
 * bulk: it may be stuck there, so it goes again on urgent. A page that went on
 * urgent arrives before anything sent later and is not sent again unless the
 * request insists.
 *
 * Takes two bits a page of memory.
 */
#ifndef UMEMD_SCHEDULER_H
#define UMEMD_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "umemd/codec.h"

#define SCHEDULER_QUEUE		4096	/* requested pages remembered; a power of two */

struct scheduler_region {
	uint64_t pages;
	uint64_t *sent;
	uint64_t *urgent;	/* subset of @sent: went on the urgent channel */
};

/**
 * struct scheduler_policy - what the user chose
 * @forward: pages sent along after each requested page
 * @backward: pages sent along before it
 * @push: send what nobody asked for
 * @follow: pushing goes on behind the last requested page
 */
struct scheduler_policy {
	uint64_t forward;
	uint64_t backward;
	bool push;
	bool follow;
};

enum pick_kind {
	PICK_REQUESTED,
	PICK_PREFAULT,
	PICK_BULK,
};

struct pick {
	enum pick_kind kind;
	uint32_t region;
	uint64_t page;
};

/* One request message, its pages in the ring from @first on. */
struct scheduler_message {
	uint32_t region;
	uint32_t first;
	uint32_t count;
	bool again;
	uint64_t distance;	/* prefault: 1..forward, then 1..backward */
	uint32_t next;		/* prefault: page of the message whose neighbour is next */
	bool backward;
};

struct scheduler {
	struct scheduler_policy policy;
	struct scheduler_region *regions;
	uint32_t nr_regions;

	struct scheduler_message messages[SCHEDULER_QUEUE];
	uint64_t ring[SCHEDULER_QUEUE];
	/* Free running; the difference is what is in the queue. */
	uint32_t message_head, message_asked, message_tail;
	uint32_t ring_head, ring_tail;
	uint32_t asked_next;	/* of messages[message_asked]: page that is next */

	uint32_t bulk_region;
	uint64_t bulk_page;

	uint64_t pages_total;
	uint64_t pages_sent;	/* different ones */
	uint64_t duplicates;	/* sent again */
	uint64_t prefault_pages;	/* sent as a neighbour of a requested one */
	uint64_t prefault_hits;	/* requested when they were sent already, and so not sent again */
};

/**
 * scheduler_init - everything is unsent
 * @pages: pages of each region
 *
 * Return: 0 or -ENOMEM.
 */
int scheduler_init(struct scheduler *scheduler, const struct scheduler_policy *policy,
		   const uint64_t *pages, uint32_t nr_regions);
void scheduler_destroy(struct scheduler *scheduler);

/**
 * scheduler_request - one request message came
 * @pages: page numbers, all inside the region
 * @again: send them even if they went on urgent before
 *
 * Prefault of older messages is given up when there is no room otherwise.
 *
 * Return: 0 or -ENOBUFS: take pages first; nothing was queued.
 */
int scheduler_request(struct scheduler *scheduler, uint32_t region, const uint64_t *pages,
		      uint32_t count, bool again);

/**
 * scheduler_room - how many requested pages surely fit now
 */
uint32_t scheduler_room(const struct scheduler *scheduler);

/**
 * scheduler_urgent - what is next on the urgent channel
 *
 * Return: false if there is nothing.
 */
bool scheduler_urgent(struct scheduler *scheduler, struct pick *pick);

/**
 * scheduler_bulk - what is next on the bulk channel
 *
 * Return: false if there is nothing, or nothing as long as urgent has something.
 */
bool scheduler_bulk(struct scheduler *scheduler, struct pick *pick);

/**
 * scheduler_precopy - what is next while the guest still runs
 *
 * Requests have to wait: the page is not final.
 *
 * Return: false if there is nothing.
 */
bool scheduler_precopy(struct scheduler *scheduler, struct pick *pick);

/**
 * scheduler_dirty - pages the guest has written to since they were sent
 * @first: page number of the first bit, a multiple of 64
 * @words: the range they cover lies in the region
 *
 * They are unsent again, but for those that went on urgent: when that was
 * allowed the guest had stopped.
 */
void scheduler_dirty(struct scheduler *scheduler, uint32_t region, uint64_t first,
		     const uint64_t *bits, uint32_t words);

/**
 * scheduler_unsent - pages of a region that are to be sent
 * @range: [@first, @end) is searched, and becomes the first such range in it
 *
 * Return: false if there is none.
 */
bool scheduler_unsent(const struct scheduler *scheduler, uint32_t region,
		      struct page_range *range);

/**
 * scheduler_take - what scheduler_urgent(), scheduler_bulk() or
 * scheduler_precopy() gave is sent
 */
void scheduler_take(struct scheduler *scheduler, const struct pick *pick);

/**
 * scheduler_restart - forget what was sent and asked: a connection was lost
 *
 * What the other side has is told with scheduler_present().
 */
void scheduler_restart(struct scheduler *scheduler);

/**
 * scheduler_present - pages the other side has
 * @first: page number of the first bit, a multiple of 64
 * @words: the range they cover lies in the region
 */
void scheduler_present(struct scheduler *scheduler, uint32_t region, uint64_t first,
		       const uint64_t *bits, uint32_t words);

/**
 * scheduler_all_sent - every page went at least once
 */
bool scheduler_all_sent(const struct scheduler *scheduler);

#endif
