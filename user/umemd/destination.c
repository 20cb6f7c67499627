// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The side the guest comes to: listens, hands the device state on, asks for the
 * pages somebody waits for, and puts every page that comes where it belongs.
 *
 * In each turn of the loop faults and the urgent channel go first, and bulk gets
 * one frame, so that a request never waits behind much of it.
 */
#include "umemd/destination.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "libumem.h"
#include "umemd/bitmap.h"
#include "umemd/checksum.h"
#include "umemd/compress.h"
#include "umemd/damage.h"
#include "umemd/errands.h"
#include "umemd/headroom.h"
#include "umemd/pending.h"
#include "umemd/sandbox.h"
#include "umemd/side.h"
#include "umemd/strangers.h"

#define HANDSHAKE_NS		(10 * NSEC_PER_SEC)
#define END_NS			(60 * NSEC_PER_SEC)	/* for a source that lost END */
#define REPAIR_NS		(1 * NSEC_PER_SEC)
#define EVENTS_BATCH		64
#define REQUESTS_UNSENT		(32 * 1024)
#define STATE_UNSENT		(256 * 1024)
#define PREPARE_MARK		(1ULL << 30)	/* each waits for all CPUs */
#define PREPARE_STEP		(16ULL << 20)
#define PREPARE_TOLD_NS		(2 * NSEC_PER_SEC)
#define PREPARE_SPARE		(4ULL << 20)	/* with less left the kernel kills */
#define DAMAGED_TOLD_MAX	64	/* pages that are told of one by one */
#define GONE_BATCH		256	/* ranges of one event */
#define GONE_RANGES_MAX		16384	/* that are told of */

struct destination;

/**
 * struct destination_region - memory to fill
 * @index: its place in the array
 * @number: what the source calls it
 * @present: one bit a page
 * @early: pages that came early and are good, but are not published; NULL without
 *	pre-copy. What else there is of a missing page is zeroes
 * @named: pages whose early copies are old, also those that come yet: control may
 *	overtake bulk
 */
struct destination_region {
	struct destination *destination;
	struct watch watch;	/* of the pager */
	int fd;
	uint32_t index, number;
	uint64_t length, pages, nr_present;
	uint64_t *present;
	uint64_t *early, *named;
};

struct destination {
	struct side side;
	struct pending pending;
	struct damage damage;
	uint64_t damage_told_ns;
	uint64_t overflow_ns;		/* when what does not fit there was last asked for */
	struct errands errands;
	struct headroom headroom;
	struct destination_region regions[REGIONS_MAX];
	uint32_t by_number[REGIONS_MAX];	/* the source's number to ours */
	uint32_t nr_regions;

	struct strangers strangers;
	struct decompressor *decompressor;	/* once a source offered zstd */
	uint8_t *unpacked;		/* pages of one frame */

	uint32_t prepare_region;	/* what is next to be made ready */
	uint64_t prepare_offset;
	uint64_t prepare_told_ns;	/* when it was said how far that is */
	uint32_t resume_region;		/* whose bitmap is next to be sent */
	uint64_t resume_word;

	uint8_t state_buffer[STATE_UNSENT];
	size_t state_start, state_used;
	bool state_touched;		/* QEMU was given some of it */
	bool state_ending;		/* STATE_END came */

	uint32_t synced;	/* bit n: bulk channel n said SYNC, and waits for the others */
	bool bulk_goes_on;	/* what no poll tells of may be read on bulk now */
	bool early_over;	/* the last SYNC came on each */
	bool discards_over;	/* PUBLISH came */
	bool ready;		/* QEMU could run the guest */

	bool all_sent;
	uint64_t page_ns;		/* when a page last came */
	uint64_t deadline_ns;		/* of joining; at the end, of staying */
};

static bool precopies(const struct destination *destination)
{
	return destination->side.features & FEATURE_PRECOPY;
}

/* Return: whether early pages can be taken from now on. */
static bool prepare_precopy(struct destination *destination)
{
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		struct destination_region *region = &destination->regions[i];

		region->early = calloc(bitmap_words(region->pages), sizeof(*region->early));
		region->named = calloc(bitmap_words(region->pages), sizeof(*region->named));
		if (!region->early || !region->named)
			return false;
	}
	return true;
}

static void forget_early(struct destination *destination)
{
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		free(destination->regions[i].early);
		free(destination->regions[i].named);
		destination->regions[i].early = destination->regions[i].named = NULL;
	}
}

/* Everything that came early is either shown or void. */
static bool precopy_is_over(const struct destination *destination)
{
	return !precopies(destination) || (destination->early_over && destination->discards_over);
}

/* Nothing was given to QEMU yet: forget the peer and wait for another. */
static void start_over(struct destination *destination, const char *why)
{
	side_close_channels(&destination->side);
	session_init(&destination->side.session, ROLE_DESTINATION);
	destination->state_start = destination->state_used = 0;
	destination->state_ending = false;
	destination->deadline_ns = 0;
	damage_init(&destination->damage);
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		if (destination->regions[i].nr_present || destination->regions[i].early)
			destination->prepare_region = 0;	/* drop what came */
	}
	forget_early(destination);
	destination->synced = 0;
	destination->early_over = destination->discards_over = false;
	launcher_message(&destination->side.launcher, "refused", "%s", why);
}

static void over(void *owner, const char *why)
{
	struct destination *destination = owner;

	if (!destination->state_touched) {
		start_over(destination, why);
		return;
	}
	/* GO was not said, and will not be: the launcher may take it for possible. */
	launcher_send(&destination->side.launcher, json_pack("{s:s,s:n}", "event", "session",
							     "session"));
	side_fail(&destination->side, "%s", why);
}

static const char *paused(void *owner)
{
	const struct destination *destination = owner;

	if (destination->side.session.state != SESSION_PAUSED)
		return NULL;
	return destination->side.stream ? "the source cannot connect again" :
					  "waiting for the source to connect again";
}

static void count(void *owner)
{
	struct destination *destination = owner;

	destination->side.progress.pages_done = 0;
	for (uint32_t i = 0; i < destination->nr_regions; i++)
		destination->side.progress.pages_done += destination->regions[i].nr_present;
}

/* Asking for pages. */

static bool may_ask(const struct destination *destination)
{
	enum session_state state = destination->side.session.state;

	return side_idlest(&destination->side, CHANNEL_URGENT, false) && state >= SESSION_ADVISE &&
	       state <= SESSION_RUNNING;
}

static void ask(struct destination *destination, const struct destination_region *region,
		const uint64_t *pages, uint32_t count, bool again)
{
	struct frame frame = {
		.type = FRAME_REQUEST,
		.flags = again ? FRAME_REQUEST_AGAIN : 0,
		.region = region->number,
		.count = count,
	};
	struct channel *channel = side_idlest(&destination->side, CHANNEL_URGENT, false);
	uint8_t payload[8 * REQUEST_MAX];

	if (!count || !may_ask(destination))
		return;
	frame.length = (uint32_t)request_encode(payload, pages, count);
	destination->side.progress.requests += count;
	side_sent(&destination->side, channel, channel_send(channel, &frame, payload));
}

/*
 * Pages of @region that are missing and set in @wanted, all of them if NULL; but not
 * those that come damaged and have a time of their own.
 */
static void ask_for_all(struct destination *destination, struct destination_region *region,
			const uint64_t *wanted, uint64_t limit, bool again)
{
	uint64_t pages[REQUEST_MAX];
	uint64_t page = 0;
	uint32_t count = 0;

	while (limit) {
		page = bitmap_find(region->present, false, page, region->pages);
		if (page == region->pages)
			break;
		if ((!wanted || bitmap_test(wanted, page)) &&
		    !damage_waits(&destination->damage, region->index, page)) {
			pages[count++] = page;
			limit--;
		}
		page++;
		if (count == REQUEST_MAX) {
			ask(destination, region, pages, count, again);
			count = 0;
		}
	}
	ask(destination, region, pages, count, again);
}

/* What is waited for, whether it was asked for or not. */
static void ask_for_requested(struct destination *destination, bool again)
{
	for (uint32_t i = 0; i < destination->nr_regions && may_ask(destination); i++) {
		struct destination_region *region = &destination->regions[i];
		uint64_t *wanted = calloc(umem_bitmap_words(region->length), sizeof(*wanted));
		int err = -ENOMEM;

		if (wanted)
			err = umem_get_bitmap(region->watch.fd, UMEM_BITMAP_REQUESTED, 0,
					      region->length, wanted);
		if (err)
			side_fail(&destination->side, "region \"%s\": cannot tell what is waited for: %s",
				  destination->side.options->regions[i].name, strerror(-err));
		else
			ask_for_all(destination, region, wanted, CHANNEL_OUT_MAX / 8 / 2, again);
		free(wanted);
	}
}

/* Presence. */

static void page_is_present(struct destination *destination, struct destination_region *region,
			    uint64_t page, uint64_t now)
{
	struct pending_wait wait;

	if (bitmap_set(region->present, page))
		region->nr_present++;
	damage_remove(&destination->damage, region->index, page);
	if (pending_remove(&destination->pending, region->index, page, &wait))
		progress_wait_ends(&destination->side.progress, &wait, now);
}

static bool reload_present(struct destination *destination, struct destination_region *region)
{
	int err = umem_get_bitmap(region->watch.fd, UMEM_BITMAP_PRESENT, 0, region->length,
				  region->present);

	if (err) {
		side_fail(&destination->side, "region \"%s\": cannot tell what is present: %s",
			  destination->side.options->regions[region->index].name, strerror(-err));
		return false;
	}
	region->nr_present = 0;
	for (size_t i = 0; i < bitmap_words(region->pages); i++)
		region->nr_present += (uint64_t)__builtin_popcountll(region->present[i]);
	return true;
}

static void close_pagers(struct destination *destination)
{
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		struct destination_region *region = &destination->regions[i];

		loop_remove(&destination->side.loop, &region->watch);
		close(region->watch.fd);
		region->watch.fd = -1;
	}
}

/* While it is paused the guest may discard what is left. */
static bool may_complete(const struct session *session)
{
	return session->state == SESSION_RUNNING ||
	       (session->state == SESSION_PAUSED && session->gone);
}

static void check_complete(struct destination *destination)
{
	char error[CODEC_ERROR_MAX];

	if (destination->side.done || !may_complete(&destination->side.session))
		return;
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		if (destination->regions[i].nr_present < destination->regions[i].pages)
			return;
	}
	/* The kernel has the last word. */
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		struct destination_region *region = &destination->regions[i];
		struct umem_info info;

		if (umem_info(region->fd, &info) || !(info.missing | info.poisoned))
			continue;
		log_warning("region \"%s\" has %llu bytes missing that were brought: bringing them again",
			    destination->side.options->regions[i].name,
			    (unsigned long long)info.missing);
		if (reload_present(destination, region))
			ask_for_all(destination, region, NULL, REQUEST_MAX, true);
		return;
	}
	session_event(&destination->side.session, EVENT_COMPLETE, error);
	close_pagers(destination);
	side_progress(&destination->side);
	destination->deadline_ns = now_ns() + END_NS;
	if (side_control(&destination->side))
		side_say(&destination->side, FRAME_END, 0);
	launcher_state(&destination->side.launcher, "end");
}

/* Faults. */

static void take_request(struct destination *destination, struct destination_region *region,
			 const struct umem_event *event, uint64_t *pages, uint32_t *count)
{
	const struct pending_wait wait = { event->time_ns, event->tid };
	uint64_t page = event->offset / UMEM_PAGE_SIZE;

	if (event->offset >= region->length)
		return;
	if (bitmap_test(region->present, page)) {
		/* It came while the request was on its way to us. */
		progress_wait_begins(&destination->side.progress, &wait);
		progress_wait_ends(&destination->side.progress, &wait, now_ns());
		return;
	}
	switch (pending_add(&destination->pending, region->index, page, &wait)) {
	case PENDING_KNOWN:
		return;
	case PENDING_NEW:
		progress_wait_begins(&destination->side.progress, &wait);
		break;
	case PENDING_FULL:
		destination->side.progress.faults++;
	}
	pages[(*count)++] = page;
}

static void take_discard(struct destination *destination, struct destination_region *region,
			 const struct umem_event *event)
{
	uint64_t page = event->offset / UMEM_PAGE_SIZE;
	uint64_t end, now = now_ns();

	if (event->offset >= region->length)
		return;
	end = page + min(event->length, region->length - event->offset) / UMEM_PAGE_SIZE;
	for (; page < end; page++)
		page_is_present(destination, region, page, now);
}

static void pager_ready(void *owner, uint32_t ready)
{
	struct destination_region *region = owner;
	struct destination *destination = region->destination;
	struct umem_event events[EVENTS_BATCH];
	uint64_t pages[EVENTS_BATCH];
	uint32_t count = 0;
	size_t n;
	int err;

	(void)ready;
	err = umem_read_events(region->watch.fd, events, EVENTS_BATCH, &n);
	if (err == -EAGAIN || err == -EINTR)
		return;
	if (err) {
		side_fail(&destination->side, "region \"%s\": cannot read its requests: %s",
			  destination->side.options->regions[region->index].name, strerror(-err));
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (events[i].type == UMEM_EVENT_REQUEST)
			take_request(destination, region, &events[i], pages, &count);
		else if (events[i].type == UMEM_EVENT_DISCARD)
			take_discard(destination, region, &events[i]);
	}
	ask(destination, region, pages, count, false);
	check_complete(destination);
}

/* Pages. */

/* Pages of one frame, on their way into the region. */
struct delivery {
	struct umem_copy_entry copies[PAGES_MAX];
	uint32_t nr_copies;
	struct umem_copy_entry zeroes[PAGES_MAX];
	uint32_t nr_zeroes;
	uint64_t pages[PAGES_MAX];	/* those that are good */
	uint32_t nr_pages;
	uint64_t damaged[PAGES_MAX];
	uint32_t nr_damaged;
};

static void add_range(struct umem_copy_entry *ranges, uint32_t *count, uint64_t offset,
		      const uint8_t *data)
{
	struct umem_copy_entry *last = *count ? &ranges[*count - 1] : NULL;
	uint64_t address = (uintptr_t)data;

	if (last && last->offset + last->length == offset &&
	    (!data || last->addr + last->length == address)) {
		last->length += PAGE_BYTES;
		return;
	}
	ranges[(*count)++] = (struct umem_copy_entry){ offset, address, PAGE_BYTES };
}

/*
 * @flags: of enum umem_fill_flags. A missing page is zero, but for what came early: it need not be
 * cleared again.
 */
static int deliver(struct destination_region *region, const struct delivery *delivery,
		   uint32_t flags)
{
	bool clear = precopies(region->destination);
	int err = 0;

	if (delivery->nr_copies)
		err = umem_copy(region->watch.fd, flags, delivery->copies, delivery->nr_copies,
				NULL);
	for (uint32_t i = 0; i < delivery->nr_zeroes && !err; i++)
		err = clear ? umem_zero(region->watch.fd, flags, delivery->zeroes[i].offset,
					delivery->zeroes[i].length, NULL) :
			      umem_publish(region->watch.fd, delivery->zeroes[i].offset,
					   delivery->zeroes[i].length, NULL);
	return err;
}

/* A page of a frame, whose contents are at @data; NULL if it does not decompress. */
static const uint8_t *contents_of(struct destination *destination, const struct page_entry *entry,
				  uint32_t index, const uint8_t *data)
{
	uint8_t *unpacked;

	if (!entry->compressed)
		return data;
	unpacked = destination->unpacked + index * PAGE_BYTES;
	return decompress_page(destination->decompressor, unpacked, data, entry->compressed) ?
	       NULL : unpacked;
}

static bool is_good(const struct destination *destination, const struct page_entry *entry,
		    const uint8_t *page, uint32_t region)
{
	if (!page && !entry->zero)
		return false;
	return !(destination->side.features & FEATURE_CHECKSUM) ||
	       page_checksum(page, region, entry->offset) == entry->checksum;
}

static void count_page(struct progress *progress, const struct page_entry *entry)
{
	progress->zero_pages += entry->zero;
	if (!entry->compressed)
		return;
	progress->compressed_pages++;
	progress->saved_bytes += PAGE_BYTES - entry->compressed;
}

/* The region a frame is about; NULL if there is none, and then the connection is lost. */
static struct destination_region *region_of(struct destination *destination,
					    const struct frame *frame)
{
	if (frame->region < destination->nr_regions)
		return &destination->regions[destination->by_number[frame->region]];
	side_lost(&destination->side, "%s sends %s of region %u, wanted 0 to %u",
		  destination->side.name, frame_name(frame->type), frame->region,
		  destination->nr_regions - 1);
	return NULL;
}

/* A bad path gives many, and each is counted. */
static void count_damaged(struct destination *destination, const struct destination_region *region,
			  const struct delivery *delivery, const char *next)
{
	uint64_t now = now_ns();

	if (!delivery->nr_damaged)
		return;
	destination->side.progress.checksum_errors += delivery->nr_damaged;
	if (destination->damage_told_ns && now - destination->damage_told_ns < NSEC_PER_SEC)
		return;
	destination->damage_told_ns = now;
	log_warning("region \"%s\": %u pages came damaged, the first at offset %llu: %s",
		    destination->side.options->regions[region->index].name, delivery->nr_damaged,
		    (unsigned long long)(delivery->damaged[0] * PAGE_BYTES), next);
}

static void report_damaged(struct destination *destination,
			   const struct destination_region *region, uint64_t page)
{
	const char *name = destination->side.options->regions[region->index].name;

	if (++destination->side.progress.damaged_pages > DAMAGED_TOLD_MAX)
		return;
	log_warning("region \"%s\": the page at offset %llu came damaged %d times, it is asked for more seldom from now on",
		    name, (unsigned long long)(page * PAGE_BYTES), DAMAGE_REPORTED);
	launcher_send(&destination->side.launcher,
		      json_pack("{s:s,s:s,s:I,s:i}", "event", "damaged", "region", name, "offset",
				(json_int_t)(page * PAGE_BYTES), "times", DAMAGE_REPORTED));
}

static void ask_for_damaged(struct destination *destination, struct destination_region *region,
			    const struct delivery *delivery)
{
	uint64_t pages[PAGES_MAX], now = now_ns();
	uint32_t count = 0, times;

	for (uint32_t i = 0; i < delivery->nr_damaged; i++) {
		uint64_t page = delivery->damaged[i];

		if (bitmap_test(region->present, page))
			continue;	/* a copy that is not needed */
		times = damage_add(&destination->damage, region->index, page, now);
		if (times && times < DAMAGE_REPORTED)
			pages[count++] = page;
		else if (times == DAMAGE_REPORTED)
			report_damaged(destination, region, page);
	}
	ask(destination, region, pages, count, true);
}

/* Pages are there, and shown. */
static void settle(struct destination *destination, struct destination_region *region,
		   const struct delivery *delivery)
{
	uint64_t now = now_ns();

	destination->page_ns = now;
	for (uint32_t i = 0; i < delivery->nr_pages; i++)
		page_is_present(destination, region, delivery->pages[i], now);
	errands_touch(&destination->errands, region->index, delivery->pages, delivery->nr_pages);
	count_damaged(destination, region, delivery, "asking again");
	ask_for_damaged(destination, region, delivery);
	check_complete(destination);
}

/* Pages are there, and wait for PUBLISH. Of damaged ones nothing is there. */
static void settle_early(struct destination *destination, struct destination_region *region,
			 const struct delivery *delivery)
{
	for (uint32_t i = 0; i < delivery->nr_pages; i++)
		bitmap_set(region->early, delivery->pages[i]);
	for (uint32_t i = 0; i < delivery->nr_damaged; i++)
		bitmap_clear(region->early, delivery->damaged[i]);
	count_damaged(destination, region, delivery, "it stays missing until it comes again");
}

static void take_pages(struct destination *destination, struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	struct destination_region *region = region_of(destination, frame);
	struct page_entry entries[PAGES_MAX];
	struct delivery delivery = { 0 };
	char error[CODEC_ERROR_MAX];
	const uint8_t *data;
	bool early;
	int err;

	if (!region)	/* and no channel any more, nor its frame */
		return;
	early = frame->flags & FRAME_PAGES_EARLY;
	data = channel->data;
	if (pages_decode(entries, frame, channel->payload, region->pages, error)) {
		side_lost(&destination->side, "%s: %s", destination->side.name, error);
		return;
	}
	if (region->watch.fd < 0)	/* complete: late duplicates */
		return;

	for (uint32_t i = 0; i < frame->count; i++) {
		const struct page_entry *entry = &entries[i];
		const uint8_t *page = entry->zero ? NULL :
				      contents_of(destination, entry, i, data);

		data += page_entry_contents(entry);
		if (!is_good(destination, entry, page, frame->region)) {
			delivery.damaged[delivery.nr_damaged++] = entry->offset / PAGE_BYTES;
			/* An older copy is of no use, either. */
			if (early && bitmap_test(region->early, entry->offset / PAGE_BYTES))
				add_range(delivery.zeroes, &delivery.nr_zeroes, entry->offset,
					  NULL);
			continue;
		}
		if (bitmap_test(region->present, entry->offset / PAGE_BYTES)) {
			destination->side.progress.duplicates++;
			continue;
		}
		if (page)
			add_range(delivery.copies, &delivery.nr_copies, entry->offset, page);
		else if (!early || bitmap_test(region->early, entry->offset / PAGE_BYTES))
			add_range(delivery.zeroes, &delivery.nr_zeroes, entry->offset, NULL);
		count_page(&destination->side.progress, entry);
		delivery.pages[delivery.nr_pages++] = entry->offset / PAGE_BYTES;
	}

	err = deliver(region, &delivery, early ? UMEM_FILL_UNPUBLISHED : 0);
	if (err) {
		side_fail(&destination->side, "region \"%s\": cannot put %u pages in place: %s",
			  destination->side.options->regions[region->index].name, delivery.nr_pages,
			  strerror(-err));
		return;
	}
	if (early)
		settle_early(destination, region, &delivery);
	else
		settle(destination, region, &delivery);
}

/* The end of pre-copy. */

static void say_ready(struct destination *destination)
{
	char error[CODEC_ERROR_MAX];

	if (session_event(&destination->side.session, EVENT_READY, error))
		log_warning("%s", error);
	else
		side_say(&destination->side, FRAME_READY, 0);
}

/* Early pages that were not discarded are shown. */
static bool publish_region(struct destination *destination, struct destination_region *region)
{
	uint64_t page = 0, end, now = now_ns();

	for (size_t i = 0; i < bitmap_words(region->pages); i++)
		region->early[i] &= ~region->named[i];
	for (;; page = end) {
		int err;

		page = bitmap_find(region->early, true, page, region->pages);
		if (page == region->pages)
			return true;
		end = bitmap_find(region->early, false, page, region->pages);
		err = umem_publish(region->watch.fd, page * PAGE_BYTES, (end - page) * PAGE_BYTES,
				   NULL);
		if (err) {
			side_fail(&destination->side, "region \"%s\": cannot show what came early: %s",
				  destination->side.options->regions[region->index].name,
				  strerror(-err));
			return false;
		}
		for (uint64_t i = page; i < end; i++)
			page_is_present(destination, region, i, now);
	}
}

static void try_publish(struct destination *destination)
{
	if (!precopy_is_over(destination))
		return;
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		if (!publish_region(destination, &destination->regions[i]))
			return;
	}
	forget_early(destination);
	if (destination->ready)
		say_ready(destination);
}

static void take_sync(struct destination *destination, const struct channel *channel)
{
	destination->synced |= 1u << channel->index;
	if ((uint32_t)__builtin_popcount(destination->synced) < channel->frame.count)
		return;
	destination->synced = 0;
	if (channel->frame.flags & FRAME_SYNC_LAST) {
		destination->early_over = true;
		try_publish(destination);
	}
	destination->bulk_goes_on = true;
}

/* What came along with a SYNC is looked at once all have come to theirs. */
static void go_on_with_bulk(struct destination *destination)
{
	struct channel *channel;

	destination->bulk_goes_on = false;
	side_for_each(&destination->side, CHANNEL_BULK, channel)
		side_receive(&destination->side, CHANNEL_BULK, channel->index);
}

static void take_discard_ranges(struct destination *destination, const struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	struct destination_region *region = region_of(destination, frame);
	struct page_range ranges[DISCARD_MAX];
	char error[CODEC_ERROR_MAX];

	if (!region)
		return;
	if (discard_decode(ranges, frame, channel->payload, region->pages, error)) {
		side_lost(&destination->side, "%s: %s", destination->side.name, error);
		return;
	}
	for (uint32_t i = 0; i < frame->count; i++) {
		for (uint64_t page = ranges[i].first; page < ranges[i].end; page++)
			bitmap_set(region->named, page);
	}
}

/* Pages that keep coming damaged, each in its time. */
static void retry_damaged(struct destination *destination, uint64_t now)
{
	uint64_t pages[REQUEST_MAX];

	for (uint32_t i = 0; i < destination->nr_regions && may_ask(destination); i++) {
		uint32_t count = 0;

		while (count < REQUEST_MAX &&
		       damage_due(&destination->damage, i, now, &pages[count]))
			count++;
		ask(destination, &destination->regions[i], pages, count, true);
	}
	if (destination->damage.full && now - destination->overflow_ns >= REPAIR_NS) {
		destination->overflow_ns = now;
		ask_for_requested(destination, true);
	}
}

/*
 * Everything was sent and yet pages are missing: damaged ones that were too many to
 * remember, or a fault of this program. Ask for what is left.
 */
static void repair(struct destination *destination, uint64_t now)
{
	if (!destination->all_sent || destination->side.session.state != SESSION_RUNNING ||
	    now - destination->page_ns < REPAIR_NS)
		return;
	destination->page_ns = now;
	for (uint32_t i = 0; i < destination->nr_regions && !destination->side.done; i++)
		ask_for_all(destination, &destination->regions[i], NULL, REQUEST_MAX, true);
}

/* Device state. */

static size_t state_queued(const struct destination *destination)
{
	return destination->state_used - destination->state_start;
}

static bool state_has_room(const struct destination *destination)
{
	return state_queued(destination) + STATE_MAX <= STATE_UNSENT;
}

static void write_state(struct destination *destination)
{
	if (destination->side.state.fd < 0)
		return;
	while (state_queued(destination)) {
		ssize_t n = write(destination->side.state.fd,
				  destination->state_buffer + destination->state_start,
				  state_queued(destination));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			side_fail(&destination->side, "QEMU does not take the device state: %s",
				  strerror(errno));
			return;
		}
		destination->state_touched = true;
		destination->state_start += (size_t)n;
	}
	if (destination->state_ending) {
		side_close_state(&destination->side);
		launcher_state(&destination->side.launcher, "listen");
	}
}

static void take_state(struct destination *destination, const struct channel *channel)
{
	if (STATE_UNSENT - destination->state_used < channel->frame.length) {
		memmove(destination->state_buffer,
			destination->state_buffer + destination->state_start,
			state_queued(destination));
		destination->state_used -= destination->state_start;
		destination->state_start = 0;
	}
	/* There is room: may_receive() saw to it. */
	memcpy(destination->state_buffer + destination->state_used, channel->payload,
	       channel->frame.length);
	destination->state_used += channel->frame.length;
	write_state(destination);
}

/* Getting ready: pages missing, memory there, channels there. */

/* With large guests it takes a while: a word now and then. */
static void tell_prepared(struct destination *destination)
{
	uint64_t now = now_ns(), bytes = destination->prepare_offset, total = 0;

	if (!destination->prepare_told_ns)
		destination->prepare_told_ns = now;
	if (now - destination->prepare_told_ns < PREPARE_TOLD_NS)
		return;
	destination->prepare_told_ns = now;
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		total += destination->regions[i].length;
		if (i < destination->prepare_region)
			bytes += destination->regions[i].length;
	}
	launcher_send(&destination->side.launcher,
		      json_pack("{s:s,s:I,s:I}", "event", "allocated", "bytes", (json_int_t)bytes,
				"of", (json_int_t)total));
}

static int mark_missing_ahead(const struct destination *destination,
			      const struct destination_region *region)
{
	uint64_t offset = destination->prepare_offset;

	if (offset % PREPARE_MARK)
		return 0;
	return umem_mark_missing(region->watch.fd, offset,
				 min(region->length - offset, (uint64_t)PREPARE_MARK), NULL);
}

static void get_memory_ready(struct destination *destination)
{
	struct destination_region *region = &destination->regions[destination->prepare_region];
	const char *name = destination->side.options->regions[destination->prepare_region].name;
	uint64_t step = min(region->length - destination->prepare_offset,
			    (uint64_t)PREPARE_STEP);
	int err;

	err = mark_missing_ahead(destination, region);
	if (err) {
		side_fail(&destination->side, "region \"%s\": cannot mark it missing: %s", name,
			  strerror(-err));
		return;
	}
	if (destination->side.options->preallocate) {
		uint64_t headroom = headroom_bytes(&destination->headroom);

		if (headroom < step + PREPARE_SPARE) {
			side_fail(&destination->side, "region \"%s\": out of memory: %llu MiB can be had, wanted %llu for the next of its %llu bytes and to spare",
				  name, (unsigned long long)headroom >> 20,
				  (unsigned long long)(step + PREPARE_SPARE) >> 20,
				  (unsigned long long)region->length);
			return;
		}
		err = umem_allocate(region->fd, destination->prepare_offset, step);
		if (err) {
			side_fail(&destination->side, "region \"%s\": cannot allocate its %llu bytes of memory: %s",
				  name, (unsigned long long)region->length, strerror(-err));
			return;
		}
	}
	destination->prepare_offset += step;
	tell_prepared(destination);
	if (destination->prepare_offset < region->length)
		return;

	memset(region->present, 0, bitmap_words(region->pages) * sizeof(*region->present));
	region->nr_present = 0;
	destination->prepare_offset = 0;
	destination->prepare_region++;
}

static void send_bitmap(struct destination *destination)
{
	struct channel *control = side_control(&destination->side);
	struct destination_region *region = &destination->regions[destination->resume_region];
	uint64_t left = bitmap_words(region->pages) - destination->resume_word;
	struct frame frame = {
		.type = FRAME_BITMAP,
		.region = region->number,
		.count = (uint32_t)min(left, (uint64_t)BITMAP_WORDS_MAX),
	};
	uint8_t payload[8 + 8 * BITMAP_WORDS_MAX];

	frame.length = (uint32_t)bitmap_encode(payload, destination->resume_word * 64,
					       region->present + destination->resume_word,
					       frame.count);
	destination->resume_word += frame.count;
	if (frame.count == left) {
		destination->resume_region++;
		destination->resume_word = 0;
	}
	side_sent(&destination->side, control, channel_send(control, &frame, payload));
}

static bool memory_is_ready(const struct destination *destination)
{
	return destination->prepare_region == destination->nr_regions;
}

/* Memory is made ready while nobody has come yet: it takes seconds. */
static bool getting_ready(const struct destination *destination)
{
	if (!memory_is_ready(destination))
		return true;
	if (destination->side.session.state == SESSION_RESUME)
		return destination->resume_region < destination->nr_regions &&
		       channel_queued(side_control(&destination->side)) < CHANNEL_OUT_MAX / 2;
	return false;
}

static void get_ready(struct destination *destination)
{
	bool resumed = destination->side.session.state == SESSION_RESUME;
	char error[CODEC_ERROR_MAX];

	if (!memory_is_ready(destination)) {
		get_memory_ready(destination);
		return;
	}
	if (resumed) {
		if (destination->resume_region < destination->nr_regions) {
			if (getting_ready(destination))
				send_bitmap(destination);
			return;
		}
	} else if (destination->side.session.state != SESSION_PREPARE) {
		return;
	}
	if (!side_is_joined(&destination->side))
		return;

	destination->deadline_ns = 0;
	destination->all_sent = false;
	session_event(&destination->side.session, EVENT_PREPARED, error);
	if (!side_say(&destination->side, FRAME_PREPARED, 0))
		return;
	launcher_state(&destination->side.launcher,
		       session_state_name(destination->side.session.state));
	if (!destination->side.progress.started_ns)
		progress_start(&destination->side.progress, now_ns());
	if (resumed) {
		ask_for_requested(destination, false);
		check_complete(destination);
	}
}

static void turn(void *owner)
{
	struct destination *destination = owner;

	if (destination->bulk_goes_on)
		go_on_with_bulk(destination);
	if (!destination->side.done)
		get_ready(destination);
}

/* What comes on the channels of the session. */

static void take_go(struct destination *destination, const struct frame *frame)
{
	headroom_close(&destination->headroom);		/* its memory is all there */
	launcher_send(&destination->side.launcher,
		      json_pack("{s:s,s:b}", "event", "go", "run",
				!!(frame->flags & FRAME_GO_RUN)));
}

static void take(void *owner, struct channel *channel)
{
	struct destination *destination = owner;

	switch (channel->frame.type) {
	case FRAME_STATE:
		take_state(destination, channel);
		break;
	case FRAME_STATE_END:
		destination->state_ending = true;
		write_state(destination);
		break;
	case FRAME_SYNC:
		take_sync(destination, channel);
		break;
	case FRAME_DISCARD:
		take_discard_ranges(destination, channel);
		break;
	case FRAME_PUBLISH:
		destination->discards_over = true;
		try_publish(destination);
		break;
	case FRAME_GO:
		side_progress(&destination->side);	/* before anyone asks how it goes */
		take_go(destination, &channel->frame);
		launcher_state(&destination->side.launcher, "running");
		check_complete(destination);
		break;
	case FRAME_PAGES:
		take_pages(destination, channel);
		break;
	case FRAME_ALL_SENT:
		destination->all_sent = true;
		destination->page_ns = now_ns();
		break;
	case FRAME_END:
		side_finish(&destination->side, 0);
		break;
	case FRAME_CANCEL:
		side_lost(&destination->side, "%s cancelled the migration",
			  destination->side.name);
		break;
	}
}

static bool may_receive(const void *owner, const struct channel *channel)
{
	const struct destination *destination = owner;

	if (channel->kind == CHANNEL_BULK)
		return !(destination->synced & 1u << channel->index);
	return channel->kind != CHANNEL_CONTROL || state_has_room(destination);
}

/* @what: a flag of PAGES says so, which is for bulk and needs a feature */
static int admits_pages(const struct destination *destination, const struct channel *channel,
			const char *what, uint64_t feature, char *error)
{
	if (channel->kind != CHANNEL_BULK)
		return wrong(error, "frame PAGES may have %s pages on %s, wanted them on bulk only",
			     what, channel_name(channel->kind));
	if (!(destination->side.features & feature))
		return wrong(error, "frame PAGES may have %s pages, wanted none: HELLO_ACK has features 0x%llx",
			     what, (unsigned long long)destination->side.features);
	return 0;
}

/* What belongs to pre-copy comes before the frame that ends it, and with the feature. */
static int admits_precopy(const struct destination *destination, const struct frame *frame,
			  bool over, char *error)
{
	if (!precopies(destination) || over)
		return wrong(error, "frame %s of pre-copy, wanted none: %s",
			     frame_name(frame->type), over ? "that is over" :
			     "HELLO_ACK has not that feature");
	return 0;
}

static int admits(const void *owner, const struct channel *channel, const struct frame *frame,
		  char *error)
{
	const struct destination *destination = owner;
	int err = 0;

	switch (frame->type) {
	case FRAME_PAGES:
		if (frame->flags & FRAME_PAGES_COMPRESSED)
			err = admits_pages(destination, channel, "compressed", FEATURE_ZSTD,
					   error);
		if (!err && frame->flags & FRAME_PAGES_EARLY)
			err = admits_pages(destination, channel, "early", FEATURE_PRECOPY, error);
		if (!err && frame->flags & FRAME_PAGES_EARLY)
			err = admits_precopy(destination, frame, destination->early_over, error);
		return err;
	case FRAME_SYNC:
		return admits_precopy(destination, frame, destination->early_over, error);
	case FRAME_DISCARD:
	case FRAME_PUBLISH:
		return admits_precopy(destination, frame, destination->discards_over, error);
	case FRAME_STATE_END:
		if (precopies(destination) && !destination->discards_over)
			return wrong(error, "frame STATE_END came before PUBLISH");
	}
	return 0;
}

static void state_ready(void *owner, uint32_t events)
{
	struct destination *destination = owner;

	(void)events;
	write_state(destination);
	/* A frame may be waiting that was read before there was room for it. */
	if (!destination->side.done)
		side_receive(&destination->side, CHANNEL_CONTROL, 0);
}

/* Strangers who introduced themselves. */

/* The stranger's connection becomes a channel of the session. */
static void adopt(struct destination *destination, struct stranger *stranger,
		  enum channel_kind kind, unsigned int index)
{
	struct channel *channel = strangers_release(stranger);

	side_add(&destination->side, channel, kind, index, stranger->bytes);
	if (kind == CHANNEL_CONTROL)
		snprintf(destination->side.name, sizeof(destination->side.name), "the source %s",
			 channel->peer);
	else if (channel_take_pages(channel))
		side_fail(&destination->side, "out of memory");
	if (kind == CHANNEL_CONTROL)
		side_warn_if_plain(&destination->side, channel);
}

/* Return: whether compressed pages can be taken from now on. */
static bool prepare_decompression(struct destination *destination)
{
	if (!destination->decompressor)
		destination->decompressor = decompressor_new();
	if (!destination->unpacked)
		destination->unpacked = aligned_alloc(PAGE_BYTES, (size_t)PAGES_MAX * PAGE_BYTES);
	return destination->decompressor && destination->unpacked;
}

static void number_regions(struct destination *destination, const uint32_t *index)
{
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		destination->by_number[i] = index[i];
		destination->regions[index[i]].number = i;
	}
}

static void take_hello(struct destination *destination, struct stranger *stranger,
		       struct hello *hello)
{
	struct channel *channel = stranger->channel;
	struct frame frame = { .type = FRAME_HELLO_ACK, .length = HELLO_ACK_BYTES };
	struct hello_ack ack = { .features = FEATURES_KNOWN };
	uint8_t payload[HELLO_ACK_BYTES];
	char error[CODEC_ERROR_MAX];
	uint32_t index[REGIONS_MAX];

	if (hello_decode(hello, &channel->frame, channel->payload, error)) {
		strangers_refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	ack.version = hello_version(hello);
	if (!ack.version) {
		snprintf(error, sizeof(error), "the source speaks protocol versions %u to %u, the destination %u to %u",
			 hello->min_version, hello->version, PROTOCOL_MIN_VERSION,
			 PROTOCOL_VERSION);
		strangers_refuse(stranger, REFUSE_VERSION, error);
		return;
	}
	if (destination->side.session.state != SESSION_NONE) {
		snprintf(error, sizeof(error), "a migration is under way here (state %s), wanted none",
			 session_state_name(destination->side.session.state));
		strangers_refuse(stranger, REFUSE_BUSY, error);
		return;
	}
	if (hello->page_size != PAGE_BYTES) {
		snprintf(error, sizeof(error), "the source has pages of %u bytes, the destination of %u",
			 hello->page_size, PAGE_BYTES);
		strangers_refuse(stranger, REFUSE_PAGE_SIZE, error);
		return;
	}
	if (hello_match(hello, destination->side.options->regions, destination->nr_regions, index,
			error)) {
		strangers_refuse(stranger, REFUSE_REGIONS, error);
		return;
	}

	number_regions(destination, index);
	ack.features &= hello->features;
	if (ack.features & FEATURE_ZSTD && !prepare_decompression(destination))
		ack.features &= ~FEATURE_ZSTD;
	if (ack.features & FEATURE_PRECOPY && !prepare_precopy(destination)) {
		forget_early(destination);
		ack.features &= ~FEATURE_PRECOPY;
	}
	destination->side.features = ack.features;
	memcpy(destination->side.session_id, hello->session, SESSION_SIZE);
	side_tell_session(&destination->side, index);
	destination->deadline_ns = now_ns() + HANDSHAKE_NS;
	session_frame(&destination->side.session, CHANNEL_CONTROL, &channel->frame, error);
	adopt(destination, stranger, CHANNEL_CONTROL, 0);
	hello_ack_encode(payload, &ack);
	side_sent(&destination->side, channel, channel_send(channel, &frame, payload));
}

static bool is_our_session(const struct destination *destination, const uint8_t *claimed)
{
	return session_knows(&destination->side.session, destination->side.session_id, claimed);
}

/* Channels may be had at any time in a session, one of each kind is had to begin with. */
static bool may_join(struct destination *destination, const struct join *join)
{
	enum session_state state = destination->side.session.state;
	struct channel *there = destination->side.channels[join->kind][join->index];

	if (state == SESSION_NONE || state == SESSION_PAUSED)
		return false;
	if (there && there->end == CHANNEL_HEARD_LEAVE) {
		side_drop(&destination->side, there);
		there = NULL;
	}
	return !there;
}

static void take_join(struct destination *destination, struct stranger *stranger)
{
	char error[CODEC_ERROR_MAX];
	struct join join;

	if (join_decode(&join, stranger->channel->payload, error)) {
		strangers_refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	if (!is_our_session(destination, join.session)) {
		strangers_refuse(stranger, REFUSE_SESSION, "JOIN names a session that is not the one here");
		return;
	}
	if (!may_join(destination, &join)) {
		snprintf(error, sizeof(error), "%s channel %u cannot join in state %s%s",
			 channel_name(join.kind), join.index,
			 session_state_name(destination->side.session.state),
			 destination->side.channels[join.kind][join.index] ?
			 ": it is there already" : "");
		strangers_refuse(stranger, REFUSE_SESSION, error);
		return;
	}
	adopt(destination, stranger, (enum channel_kind)join.kind, join.index);
}

static void take_resume(struct destination *destination, struct stranger *stranger)
{
	struct channel *channel = stranger->channel;
	bool was_gone = destination->side.session.gone;
	char error[CODEC_ERROR_MAX];
	struct resume resume;

	if (resume_decode(&resume, channel->payload, error)) {
		strangers_refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	if (!is_our_session(destination, resume.session)) {
		strangers_refuse(stranger, REFUSE_SESSION, "RESUME names a session that is not the one here");
		return;
	}
	if (session_frame(&destination->side.session, CHANNEL_CONTROL, &channel->frame, error)) {
		strangers_refuse(stranger, REFUSE_SESSION, error);
		return;
	}
	/* The source knows better whether the old connections are good. */
	side_close_channels(&destination->side);
	adopt(destination, stranger, CHANNEL_CONTROL, 0);
	if (!was_gone)
		take_go(destination, &channel->frame);
	if (destination->side.session.state == SESSION_END) {
		side_say(&destination->side, FRAME_END, 0);
		return;
	}
	launcher_state(&destination->side.launcher, "recover");
	destination->resume_region = 0;
	destination->resume_word = 0;
	destination->deadline_ns = now_ns() + HANDSHAKE_NS;
}

static void introduced(void *owner, struct stranger *stranger)
{
	struct destination *destination = owner;
	struct hello *hello;

	switch (stranger->channel->frame.type) {
	case FRAME_HELLO:
		hello = malloc(sizeof(*hello));
		if (hello)
			take_hello(destination, stranger, hello);
		else
			strangers_dismiss(stranger);
		free(hello);
		break;
	case FRAME_JOIN:
		take_join(destination, stranger);
		break;
	case FRAME_RESUME:
		take_resume(destination, stranger);
		break;
	}
}

/* The source opened a channel of the stream. */
static void stream_opened(void *owner, int fd)
{
	struct destination *destination = owner;

	strangers_add(&destination->strangers, fd, destination->side.options->uri_text, 0);
}

/* Giving the source up. */

/**
 * struct gone - what is told of pages that never come
 * @pages: all of them
 * @told: ranges that were told of
 * @batch: that are to be
 */
struct gone {
	uint64_t pages;
	uint32_t told;
	json_t *batch;
};

static void tell_gone(struct destination *destination, struct gone *gone, uint32_t region)
{
	const char *name = destination->side.options->regions[region].name;

	if (json_array_size(gone->batch))
		launcher_send(&destination->side.launcher,
			      json_pack("{s:s,s:s,s:O}", "event", "gone-ranges", "region", name,
					"ranges", gone->batch));
	json_decref(gone->batch);
	gone->batch = json_array();
}

static void add_gone(struct destination *destination, struct gone *gone,
		     const struct destination_region *region, const uint64_t *poisoned)
{
	uint64_t page, end = 0;

	for (;;) {
		page = bitmap_find(poisoned, true, end, region->pages);
		if (page == region->pages)
			break;
		end = bitmap_find(poisoned, false, page, region->pages);
		gone->pages += end - page;
		if (gone->told == GONE_RANGES_MAX)
			continue;
		gone->told++;
		json_array_append_new(gone->batch,
				      json_pack("[I,I]", (json_int_t)(page * PAGE_BYTES),
						(json_int_t)((end - page) * PAGE_BYTES)));
		if (json_array_size(gone->batch) == GONE_BATCH)
			tell_gone(destination, gone, region->index);
	}
	tell_gone(destination, gone, region->index);
}

/* The kernel knows best what is missing: a guest may have discarded pages meanwhile. */
static int poison_region(struct destination *destination, struct gone *gone,
			 const struct destination_region *region)
{
	uint64_t *poisoned = calloc(umem_bitmap_words(region->length), sizeof(*poisoned));
	int err = -ENOMEM;

	if (poisoned)
		err = umem_poison(region->watch.fd, 0, region->length, NULL);
	if (!err)
		err = umem_get_bitmap(region->watch.fd, UMEM_BITMAP_POISONED, 0, region->length,
				      poisoned);
	if (!err)
		add_gone(destination, gone, region, poisoned);
	free(poisoned);
	return err;
}

/*
 * The source is lost for good: who waits for a page of it, or touches one later, gets an
 * error, everything else goes on. What it still sends is not listened to any more.
 */
static void give_up(struct destination *destination)
{
	struct gone gone = { .batch = json_array() };
	char error[CODEC_ERROR_MAX];

	if (session_event(&destination->side.session, EVENT_GIVE_UP, error)) {
		launcher_message(&destination->side.launcher, "refused", "%s", error);
		return;
	}
	side_close_channels(&destination->side);
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		int err = poison_region(destination, &gone, &destination->regions[i]);

		if (!err)
			continue;
		side_fail(&destination->side, "region \"%s\": cannot poison what is missing: %s",
			  destination->side.options->regions[i].name, strerror(-err));
		json_decref(gone.batch);
		return;
	}
	json_decref(gone.batch);
	close_pagers(destination);
	side_progress(&destination->side);
	launcher_send(&destination->side.launcher,
		      json_pack("{s:s,s:I}", "event", "gone", "pages", (json_int_t)gone.pages));
	side_finish(&destination->side, 0);
}

/* What the launcher says. */

static void command(void *owner, const char *name, json_t *object)
{
	struct destination *destination = owner;

	if (!strcmp(name, "ready")) {
		if (destination->side.state.fd >= 0) {
			log_warning("command ready: QEMU was not given all of its state yet");
			return;
		}
		/* Else it is said once what came early is published. */
		destination->ready = true;
		if (precopy_is_over(destination))
			say_ready(destination);
	} else if (!strcmp(name, "give-up")) {
		give_up(destination);
	} else if (!strcmp(name, "fail")) {
		const char *text = json_string_value(json_object_get(object, "message"));

		if (destination->side.session.gone) {
			log_warning("command fail after GO: the guest is here, nothing is undone");
			return;
		}
		side_fail(&destination->side, "%s", text ? text : "QEMU failed");
	} else {
		log_warning("command \"%s\" is unknown to a destination", name);
	}
}

/* Time, and the turns of the loop. */

/* A stream has one source: with that gone before it began, none can come. */
static void check_stream(struct destination *destination)
{
	struct stream *stream = destination->side.stream;

	if (!stream || !stream_is_over(stream) ||
	    destination->side.session.state != SESSION_NONE ||
	    strangers_any(&destination->strangers))
		return;
	side_fail(&destination->side, "no source can come over %s any more: %s",
		  destination->side.options->uri_text,
		  stream_broken(stream) ? stream_broken(stream) : "its source has ended");
}

static void tick(void *owner, uint64_t now)
{
	struct destination *destination = owner;
	struct side *side = &destination->side;
	struct channel *control = side_control(side);

	strangers_tick(&destination->strangers, now);
	check_stream(destination);
	if (side->done)
		return;
	if (control && !state_has_room(destination))
		control->heard_ns = now;	/* it is us who do not listen */
	if (destination->deadline_ns && now >= destination->deadline_ns) {
		destination->deadline_ns = 0;
		if (side->session.state == SESSION_END)
			side_finish(side, 0);
		else if (!side_is_joined(side))
			side_lost(side, "the channels of the source did not join within %llu seconds",
				  HANDSHAKE_NS / NSEC_PER_SEC);
		return;
	}
	retry_damaged(destination, now);
	repair(destination, now);
}

static void set_wants(void *owner)
{
	struct destination *destination = owner;
	const struct channel *urgent = side_idlest(&destination->side, CHANNEL_URGENT, false);
	bool asking = !urgent || channel_queued(urgent) < REQUESTS_UNSENT;

	for (uint32_t i = 0; i < destination->nr_regions; i++)
		loop_want(&destination->side.loop, &destination->regions[i].watch,
			  asking ? EPOLLIN : 0);
	strangers_set_wants(&destination->strangers);
	loop_want(&destination->side.loop, &destination->side.state,
		  state_queued(destination) ? EPOLLOUT : 0);
}

static uint64_t wait_ns(const void *owner)
{
	return getting_ready(owner) ? 0 : UINT64_MAX;
}

/* Beginning and end. */

static int open_region(struct destination *destination, uint32_t index, char *error)
{
	const struct hello_region *option = &destination->side.options->regions[index];
	struct destination_region *region = &destination->regions[index];
	int pager, flags, err;

	err = side_check_region(&destination->side, index, error);
	if (err)
		return err;
	region->destination = destination;
	region->fd = destination->side.options->region_fds[index];
	region->index = index;
	region->length = option->length;
	region->pages = option->length / PAGE_BYTES;
	region->present = calloc(bitmap_words(region->pages), sizeof(*region->present));
	if (!region->present) {
		snprintf(error, CODEC_ERROR_MAX, "region \"%s\": no memory for its page table",
			 option->name);
		return -ENOMEM;
	}
	err = umem_attach(region->fd, 0, &pager);
	if (err) {
		snprintf(error, CODEC_ERROR_MAX, "region \"%s\": cannot become its pager through descriptor %d: %s",
			 option->name, region->fd, strerror(-err));
		return err;
	}
	flags = fcntl(pager, F_GETFL);
	fcntl(pager, F_SETFL, flags | O_NONBLOCK);
	region->watch = (struct watch){
		.fd = pager,
		.priority = PRIORITY_FAULTS,
		.ready = pager_ready,
		.owner = region,
	};
	destination->side.progress.pages_total += region->pages;
	destination->nr_regions++;
	return 0;
}

static int start_errands(struct destination *destination, char *error)
{
	const struct options *options = destination->side.options;
	const struct errands_setup setup = {
		.listener = destination->strangers.listening.path[0] ? &destination->strangers.listening : NULL,
		.touch = options->touch,
		.parent = getppid(),
		.region_fds = options->region_fds,
		.nr_regions = options->nr_regions,
	};

	return errands_start(&destination->errands, &setup, error);
}

/* QEMU has its state: what is present is the kernel's to tell. */
static int go_on(struct destination *destination, char *error)
{
	uint32_t index[REGIONS_MAX];
	bool run;
	int err = side_go_on(&destination->side, index, &run, error);

	if (err)
		return err;
	number_regions(destination, index);
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		if (!reload_present(destination, &destination->regions[i]))
			return -EIO;
	}
	if (destination->side.features & FEATURE_ZSTD && !prepare_decompression(destination)) {
		snprintf(error, CODEC_ERROR_MAX, "no memory to decompress pages with");
		return -ENOMEM;
	}
	headroom_close(&destination->headroom);
	destination->prepare_region = destination->nr_regions;
	destination->early_over = destination->discards_over = true;
	return 0;
}

static int prepare(struct destination *destination, char *error)
{
	const struct options *options = destination->side.options;
	bool streams = options->uri.kind == URI_FD || options->uri.kind == URI_EXEC;
	char actual[URI_TEXT_MAX];
	int err;

	for (uint32_t i = 0; i < options->nr_regions; i++) {
		err = open_region(destination, i, error);
		if (err)
			return err;
	}
	if (pending_init(&destination->pending)) {
		snprintf(error, CODEC_ERROR_MAX, "out of memory");
		return -ENOMEM;
	}
	err = options->resume_fd < 0 ? side_open_state(&destination->side, state_ready, error) :
				       go_on(destination, error);
	if (err)
		return err;
	strcpy(actual, options->uri_text);
	if (options->listen_fd >= 0)
		err = strangers_take_listener(&destination->strangers, options->listen_fd, error);
	else if (!streams)
		err = strangers_listen(&destination->strangers, &options->uri, actual, error);
	if (!err)
		err = start_errands(destination, error);
	/* Now: that process shall not know them. */
	if (!err)
		err = side_load_credentials(&destination->side, error);
	if (!err && streams) {
		destination->side.stream = stream_open(&destination->side.loop, &options->uri,
						       destination->side.credentials,
						       stream_opened, destination, error);
		err = destination->side.stream ? 0 : -EIO;
	}
	if (!err)
		err = sandbox_enter(SANDBOX_MIGRATE, false, error);
	if (err)
		return err;
	destination->strangers.credentials = side_channel_credentials(&destination->side);
	launcher_send(&destination->side.launcher,
		      json_pack("{s:s,s:s}", "event", "listening", "uri", actual));
	if (options->resume_fd >= 0) {
		check_complete(destination);
		side_lost(&destination->side, "this umemd goes on with the session of another");
	}
	return 0;
}

static void destroy(struct destination *destination)
{
	errands_remove(&destination->errands, &destination->strangers.listening);
	strangers_destroy(&destination->strangers);
	side_destroy(&destination->side);
	errands_stop(&destination->errands);
	for (uint32_t i = 0; i < REGIONS_MAX; i++)
		free(destination->regions[i].present);
	forget_early(destination);
	decompressor_free(destination->decompressor);
	free(destination->unpacked);
	pending_destroy(&destination->pending);
	headroom_close(&destination->headroom);
	free(destination);
}

static const struct side_role role = {
	.role = ROLE_DESTINATION,
	.turn = turn,
	.tick = tick,
	.wait_ns = wait_ns,
	.set_wants = set_wants,
	.may_receive = may_receive,
	.admits = admits,
	.take = take,
	.over = over,
	.paused = paused,
	.command = command,
	.count = count,
};

int destination_run(const struct options *options)
{
	struct destination *destination = calloc(1, sizeof(*destination));
	char error[max(CODEC_ERROR_MAX, SOCKET_ERROR_MAX)];
	int status, err;

	if (!destination) {
		log_error("out of memory");
		return 1;
	}
	err = side_init(&destination->side, &role, destination, options);
	if (err) {
		log_error("--control-fd %d: %s", options->control_fd, strerror(-err));
		free(destination);
		return 1;
	}
	strangers_init(&destination->strangers, &destination->side.loop,
		       &destination->side.launcher, introduced, destination);
	headroom_open(&destination->headroom, "/proc/meminfo", "/proc/self/cgroup",
		      "/sys/fs/cgroup");
	if (prepare(destination, error))
		side_fail(&destination->side, "%s", error);
	side_run(&destination->side);

	status = destination->side.exit_status;
	destroy(destination);
	return status;
}
