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
#include "umemd/compress.h"
#include "umemd/pending.h"
#include "umemd/side.h"
#include "umemd/socket.h"
#include "umemd/touch.h"

#define HANDSHAKE_NS		(10 * NSEC_PER_SEC)
#define GOODBYE_NS		(2 * NSEC_PER_SEC)	/* for a REFUSE to be read */
#define END_NS			(60 * NSEC_PER_SEC)	/* for a source that lost END */
#define REPAIR_NS		(1 * NSEC_PER_SEC)
#define STRANGERS_MAX		(16 + 2 * CHANNELS_MAX)	/* all channels may come at once */
#define EVENTS_BATCH		64
#define REQUESTS_UNSENT		(32 * 1024)
#define STATE_UNSENT		(256 * 1024)
#define PREPARE_STEP		(16ULL << 20)

struct destination;

/**
 * struct destination_region - memory to fill
 * @index: its place in the array
 * @number: what the source calls it
 * @present: one bit a page
 * @early: pages that came early and are good, but are not published; NULL without
 *	pre-copy
 */
struct destination_region {
	struct destination *destination;
	struct watch watch;	/* of the pager */
	int fd;
	uint32_t index, number;
	uint64_t length, pages, nr_present;
	uint64_t *present;
	uint64_t *early;
};

/**
 * struct stranger - a connection that has not said what it wants
 * @refused: it was told no; wait for it to read that
 */
struct stranger {
	struct destination *destination;
	struct channel *channel;
	uint64_t deadline_ns;
	uint64_t bytes;
	bool refused;
};

struct destination {
	struct side side;
	struct pending pending;
	struct touch touch;
	bool touching;
	struct destination_region regions[REGIONS_MAX];
	uint32_t by_number[REGIONS_MAX];	/* the source's number to ours */
	uint32_t nr_regions;

	struct socket_listener listening;
	struct watch listener;
	struct stranger strangers[STRANGERS_MAX];
	struct decompressor *decompressor;	/* once a source offered zstd */
	uint8_t *unpacked;		/* pages of one frame */

	uint32_t prepare_region;	/* what is next to be made ready */
	uint64_t prepare_offset;
	uint32_t resume_region;		/* whose bitmap is next to be sent */
	uint64_t resume_word;

	uint8_t state_buffer[STATE_UNSENT];
	size_t state_start, state_used;
	bool state_touched;		/* QEMU was given some of it */
	bool state_ending;		/* STATE_END came */

	uint32_t synced;	/* bit n: bulk channel n said SYNC, and waits for the others */
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
		if (!region->early)
			return false;
	}
	return true;
}

static void forget_early(struct destination *destination)
{
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		free(destination->regions[i].early);
		destination->regions[i].early = NULL;
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

	if (destination->state_touched)
		side_fail(&destination->side, "%s", why);
	else
		start_over(destination, why);
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

/* Pages of @region that are missing and set in @wanted, all of them if NULL. */
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
		if (!wanted || bitmap_test(wanted, page)) {
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

/* After a reconnection: what is waited for was asked on connections now gone. */
static void ask_again(struct destination *destination)
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
			ask_for_all(destination, region, wanted, CHANNEL_OUT_MAX / 8 / 2, false);
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
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		struct destination_region *region = &destination->regions[i];

		loop_remove(&destination->side.loop, &region->watch);
		close(region->watch.fd);
		region->watch.fd = -1;
	}
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

/* Touching. */

static void begin_touching(struct destination *destination)
{
	int err;

	if (!destination->side.options->touch || destination->touching)
		return;
	err = touch_find(&destination->touch, getppid(), destination->side.options->region_fds,
			 destination->nr_regions);
	if (err)
		log_warning("no page is touched: no other child of the launcher maps a region (%s)",
			    strerror(-err));
	destination->touching = !err;
}

static void touch(struct destination *destination, const struct destination_region *region,
		  const uint64_t *pages, uint32_t count)
{
	int err;

	if (!destination->touching)
		return;
	err = touch_pages(&destination->touch, region->index, pages, count);
	if (!err)
		return;
	log_warning("pages are no longer touched in the guest's process: %s", strerror(-err));
	destination->touching = false;
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

/* @flags: of enum umem_fill_flags */
static int deliver(struct destination_region *region, const struct delivery *delivery,
		   uint32_t flags)
{
	int err = 0;

	if (delivery->nr_copies)
		err = umem_copy(region->watch.fd, flags, delivery->copies, delivery->nr_copies,
				NULL);
	for (uint32_t i = 0; i < delivery->nr_zeroes && !err; i++)
		err = umem_zero(region->watch.fd, flags, delivery->zeroes[i].offset,
				delivery->zeroes[i].length, NULL);
	return err;
}

/* A page of a frame, whose contents are at @data; NULL if it does not decompress. */
static const uint8_t *contents_of(struct destination *destination, const struct page_entry *entry,
				  uint32_t index, const uint8_t *data)
{
	uint8_t *unpacked = destination->unpacked + index * PAGE_BYTES;

	if (!entry->compressed)
		return data;
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

static void count_damaged(struct destination *destination, const struct destination_region *region,
			  const struct delivery *delivery, const char *next)
{
	if (!delivery->nr_damaged)
		return;
	destination->side.progress.checksum_errors += delivery->nr_damaged;
	log_warning("region \"%s\": %u pages came damaged, the first at offset %llu: %s",
		    destination->side.options->regions[region->index].name, delivery->nr_damaged,
		    (unsigned long long)(delivery->damaged[0] * PAGE_BYTES), next);
}

/* Pages are there, and shown. */
static void settle(struct destination *destination, struct destination_region *region,
		   const struct delivery *delivery)
{
	uint64_t now = now_ns();

	destination->page_ns = now;
	for (uint32_t i = 0; i < delivery->nr_pages; i++)
		page_is_present(destination, region, delivery->pages[i], now);
	touch(destination, region, delivery->pages, delivery->nr_pages);
	count_damaged(destination, region, delivery, "asking again");
	ask(destination, region, delivery->damaged, delivery->nr_damaged, true);
	check_complete(destination);
}

/* Pages are there, and wait for PUBLISH. An older copy of a damaged one is of no use. */
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
	bool early = frame->flags & FRAME_PAGES_EARLY;
	struct page_entry entries[PAGES_MAX];
	struct delivery delivery = { 0 };
	const uint8_t *data = channel->data;
	char error[CODEC_ERROR_MAX];
	int err;

	if (!region)
		return;
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

/* Once all have come to their SYNC, what came along with it is looked at. */
static void take_sync(struct destination *destination, const struct channel *channel)
{
	struct channel *other;

	destination->synced |= 1u << channel->index;
	if ((uint32_t)__builtin_popcount(destination->synced) < channel->frame.count)
		return;
	destination->synced = 0;
	if (channel->frame.flags & FRAME_SYNC_LAST) {
		destination->early_over = true;
		try_publish(destination);
	}
	side_for_each(&destination->side, CHANNEL_BULK, other) {
		if (other != channel)
			side_receive(&destination->side, CHANNEL_BULK, other->index);
	}
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
			bitmap_clear(region->early, page);
	}
}

/*
 * Everything was sent and yet pages are missing: damaged ones whose second copy
 * was damaged too, or a fault of this program. Ask for what is left.
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

static void get_memory_ready(struct destination *destination)
{
	struct destination_region *region = &destination->regions[destination->prepare_region];
	const char *name = destination->side.options->regions[destination->prepare_region].name;
	uint64_t step = min(region->length - destination->prepare_offset,
			    (uint64_t)PREPARE_STEP);
	int err;

	err = umem_mark_missing(region->watch.fd, destination->prepare_offset, step, NULL);
	if (err) {
		side_fail(&destination->side, "region \"%s\": cannot mark it missing: %s", name,
			  strerror(-err));
		return;
	}
	if (destination->side.options->preallocate) {
		err = umem_allocate(region->fd, destination->prepare_offset, step);
		if (err) {
			side_fail(&destination->side, "region \"%s\": cannot allocate its %llu bytes of memory: %s",
				  name, (unsigned long long)region->length, strerror(-err));
			return;
		}
	}
	destination->prepare_offset += step;
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

static void get_ready(void *owner)
{
	struct destination *destination = owner;
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
		ask_again(destination);
		check_complete(destination);
	}
}

/* What comes on the channels of the session. */

static void take_go(struct destination *destination, const struct frame *frame)
{
	begin_touching(destination);
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

/* Strangers: connections that are not yet part of the session. */

static void dismiss(struct stranger *stranger)
{
	channel_free(&stranger->destination->side.loop, stranger->channel);
	stranger->channel = NULL;
}

/* Says no. Closing right away could take the words back from the peer's buffer. */
static void refuse(struct stranger *stranger, enum refuse_code code, const char *text)
{
	struct frame frame = {
		.type = FRAME_REFUSE,
		.length = (uint32_t)strnlen(text, TEXT_MAX),
		.count = code,
	};

	launcher_message(&stranger->destination->side.launcher, "refused", "%s: %s",
			 stranger->channel->peer, text);
	if (channel_send(stranger->channel, &frame, text)) {
		dismiss(stranger);
		return;
	}
	shutdown(stranger->channel->watch.fd, SHUT_WR);
	stranger->refused = true;
	stranger->deadline_ns = now_ns() + GOODBYE_NS;
}

/* The stranger's connection becomes a channel of the session. */
static void adopt(struct stranger *stranger, enum channel_kind kind, unsigned int index)
{
	struct destination *destination = stranger->destination;
	struct channel *channel = stranger->channel;

	stranger->channel = NULL;
	side_add(&destination->side, channel, kind, index, stranger->bytes);
	if (kind == CHANNEL_CONTROL)
		snprintf(destination->side.name, sizeof(destination->side.name), "the source %s",
			 channel->peer);
	else if (channel_take_pages(channel))
		side_fail(&destination->side, "out of memory");
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

static void take_hello(struct stranger *stranger, struct hello *hello)
{
	struct destination *destination = stranger->destination;
	struct channel *channel = stranger->channel;
	struct frame frame = { .type = FRAME_HELLO_ACK, .length = HELLO_ACK_BYTES };
	struct hello_ack ack = { .features = FEATURES_KNOWN };
	uint8_t payload[HELLO_ACK_BYTES];
	char error[CODEC_ERROR_MAX];
	uint32_t index[REGIONS_MAX];

	if (hello_decode(hello, &channel->frame, channel->payload, error)) {
		refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	ack.version = hello_version(hello);
	if (!ack.version) {
		snprintf(error, sizeof(error), "the source speaks protocol versions %u to %u, the destination %u to %u",
			 hello->min_version, hello->version, PROTOCOL_MIN_VERSION,
			 PROTOCOL_VERSION);
		refuse(stranger, REFUSE_VERSION, error);
		return;
	}
	if (destination->side.session.state != SESSION_NONE) {
		snprintf(error, sizeof(error), "a migration is under way here (state %s), wanted none",
			 session_state_name(destination->side.session.state));
		refuse(stranger, REFUSE_BUSY, error);
		return;
	}
	if (hello->page_size != PAGE_BYTES) {
		snprintf(error, sizeof(error), "the source has pages of %u bytes, the destination of %u",
			 hello->page_size, PAGE_BYTES);
		refuse(stranger, REFUSE_PAGE_SIZE, error);
		return;
	}
	if (hello_match(hello, destination->side.options->regions, destination->nr_regions, index,
			error)) {
		refuse(stranger, REFUSE_REGIONS, error);
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
	adopt(stranger, CHANNEL_CONTROL, 0);
	hello_ack_encode(payload, &ack);
	side_sent(&destination->side, channel, channel_send(channel, &frame, payload));
}

/* Takes as long for a wrong guess as for a right one. */
static bool is_our_session(const struct destination *destination, const uint8_t *id)
{
	uint8_t differs = 0;

	for (int i = 0; i < SESSION_SIZE; i++)
		differs |= destination->side.session_id[i] ^ id[i];
	return destination->side.session.state != SESSION_NONE && !differs;
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

static void take_join(struct stranger *stranger)
{
	struct destination *destination = stranger->destination;
	char error[CODEC_ERROR_MAX];
	struct join join;

	if (join_decode(&join, stranger->channel->payload, error)) {
		refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	if (!is_our_session(destination, join.session)) {
		refuse(stranger, REFUSE_SESSION, "JOIN names a session that is not the one here");
		return;
	}
	if (!may_join(destination, &join)) {
		snprintf(error, sizeof(error), "%s channel %u cannot join in state %s%s",
			 channel_name(join.kind), join.index,
			 session_state_name(destination->side.session.state),
			 destination->side.channels[join.kind][join.index] ?
			 ": it is there already" : "");
		refuse(stranger, REFUSE_SESSION, error);
		return;
	}
	adopt(stranger, (enum channel_kind)join.kind, join.index);
}

static void take_resume(struct stranger *stranger)
{
	struct destination *destination = stranger->destination;
	struct channel *channel = stranger->channel;
	bool was_gone = destination->side.session.gone;
	char error[CODEC_ERROR_MAX];
	struct resume resume;

	if (resume_decode(&resume, channel->payload, error)) {
		refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	if (!is_our_session(destination, resume.session)) {
		refuse(stranger, REFUSE_SESSION, "RESUME names a session that is not the one here");
		return;
	}
	if (session_frame(&destination->side.session, CHANNEL_CONTROL, &channel->frame, error)) {
		refuse(stranger, REFUSE_SESSION, error);
		return;
	}
	/* The source knows better whether the old connections are good. */
	side_close_channels(&destination->side);
	adopt(stranger, CHANNEL_CONTROL, 0);
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

static int stranger_admit(struct channel *channel, const struct frame *frame, char *error)
{
	(void)channel;
	if (frame->type == FRAME_HELLO || frame->type == FRAME_JOIN || frame->type == FRAME_RESUME)
		return 0;
	return wrong(error, "frame %s came first, wanted HELLO, JOIN or RESUME",
		     frame_name(frame->type));
}

/* Reads and forgets what a refused peer still sends, until it closes. */
static void drain(struct stranger *stranger)
{
	uint8_t buffer[4096];
	ssize_t n = read(stranger->channel->watch.fd, buffer, sizeof(buffer));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		dismiss(stranger);
}

static void stranger_ready(void *owner, uint32_t events)
{
	struct channel *channel = owner;
	struct stranger *stranger = channel->owner;
	char error[CODEC_ERROR_MAX];
	struct hello *hello;
	int err;

	if (stranger->refused) {
		drain(stranger);
		return;
	}
	if (events & EPOLLOUT)
		channel_flush(channel);
	err = channel_receive(channel, error);
	if (err == -EAGAIN)
		return;
	if (err != 1) {
		/* A umem peer is told; others would not understand. */
		if (err == -EPROTO && channel->magic_seen) {
			refuse(stranger, REFUSE_PROTOCOL, error);
			return;
		}
		launcher_message(&stranger->destination->side.launcher, "refused", "%s: %s",
				 channel->peer, error);
		dismiss(stranger);
		return;
	}
	switch (channel->frame.type) {
	case FRAME_HELLO:
		hello = malloc(sizeof(*hello));
		if (hello)
			take_hello(stranger, hello);
		else
			dismiss(stranger);
		free(hello);
		break;
	case FRAME_JOIN:
		take_join(stranger);
		break;
	case FRAME_RESUME:
		take_resume(stranger);
		break;
	}
}

/* A free place, or that of the one who has been here longest. */
static struct stranger *place(struct destination *destination)
{
	struct stranger *oldest = &destination->strangers[0];

	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &destination->strangers[i];

		if (!stranger->channel)
			return stranger;
		if (stranger->deadline_ns < oldest->deadline_ns)
			oldest = stranger;
	}
	dismiss(oldest);
	return oldest;
}

static void add_stranger(struct destination *destination, int fd, const char *peer)
{
	struct watch watch = { .priority = PRIORITY_STRANGERS, .ready = stranger_ready };
	struct stranger *stranger = place(destination);

	watch.owner = stranger;
	*stranger = (struct stranger){
		.destination = destination,
		.deadline_ns = now_ns() + HANDSHAKE_NS,
	};
	stranger->channel = channel_new(fd, peer, &stranger->bytes, &watch, stranger_admit);
	if (stranger->channel)
		channel_flush(stranger->channel);
}

/* The source opened a channel of the stream. */
static void stream_opened(void *owner, int fd)
{
	struct destination *destination = owner;

	add_stranger(destination, fd, destination->side.options->uri_text);
}

static void listener_ready(void *owner, uint32_t events)
{
	struct destination *destination = owner;
	char peer[SOCKET_TEXT_MAX];
	int fd, err;

	(void)events;
	err = socket_accept(destination->listener.fd, &fd, peer);
	if (err) {
		if (err != -EAGAIN && err != -ECONNABORTED && err != -EINTR)
			log_warning("accept: %s", strerror(-err));
		return;
	}
	add_stranger(destination, fd, peer);
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

static void check_strangers(struct destination *destination, uint64_t now)
{
	char error[CODEC_ERROR_MAX];

	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &destination->strangers[i];

		if (!stranger->channel || now < stranger->deadline_ns)
			continue;
		if (!stranger->refused) {
			snprintf(error, sizeof(error), "it did not introduce itself within %llu seconds",
				 HANDSHAKE_NS / NSEC_PER_SEC);
			if (!stranger->channel->magic_seen)
				magic_check(stranger->channel->magic,
					    stranger->channel->magic_have, MAGIC, error);
			launcher_message(&destination->side.launcher, "refused", "%s: %s",
					 stranger->channel->peer, error);
		}
		dismiss(stranger);
	}
}

/* A stream has one source: with that gone before it began, none can come. */
static void check_stream(struct destination *destination)
{
	struct stream *stream = destination->side.stream;

	if (!stream || !stream_is_over(stream) || destination->side.session.state != SESSION_NONE)
		return;
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (destination->strangers[i].channel)
			return;
	}
	side_fail(&destination->side, "no source can come over %s any more: %s",
		  destination->side.options->uri_text,
		  stream_broken(stream) ? stream_broken(stream) : "its source has ended");
}

static void tick(void *owner, uint64_t now)
{
	struct destination *destination = owner;
	struct side *side = &destination->side;
	struct channel *control = side_control(side);

	check_strangers(destination, now);
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
	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &destination->strangers[i];

		if (stranger->channel)
			loop_want(&destination->side.loop, &stranger->channel->watch,
				  EPOLLIN | (channel_busy(stranger->channel) ? EPOLLOUT : 0));
	}
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

static int begin_to_listen(struct destination *destination, char actual[URI_TEXT_MAX],
			   char *error)
{
	const struct options *options = destination->side.options;
	int err = 0;

	if (options->listen_fd >= 0) {
		destination->listening.fd = options->listen_fd;
		strcpy(actual, options->uri_text);
	} else {
		err = socket_listen(&options->uri, &destination->listening, actual, error);
	}
	if (err)
		return err;
	destination->listener = (struct watch){
		.fd = destination->listening.fd,
		.events = EPOLLIN,
		.priority = PRIORITY_STRANGERS,
		.ready = listener_ready,
		.owner = destination,
	};
	err = loop_add(&destination->side.loop, &destination->listener);
	if (err)
		snprintf(error, CODEC_ERROR_MAX, "epoll: %s", strerror(-err));
	return err;
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
	destination->prepare_region = destination->nr_regions;
	destination->early_over = destination->discards_over = true;
	if (destination->side.session.gone)
		begin_touching(destination);
	return 0;
}

static int prepare(struct destination *destination, char *error)
{
	const struct options *options = destination->side.options;
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
	if (options->uri.kind == URI_FD || options->uri.kind == URI_EXEC) {
		destination->side.stream = stream_open(&destination->side.loop, &options->uri,
						       stream_opened, destination, error);
		err = destination->side.stream ? 0 : -EIO;
		strcpy(actual, options->uri_text);
	} else {
		err = begin_to_listen(destination, actual, error);
	}
	if (err)
		return err;
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
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (destination->strangers[i].channel)
			dismiss(&destination->strangers[i]);
	}
	side_destroy(&destination->side);
	socket_unlisten(&destination->listening);
	for (uint32_t i = 0; i < REGIONS_MAX; i++)
		free(destination->regions[i].present);
	forget_early(destination);
	decompressor_free(destination->decompressor);
	free(destination->unpacked);
	pending_destroy(&destination->pending);
	free(destination);
}

static const struct side_role role = {
	.role = ROLE_DESTINATION,
	.turn = get_ready,
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
	destination->listening.fd = destination->listener.fd = -1;
	if (prepare(destination, error))
		side_fail(&destination->side, "%s", error);
	side_run(&destination->side);

	status = destination->side.exit_status;
	destroy(destination);
	return status;
}
