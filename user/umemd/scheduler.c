// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/scheduler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "umemd/bitmap.h"

#define AT(i) ((i) & (SCHEDULER_QUEUE - 1))

int scheduler_init(struct scheduler *scheduler, const struct scheduler_policy *policy,
		   const uint64_t *pages, uint32_t nr_regions)
{
	memset(scheduler, 0, sizeof(*scheduler));
	scheduler->policy = *policy;
	scheduler->regions = calloc(nr_regions, sizeof(*scheduler->regions));
	if (!scheduler->regions)
		return -ENOMEM;

	for (uint32_t i = 0; i < nr_regions; i++) {
		struct scheduler_region *region = &scheduler->regions[i];

		region->pages = pages[i];
		region->sent = calloc(bitmap_words(pages[i]), sizeof(*region->sent));
		region->urgent = calloc(bitmap_words(pages[i]), sizeof(*region->urgent));
		scheduler->nr_regions++;
		if (!region->sent || !region->urgent) {
			scheduler_destroy(scheduler);
			return -ENOMEM;
		}
		scheduler->pages_total += pages[i];
	}
	return 0;
}

void scheduler_destroy(struct scheduler *scheduler)
{
	for (uint32_t i = 0; i < scheduler->nr_regions; i++) {
		free(scheduler->regions[i].sent);
		free(scheduler->regions[i].urgent);
	}
	free(scheduler->regions);
	memset(scheduler, 0, sizeof(*scheduler));
}

static void drop_head(struct scheduler *scheduler)
{
	scheduler->ring_head += scheduler->messages[AT(scheduler->message_head)].count;
	scheduler->message_head++;
}

uint32_t scheduler_room(const struct scheduler *scheduler)
{
	/* Pages of messages that are in prefault can be given up. */
	uint32_t oldest = scheduler->ring_tail;

	if (scheduler->message_asked != scheduler->message_tail)
		oldest = scheduler->messages[AT(scheduler->message_asked)].first;
	return SCHEDULER_QUEUE - (scheduler->ring_tail - oldest);
}

static void follow(struct scheduler *scheduler, uint32_t region, uint64_t last)
{
	uint64_t after = scheduler->policy.forward + 1;

	if (after < scheduler->regions[region].pages - last) {
		scheduler->bulk_region = region;
		scheduler->bulk_page = last + after;
	} else {
		scheduler->bulk_region = (region + 1) % scheduler->nr_regions;
		scheduler->bulk_page = 0;
	}
}

int scheduler_request(struct scheduler *scheduler, uint32_t region, const uint64_t *pages,
		      uint32_t count, bool again)
{
	struct scheduler_message *message;

	if (count > scheduler_room(scheduler))
		return -ENOBUFS;
	while (scheduler->ring_tail - scheduler->ring_head + count > SCHEDULER_QUEUE)
		drop_head(scheduler);

	message = &scheduler->messages[AT(scheduler->message_tail)];
	*message = (struct scheduler_message){
		.region = region,
		.first = scheduler->ring_tail,
		.count = count,
		.again = again,
		.distance = 1,
	};
	scheduler->message_tail++;
	for (uint32_t i = 0; i < count; i++)
		scheduler->ring[AT(scheduler->ring_tail++)] = pages[i];

	if (scheduler->policy.follow)
		follow(scheduler, region, pages[count - 1]);
	return 0;
}

static bool next_requested(struct scheduler *scheduler, struct pick *pick)
{
	while (scheduler->message_asked != scheduler->message_tail) {
		const struct scheduler_message *message =
			&scheduler->messages[AT(scheduler->message_asked)];
		const struct scheduler_region *region = &scheduler->regions[message->region];

		for (; scheduler->asked_next < message->count; scheduler->asked_next++) {
			uint64_t page = scheduler->ring[AT(message->first + scheduler->asked_next)];

			if (!message->again && bitmap_test(region->urgent, page)) {
				scheduler->prefault_hits++;
				continue;
			}
			*pick = (struct pick){ PICK_REQUESTED, message->region, page };
			return true;
		}
		scheduler->message_asked++;
		scheduler->asked_next = 0;
	}
	return false;
}

static bool neighbour(const struct scheduler_message *message, uint64_t page, uint64_t pages,
		      uint64_t *result)
{
	if (message->backward) {
		*result = page - message->distance;
		return message->distance <= page;
	}
	*result = page + message->distance;
	return message->distance < pages - page;
}

/*
 * The neighbours of a message's pages, near ones first. Where it stands is kept
 * in the message, so each call goes on from there.
 */
static bool next_neighbour(struct scheduler *scheduler, struct scheduler_message *message,
			   struct pick *pick)
{
	const struct scheduler_region *region = &scheduler->regions[message->region];

	for (;;) {
		uint64_t reach = message->backward ? scheduler->policy.backward :
						     scheduler->policy.forward;
		bool inside = false;

		if (message->distance > reach) {
			if (message->backward)
				return false;
			message->backward = true;
			message->distance = 1;
			continue;
		}
		for (; message->next < message->count; message->next++) {
			uint64_t page = scheduler->ring[AT(message->first + message->next)];

			if (!neighbour(message, page, region->pages, &page))
				continue;
			inside = true;
			if (bitmap_test(region->sent, page))
				continue;
			*pick = (struct pick){ PICK_PREFAULT, message->region, page };
			return true;
		}
		message->next = 0;
		/* No page has a neighbour that far: none has one farther. */
		message->distance = inside ? message->distance + 1 : reach + 1;
	}
}

static bool next_prefault(struct scheduler *scheduler, struct pick *pick)
{
	while (scheduler->message_head != scheduler->message_asked) {
		if (next_neighbour(scheduler, &scheduler->messages[AT(scheduler->message_head)],
				   pick))
			return true;
		drop_head(scheduler);
	}
	return false;
}

bool scheduler_urgent(struct scheduler *scheduler, struct pick *pick)
{
	return next_requested(scheduler, pick) || next_prefault(scheduler, pick);
}

/* There is one. */
static void next_unsent(struct scheduler *scheduler, struct pick *pick)
{
	for (;;) {
		const struct scheduler_region *region = &scheduler->regions[scheduler->bulk_region];

		scheduler->bulk_page = bitmap_find(region->sent, false, scheduler->bulk_page,
						   region->pages);
		if (scheduler->bulk_page < region->pages) {
			*pick = (struct pick){ PICK_BULK, scheduler->bulk_region,
					       scheduler->bulk_page };
			return;
		}
		scheduler->bulk_region = (scheduler->bulk_region + 1) % scheduler->nr_regions;
		scheduler->bulk_page = 0;
	}
}

bool scheduler_bulk(struct scheduler *scheduler, struct pick *pick)
{
	if (!scheduler->policy.push || scheduler_all_sent(scheduler) ||
	    scheduler_urgent(scheduler, pick))
		return false;
	next_unsent(scheduler, pick);
	return true;
}

bool scheduler_precopy(struct scheduler *scheduler, struct pick *pick)
{
	if (scheduler_all_sent(scheduler))
		return false;
	next_unsent(scheduler, pick);
	return true;
}

void scheduler_dirty(struct scheduler *scheduler, uint32_t region, uint64_t first,
		     const uint64_t *bits, uint32_t words)
{
	struct scheduler_region *r = &scheduler->regions[region];

	for (uint32_t i = 0; i < words; i++) {
		uint64_t at = first / 64 + i;
		uint64_t again = bits[i] & r->sent[at] & ~r->urgent[at];

		scheduler->pages_sent -= (uint64_t)__builtin_popcountll(again);
		r->sent[at] &= ~again;
	}
}

bool scheduler_unsent(const struct scheduler *scheduler, uint32_t region,
		      struct page_range *range)
{
	const struct scheduler_region *r = &scheduler->regions[region];
	uint64_t end = range->end;

	range->first = bitmap_find(r->sent, false, range->first, end);
	range->end = bitmap_find(r->sent, true, range->first, end);
	return range->first < end;
}

void scheduler_take(struct scheduler *scheduler, const struct pick *pick)
{
	struct scheduler_region *region = &scheduler->regions[pick->region];

	if (bitmap_set(region->sent, pick->page))
		scheduler->pages_sent++;
	else
		scheduler->duplicates++;
	if (pick->kind != PICK_BULK)
		bitmap_set(region->urgent, pick->page);
	scheduler->prefault_pages += pick->kind == PICK_PREFAULT;
	if (pick->kind == PICK_REQUESTED &&
	    ++scheduler->asked_next == scheduler->messages[AT(scheduler->message_asked)].count) {
		scheduler->message_asked++;
		scheduler->asked_next = 0;
	}
}

void scheduler_restart(struct scheduler *scheduler)
{
	for (uint32_t i = 0; i < scheduler->nr_regions; i++) {
		struct scheduler_region *region = &scheduler->regions[i];
		size_t size = bitmap_words(region->pages) * sizeof(*region->sent);

		memset(region->sent, 0, size);
		memset(region->urgent, 0, size);
	}
	scheduler->message_head = scheduler->message_asked = scheduler->message_tail = 0;
	scheduler->ring_head = scheduler->ring_tail = 0;
	scheduler->asked_next = 0;
	scheduler->bulk_region = 0;
	scheduler->bulk_page = 0;
	scheduler->pages_sent = 0;
}

void scheduler_present(struct scheduler *scheduler, uint32_t region, uint64_t first,
		       const uint64_t *bits, uint32_t words)
{
	struct scheduler_region *r = &scheduler->regions[region];

	for (uint32_t i = 0; i < words; i++) {
		uint64_t at = first / 64 + i;
		uint64_t word = bits[i];

		if (at == r->pages / 64)
			word &= (1ULL << (r->pages % 64)) - 1;
		scheduler->pages_sent += (uint64_t)__builtin_popcountll(word & ~r->sent[at]);
		r->sent[at] |= word;
	}
}

bool scheduler_all_sent(const struct scheduler *scheduler)
{
	return scheduler->pages_sent == scheduler->pages_total;
}
