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
#include "umemd/channel.h"
#include "umemd/compress.h"
#include "umemd/launcher.h"
#include "umemd/pending.h"
#include "umemd/progress.h"
#include "umemd/socket.h"
#include "umemd/stream.h"
#include "umemd/touch.h"

#define TICK_MS			100
#define PING_PERIOD_NS		(5 * NSEC_PER_SEC)
#define SILENCE_NS		(30 * NSEC_PER_SEC)
#define HANDSHAKE_NS		(10 * NSEC_PER_SEC)
#define GOODBYE_NS		(2 * NSEC_PER_SEC)	/* for a REFUSE to be read */
#define END_NS			(60 * NSEC_PER_SEC)	/* for a source that lost END */
#define REPAIR_NS		(1 * NSEC_PER_SEC)
#define EXPLAIN_NS		(300 * NSEC_PER_MSEC)	/* for control to say why urgent ended */
#define STRANGERS_MAX		16
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
 */
struct destination_region {
	struct destination *destination;
	struct watch watch;	/* of the pager */
	int fd;
	uint32_t index, number;
	uint64_t length, pages, nr_present;
	uint64_t *present;
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
	const struct options *options;
	struct loop loop;
	struct launcher launcher;
	struct session session;
	struct progress progress;
	struct pending pending;
	struct touch touch;
	bool touching;
	struct destination_region regions[REGIONS_MAX];
	uint32_t by_number[REGIONS_MAX];	/* the source's number to ours */
	uint32_t nr_regions;

	struct socket_listener listening;
	struct watch listener;
	struct stream *stream;	/* of fd: and exec:, in place of listening */
	struct stranger strangers[STRANGERS_MAX];
	struct channel *channels[3];
	uint64_t features;
	struct decompressor *decompressor;	/* once a source offered zstd */
	uint8_t *unpacked;		/* pages of one frame */
	uint8_t session_id[SESSION_SIZE];

	uint32_t prepare_region;	/* what is next to be made ready */
	uint64_t prepare_offset;
	uint32_t resume_region;		/* whose bitmap is next to be sent */
	uint64_t resume_word;

	struct watch state;
	uint8_t state_buffer[STATE_UNSENT];
	size_t state_start, state_used;
	bool state_touched;		/* QEMU was given some of it */
	bool state_ending;		/* STATE_END came */

	bool all_sent;
	uint64_t page_ns;		/* when a page last came */
	uint64_t deadline_ns;		/* of joining; at the end, of staying */
	uint64_t ping_ns;
	uint64_t lost_ns;		/* when a channel that ended ends the rest; 0: none did */
	char lost_why[CODEC_ERROR_MAX + 128];

	bool done;
	int exit_status;
};

static const struct channel *control_of(const struct destination *destination)
{
	return destination->channels[CHANNEL_CONTROL];
}

static void finish(struct destination *destination, int exit_status)
{
	if (destination->done)
		return;
	destination->done = true;
	destination->loop.stopped = true;
	destination->exit_status = exit_status;
}

static void close_channels(struct destination *destination)
{
	for (int i = 0; i < 3; i++) {
		channel_free(&destination->loop, destination->channels[i]);
		destination->channels[i] = NULL;
	}
	destination->lost_ns = 0;
}

static void __attribute__((format(printf, 2, 3)))
fail(struct destination *destination, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list args;

	if (destination->done)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (control_of(destination)) {
		struct frame frame = { .type = FRAME_ERROR, .length = (uint32_t)strlen(text) };

		channel_send(destination->channels[CHANNEL_CONTROL], &frame, text);
	}
	launcher_message(&destination->launcher, "error", "%s", text);
	close_channels(destination);
	finish(destination, 1);
}

/* Nothing was given to QEMU yet: forget the peer and wait for another. */
static void start_over(struct destination *destination, const char *why)
{
	close_channels(destination);
	session_init(&destination->session, ROLE_DESTINATION);
	destination->state_start = destination->state_used = 0;
	destination->state_ending = false;
	destination->deadline_ns = 0;
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		if (destination->regions[i].nr_present)
			destination->prepare_region = 0;	/* drop what came */
	}
	launcher_message(&destination->launcher, "refused", "%s", why);
}

/* A connection is of no more use. */
static void __attribute__((format(printf, 2, 3)))
lost(struct destination *destination, const char *format, ...)
{
	enum session_state before = destination->session.state;
	char text[CODEC_ERROR_MAX + 128], error[CODEC_ERROR_MAX];
	va_list args;

	if (destination->done)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (session_event(&destination->session, EVENT_LOST, error)) {
		if (destination->state_touched)
			fail(destination, "%s", text);
		else
			start_over(destination, text);
		return;
	}
	close_channels(destination);
	if (destination->session.state == SESSION_PAUSED && before != SESSION_PAUSED) {
		log_warning("%s; %s", text, destination->stream ?
			    "the source cannot connect again" :
			    "waiting for the source to connect again");
		launcher_send(&destination->launcher,
			      json_pack("{s:s,s:s,s:s}", "event", "state", "state", "paused",
					"message", text));
	}
}

/* As in source.c: what is said on control may come after another channel's end. */
static void channel_ended(struct destination *destination, enum channel_kind kind,
			  const char *why)
{
	char text[sizeof(destination->lost_why)];

	if (destination->stream && stream_broken(destination->stream))
		why = stream_broken(destination->stream);
	snprintf(text, sizeof(text), "connection to the source %s lost on the %s channel: %s",
		 destination->channels[kind]->peer, channel_name(kind), why);
	if (kind == CHANNEL_CONTROL) {
		lost(destination, "%s", destination->lost_ns ? destination->lost_why : text);
		return;
	}
	channel_free(&destination->loop, destination->channels[kind]);
	destination->channels[kind] = NULL;
	if (!destination->lost_ns) {
		destination->lost_ns = now_ns() + EXPLAIN_NS;
		strcpy(destination->lost_why, text);
	}
}

static bool sent(struct destination *destination, enum channel_kind kind, int err)
{
	if (!err)
		return true;
	channel_ended(destination, kind, strerror(-err));
	return false;
}

static bool say(struct destination *destination, enum frame_type type)
{
	return sent(destination, CHANNEL_CONTROL,
		    channel_say(destination->channels[CHANNEL_CONTROL], type, 0));
}

static void progress_now(struct destination *destination)
{
	struct progress *progress = &destination->progress;

	progress->pages_done = 0;
	for (uint32_t i = 0; i < destination->nr_regions; i++)
		progress->pages_done += destination->regions[i].nr_present;
	launcher_send(&destination->launcher,
		      progress_event(progress, ROLE_DESTINATION,
				     session_state_name(destination->session.state), now_ns()));
}

/* Asking for pages. */

static bool may_ask(const struct destination *destination)
{
	enum session_state state = destination->session.state;

	return destination->channels[CHANNEL_URGENT] && state >= SESSION_ADVISE &&
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
	uint8_t payload[8 * REQUEST_MAX];

	if (!count || !may_ask(destination))
		return;
	frame.length = (uint32_t)request_encode(payload, pages, count);
	destination->progress.requests += count;
	sent(destination, CHANNEL_URGENT,
	     channel_send(destination->channels[CHANNEL_URGENT], &frame, payload));
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
			fail(destination, "region \"%s\": cannot tell what is waited for: %s",
			     destination->options->regions[i].name, strerror(-err));
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
		progress_wait_ends(&destination->progress, &wait, now);
}

static bool reload_present(struct destination *destination, struct destination_region *region)
{
	int err = umem_get_bitmap(region->watch.fd, UMEM_BITMAP_PRESENT, 0, region->length,
				  region->present);

	if (err) {
		fail(destination, "region \"%s\": cannot tell what is present: %s",
		     destination->options->regions[region->index].name, strerror(-err));
		return false;
	}
	region->nr_present = 0;
	for (size_t i = 0; i < bitmap_words(region->pages); i++)
		region->nr_present += (uint64_t)__builtin_popcountll(region->present[i]);
	return true;
}

static void check_complete(struct destination *destination)
{
	char error[CODEC_ERROR_MAX];

	if (destination->done || destination->session.state != SESSION_RUNNING)
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
			    destination->options->regions[i].name,
			    (unsigned long long)info.missing);
		if (reload_present(destination, region))
			ask_for_all(destination, region, NULL, REQUEST_MAX, true);
		return;
	}
	session_event(&destination->session, EVENT_COMPLETE, error);
	for (uint32_t i = 0; i < destination->nr_regions; i++) {
		struct destination_region *region = &destination->regions[i];

		loop_remove(&destination->loop, &region->watch);
		close(region->watch.fd);
		region->watch.fd = -1;
	}
	progress_now(destination);
	launcher_state(&destination->launcher, "end");
	destination->deadline_ns = now_ns() + END_NS;
	say(destination, FRAME_END);
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
		progress_wait_begins(&destination->progress, &wait);
		progress_wait_ends(&destination->progress, &wait, now_ns());
		return;
	}
	switch (pending_add(&destination->pending, region->index, page, &wait)) {
	case PENDING_KNOWN:
		return;
	case PENDING_NEW:
		progress_wait_begins(&destination->progress, &wait);
		break;
	case PENDING_FULL:
		destination->progress.faults++;
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
		fail(destination, "region \"%s\": cannot read its requests: %s",
		     destination->options->regions[region->index].name, strerror(-err));
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

	if (!destination->options->touch || destination->touching)
		return;
	err = touch_find(&destination->touch, getppid(), destination->options->region_fds,
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

static int deliver(struct destination_region *region, const struct delivery *delivery)
{
	int err = 0;

	if (delivery->nr_copies)
		err = umem_copy(region->watch.fd, delivery->copies, delivery->nr_copies, NULL);
	for (uint32_t i = 0; i < delivery->nr_zeroes && !err; i++)
		err = umem_zero(region->watch.fd, delivery->zeroes[i].offset,
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
	return !(destination->features & FEATURE_CHECKSUM) ||
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

static void take_pages(struct destination *destination, struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	struct page_entry entries[PAGES_MAX];
	struct delivery delivery = { 0 };
	struct destination_region *region;
	const uint8_t *data = channel->data;
	char error[CODEC_ERROR_MAX];
	uint64_t now;
	int err;

	if (frame->region >= destination->nr_regions) {
		lost(destination, "the source sends pages of region %u, wanted 0 to %u",
		     frame->region, destination->nr_regions - 1);
		return;
	}
	region = &destination->regions[destination->by_number[frame->region]];
	if (pages_decode(entries, frame, channel->payload, region->pages, error)) {
		lost(destination, "%s: %s", channel->peer, error);
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
			destination->progress.duplicates++;
			continue;
		}
		if (page)
			add_range(delivery.copies, &delivery.nr_copies, entry->offset, page);
		else
			add_range(delivery.zeroes, &delivery.nr_zeroes, entry->offset, NULL);
		count_page(&destination->progress, entry);
		delivery.pages[delivery.nr_pages++] = entry->offset / PAGE_BYTES;
	}

	err = deliver(region, &delivery);
	if (err) {
		fail(destination, "region \"%s\": cannot put %u pages in place: %s",
		     destination->options->regions[region->index].name, delivery.nr_pages,
		     strerror(-err));
		return;
	}
	now = now_ns();
	destination->page_ns = now;
	for (uint32_t i = 0; i < delivery.nr_pages; i++)
		page_is_present(destination, region, delivery.pages[i], now);
	touch(destination, region, delivery.pages, delivery.nr_pages);

	if (delivery.nr_damaged) {
		destination->progress.checksum_errors += delivery.nr_damaged;
		log_warning("region \"%s\": %u pages came damaged, the first at offset %llu: asking again",
			    destination->options->regions[region->index].name,
			    delivery.nr_damaged,
			    (unsigned long long)(delivery.damaged[0] * PAGE_BYTES));
		ask(destination, region, delivery.damaged, delivery.nr_damaged, true);
	}
	check_complete(destination);
}

/*
 * Everything was sent and yet pages are missing: damaged ones whose second copy
 * was damaged too, or a fault of this program. Ask for what is left.
 */
static void repair(struct destination *destination, uint64_t now)
{
	if (!destination->all_sent || destination->session.state != SESSION_RUNNING ||
	    now - destination->page_ns < REPAIR_NS)
		return;
	destination->page_ns = now;
	for (uint32_t i = 0; i < destination->nr_regions && !destination->done; i++)
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
	if (destination->state.fd < 0)
		return;
	while (state_queued(destination)) {
		ssize_t n = write(destination->state.fd,
				  destination->state_buffer + destination->state_start,
				  state_queued(destination));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			fail(destination, "QEMU does not take the device state: %s",
			     strerror(errno));
			return;
		}
		destination->state_touched = true;
		destination->state_start += (size_t)n;
	}
	if (destination->state_ending) {
		loop_remove(&destination->loop, &destination->state);
		close(destination->state.fd);
		destination->state.fd = -1;
		launcher_state(&destination->launcher, "listen");
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
	const char *name = destination->options->regions[destination->prepare_region].name;
	uint64_t step = min(region->length - destination->prepare_offset,
			    (uint64_t)PREPARE_STEP);
	int err;

	err = umem_mark_missing(region->watch.fd, destination->prepare_offset, step, NULL);
	if (err) {
		fail(destination, "region \"%s\": cannot mark it missing: %s", name,
		     strerror(-err));
		return;
	}
	if (destination->options->preallocate) {
		err = umem_allocate(region->fd, destination->prepare_offset, step);
		if (err) {
			fail(destination, "region \"%s\": cannot allocate its %llu bytes of memory: %s",
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
	sent(destination, CHANNEL_CONTROL,
	     channel_send(destination->channels[CHANNEL_CONTROL], &frame, payload));
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
	if (destination->session.state == SESSION_RESUME)
		return destination->resume_region < destination->nr_regions &&
		       channel_queued(control_of(destination)) < CHANNEL_OUT_MAX / 2;
	return false;
}

static void get_ready(struct destination *destination)
{
	bool resumed = destination->session.state == SESSION_RESUME;
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
	} else if (destination->session.state != SESSION_PREPARE) {
		return;
	}
	if (!destination->channels[CHANNEL_URGENT] || !destination->channels[CHANNEL_BULK])
		return;

	destination->deadline_ns = 0;
	destination->all_sent = false;
	session_event(&destination->session, EVENT_PREPARED, error);
	if (!say(destination, FRAME_PREPARED))
		return;
	launcher_state(&destination->launcher, session_state_name(destination->session.state));
	if (!destination->progress.started_ns)
		progress_start(&destination->progress, now_ns());
	if (resumed) {
		ask_again(destination);
		check_complete(destination);
	}
}

/* What comes on the channels of the session. */

static void take_go(struct destination *destination, const struct frame *frame)
{
	begin_touching(destination);
	launcher_send(&destination->launcher,
		      json_pack("{s:s,s:b}", "event", "go", "run",
				!!(frame->flags & FRAME_GO_RUN)));
}

static void take_frame(struct destination *destination, struct channel *channel)
{
	char error[CODEC_ERROR_MAX], text[TEXT_MAX + 1];

	if (session_frame(&destination->session, channel->kind, &channel->frame, error)) {
		lost(destination, "%s: %s", channel->peer, error);
		return;
	}
	switch (channel->frame.type) {
	case FRAME_STATE:
		take_state(destination, channel);
		break;
	case FRAME_STATE_END:
		destination->state_ending = true;
		write_state(destination);
		break;
	case FRAME_GO:
		progress_now(destination);	/* before anyone asks how it goes */
		take_go(destination, &channel->frame);
		launcher_state(&destination->launcher, "running");
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
		finish(destination, 0);
		break;
	case FRAME_CANCEL:
		lost(destination, "the source %s cancelled the migration", channel->peer);
		break;
	case FRAME_ERROR:
		text_decode(text, channel->payload, channel->frame.length);
		lost(destination, "the source %s failed: %s", channel->peer, text);
		break;
	}
}

static bool may_receive(const struct destination *destination, enum channel_kind kind)
{
	return !destination->done && destination->channels[kind] &&
	       (kind != CHANNEL_CONTROL || state_has_room(destination));
}

static void receive(struct destination *destination, enum channel_kind kind)
{
	while (may_receive(destination, kind)) {
		struct channel *channel = destination->channels[kind];
		char error[CODEC_ERROR_MAX];
		int err = channel_receive(channel, error);

		if (err == -EAGAIN)
			return;
		if (err != 1) {
			if (!err && kind == CHANNEL_CONTROL &&
			    destination->session.state == SESSION_END)
				finish(destination, 0);
			else if (err == -EPROTO)
				lost(destination, "%s: %s", channel->peer, error);
			else
				channel_ended(destination, kind, error);
			return;
		}
		take_frame(destination, channel);
		/* One frame of bulk a turn, and what no poll would tell of. */
		if (kind == CHANNEL_BULK && destination->channels[kind] == channel &&
		    !channel_has_frame(channel))
			return;
	}
}

static void channel_ready(struct destination *destination, enum channel_kind kind, uint32_t events)
{
	int err;

	if (events & EPOLLOUT) {
		err = channel_flush(destination->channels[kind]);
		if (err != -EAGAIN && !sent(destination, kind, err))
			return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(destination, kind);
}

static void control_ready(void *owner, uint32_t events)
{
	channel_ready(owner, CHANNEL_CONTROL, events);
}

static void urgent_ready(void *owner, uint32_t events)
{
	channel_ready(owner, CHANNEL_URGENT, events);
}

static void bulk_ready(void *owner, uint32_t events)
{
	channel_ready(owner, CHANNEL_BULK, events);
}

static int admit(struct destination *destination, enum channel_kind kind,
		 const struct frame *frame, char *error)
{
	return session_admits(&destination->session, kind, frame, error);
}

static int control_admit(void *owner, const struct frame *frame, char *error)
{
	return admit(owner, CHANNEL_CONTROL, frame, error);
}

static int urgent_admit(void *owner, const struct frame *frame, char *error)
{
	if (frame->type == FRAME_PAGES && frame->flags & FRAME_PAGES_COMPRESSED) {
		snprintf(error, CODEC_ERROR_MAX, "frame PAGES may have compressed pages on urgent, wanted them on bulk only");
		return -EPROTO;
	}
	return admit(owner, CHANNEL_URGENT, frame, error);
}

static int bulk_admit(void *owner, const struct frame *frame, char *error)
{
	const struct destination *destination = owner;

	if (frame->type == FRAME_PAGES && frame->flags & FRAME_PAGES_COMPRESSED &&
	    !(destination->features & FEATURE_ZSTD)) {
		snprintf(error, CODEC_ERROR_MAX, "frame PAGES may have compressed pages, wanted none: HELLO_ACK has features 0x%llx",
			 (unsigned long long)destination->features);
		return -EPROTO;
	}
	return admit(owner, CHANNEL_BULK, frame, error);
}

static void state_ready(void *owner, uint32_t events)
{
	struct destination *destination = owner;

	(void)events;
	write_state(destination);
	/* A frame may be waiting that was read before there was room for it. */
	if (!destination->done)
		receive(destination, CHANNEL_CONTROL);
}

/* Strangers: connections that are not yet part of the session. */

static void dismiss(struct stranger *stranger)
{
	channel_free(&stranger->destination->loop, stranger->channel);
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

	launcher_message(&stranger->destination->launcher, "refused", "%s: %s",
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
static void adopt(struct stranger *stranger, enum channel_kind kind)
{
	static const struct {
		enum loop_priority priority;
		void (*ready)(void *owner, uint32_t events);
		channel_admit admit;
	} kinds[] = {
		[CHANNEL_CONTROL] = { PRIORITY_CONTROL, control_ready, control_admit },
		[CHANNEL_URGENT] = { PRIORITY_URGENT, urgent_ready, urgent_admit },
		[CHANNEL_BULK] = { PRIORITY_BULK, bulk_ready, bulk_admit },
	};
	struct destination *destination = stranger->destination;
	struct channel *channel = stranger->channel;
	uint64_t *bytes = &destination->progress.bytes[kind];

	stranger->channel = NULL;
	loop_remove(&destination->loop, &channel->watch);
	channel->kind = kind;
	channel->watch.priority = kinds[kind].priority;
	channel->watch.ready = kinds[kind].ready;
	channel->watch.owner = destination;
	channel->admit = kinds[kind].admit;
	channel->bytes = bytes;
	*bytes += stranger->bytes;
	destination->channels[kind] = channel;
	if (kind != CHANNEL_CONTROL && channel_take_pages(channel))
		fail(destination, "out of memory");
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
	if (destination->session.state != SESSION_NONE) {
		snprintf(error, sizeof(error), "a migration is under way here (state %s), wanted none",
			 session_state_name(destination->session.state));
		refuse(stranger, REFUSE_BUSY, error);
		return;
	}
	if (hello->page_size != PAGE_BYTES) {
		snprintf(error, sizeof(error), "the source has pages of %u bytes, the destination of %u",
			 hello->page_size, PAGE_BYTES);
		refuse(stranger, REFUSE_PAGE_SIZE, error);
		return;
	}
	if (hello_match(hello, destination->options->regions, destination->nr_regions, index,
			error)) {
		refuse(stranger, REFUSE_REGIONS, error);
		return;
	}

	for (uint32_t i = 0; i < hello->nr_regions; i++) {
		destination->by_number[i] = index[i];
		destination->regions[index[i]].number = i;
	}
	ack.features &= hello->features;
	if (ack.features & FEATURE_ZSTD && !prepare_decompression(destination))
		ack.features &= ~FEATURE_ZSTD;
	destination->features = ack.features;
	memcpy(destination->session_id, hello->session, SESSION_SIZE);
	destination->deadline_ns = now_ns() + HANDSHAKE_NS;
	session_frame(&destination->session, CHANNEL_CONTROL, &channel->frame, error);
	adopt(stranger, CHANNEL_CONTROL);
	hello_ack_encode(payload, &ack);
	sent(destination, CHANNEL_CONTROL, channel_send(channel, &frame, payload));
}

/* Takes as long for a wrong guess as for a right one. */
static bool is_our_session(const struct destination *destination, const uint8_t *id)
{
	uint8_t differs = 0;

	for (int i = 0; i < SESSION_SIZE; i++)
		differs |= destination->session_id[i] ^ id[i];
	return destination->session.state != SESSION_NONE && !differs;
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
	if ((destination->session.state != SESSION_PREPARE &&
	     destination->session.state != SESSION_RESUME) || destination->channels[join.kind]) {
		snprintf(error, sizeof(error), "the %s channel cannot join in state %s",
			 channel_name(join.kind),
			 session_state_name(destination->session.state));
		refuse(stranger, REFUSE_SESSION, error);
		return;
	}
	adopt(stranger, join.kind);
}

static void take_resume(struct stranger *stranger)
{
	struct destination *destination = stranger->destination;
	struct channel *channel = stranger->channel;
	bool was_gone = destination->session.gone;
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
	if (session_frame(&destination->session, CHANNEL_CONTROL, &channel->frame, error)) {
		refuse(stranger, REFUSE_SESSION, error);
		return;
	}
	/* The source knows better whether the old connections are good. */
	close_channels(destination);
	adopt(stranger, CHANNEL_CONTROL);
	if (!was_gone)
		take_go(destination, &channel->frame);
	if (destination->session.state == SESSION_END) {
		say(destination, FRAME_END);
		return;
	}
	destination->resume_region = 0;
	destination->resume_word = 0;
	destination->deadline_ns = now_ns() + HANDSHAKE_NS;
}

static int stranger_admit(void *owner, const struct frame *frame, char *error)
{
	(void)owner;
	if (frame->type == FRAME_HELLO || frame->type == FRAME_JOIN || frame->type == FRAME_RESUME)
		return 0;
	snprintf(error, CODEC_ERROR_MAX, "frame %s came first, wanted HELLO, JOIN or RESUME",
		 frame_name(frame->type));
	return -EPROTO;
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
	struct stranger *stranger = owner;
	struct channel *channel = stranger->channel;
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
		launcher_message(&stranger->destination->launcher, "refused", "%s: %s",
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

	add_stranger(destination, fd, destination->options->uri_text);
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
	char error[CODEC_ERROR_MAX];

	if (destination->done)
		return;
	if (!strcmp(name, "ready")) {
		if (destination->state.fd >= 0) {
			log_warning("command ready: QEMU was not given all of its state yet");
			return;
		}
		if (session_event(&destination->session, EVENT_READY, error)) {
			log_warning("%s", error);
			return;
		}
		say(destination, FRAME_READY);
	} else if (!strcmp(name, "fail")) {
		const char *text = json_string_value(json_object_get(object, "message"));

		if (destination->session.gone) {
			log_warning("command fail after GO: the guest is here, nothing is undone");
			return;
		}
		fail(destination, "%s", text ? text : "QEMU failed");
	} else {
		log_warning("command \"%s\" is unknown to a destination", name);
	}
}

static void launcher_lost(void *owner)
{
	struct destination *destination = owner;

	if (destination->session.gone)
		log_warning("the launcher is gone; going on without it");
	else
		fail(destination, "the launcher is gone");
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
			launcher_message(&destination->launcher, "refused", "%s: %s",
					 stranger->channel->peer, error);
		}
		dismiss(stranger);
	}
}

/* A stream has one source: with that gone before it began, none can come. */
static void check_stream(struct destination *destination)
{
	struct stream *stream = destination->stream;

	if (!stream || !stream_is_over(stream) || destination->session.state != SESSION_NONE)
		return;
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (destination->strangers[i].channel)
			return;
	}
	fail(destination, "no source can come over %s any more: %s",
	     destination->options->uri_text,
	     stream_broken(stream) ? stream_broken(stream) : "its source has ended");
}

static void check_deadlines(struct destination *destination, uint64_t now)
{
	struct channel *control = destination->channels[CHANNEL_CONTROL];

	check_strangers(destination, now);
	check_stream(destination);
	if (destination->done)
		return;
	if (destination->deadline_ns && now >= destination->deadline_ns) {
		destination->deadline_ns = 0;
		if (destination->session.state == SESSION_END)
			finish(destination, 0);
		else if (!destination->channels[CHANNEL_URGENT] ||
			 !destination->channels[CHANNEL_BULK])
			lost(destination, "the channels of the source did not join within %llu seconds",
			     HANDSHAKE_NS / NSEC_PER_SEC);
		return;
	}
	if (destination->lost_ns && now >= destination->lost_ns) {
		lost(destination, "%s", destination->lost_why);
		return;
	}
	repair(destination, now);
	if (destination->done || !control)
		return;
	if (!state_has_room(destination))
		control->heard_ns = now;	/* it is us who do not listen */
	if (now - control->heard_ns >= SILENCE_NS) {
		lost(destination, "nothing came from the source %s for %llu seconds",
		     control->peer, SILENCE_NS / NSEC_PER_SEC);
		return;
	}
	if (now - destination->ping_ns >= PING_PERIOD_NS) {
		int err = channel_say(control, FRAME_PING, 0);

		destination->ping_ns = now;
		if (err != -ENOBUFS)
			sent(destination, CHANNEL_CONTROL, err);
	}
}

static void set_wants(struct destination *destination)
{
	const struct channel *urgent = destination->channels[CHANNEL_URGENT];
	bool asking = !urgent || channel_queued(urgent) < REQUESTS_UNSENT;

	for (int i = 0; i < 3; i++) {
		struct channel *channel = destination->channels[i];

		if (channel)
			loop_want(&destination->loop, &channel->watch,
				  (may_receive(destination, (enum channel_kind)i) ? EPOLLIN : 0) |
				  (channel_busy(channel) ? EPOLLOUT : 0));
	}
	for (uint32_t i = 0; i < destination->nr_regions; i++)
		loop_want(&destination->loop, &destination->regions[i].watch,
			  asking ? EPOLLIN : 0);
	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &destination->strangers[i];

		if (stranger->channel)
			loop_want(&destination->loop, &stranger->channel->watch,
				  EPOLLIN | (channel_busy(stranger->channel) ? EPOLLOUT : 0));
	}
	loop_want(&destination->loop, &destination->state,
		  state_queued(destination) ? EPOLLOUT : 0);
}

static void run_loop(struct destination *destination)
{
	uint64_t next_tick = 0;

	while (!destination->done) {
		uint64_t now = now_ns();
		int timeout, err;

		if (now >= next_tick) {
			next_tick = now + TICK_MS * NSEC_PER_MSEC;
			check_deadlines(destination, now);
			if (!destination->done && destination->session.state != SESSION_END &&
			    progress_due(&destination->progress, now))
				progress_now(destination);
			continue;
		}
		get_ready(destination);
		if (destination->done)
			break;
		set_wants(destination);
		if (destination->stream)
			stream_turn(destination->stream);
		timeout = getting_ready(destination) ? 0 :
			  (int)((next_tick - now) / NSEC_PER_MSEC) + 1;
		err = loop_turn(&destination->loop, timeout);
		if (err)
			fail(destination, "epoll: %s", strerror(-err));
	}
}

/* Beginning and end. */

static int open_region(struct destination *destination, uint32_t index, char *error)
{
	const struct hello_region *option = &destination->options->regions[index];
	struct destination_region *region = &destination->regions[index];
	int pager, flags, err;
	off_t size;

	region->destination = destination;
	region->fd = destination->options->region_fds[index];
	region->index = index;
	region->length = option->length;
	region->pages = option->length / PAGE_BYTES;
	size = lseek(region->fd, 0, SEEK_END);
	if (size < 0 || (uint64_t)size != region->length) {
		snprintf(error, CODEC_ERROR_MAX, "region \"%s\": descriptor %d has %lld bytes, wanted %llu",
			 option->name, region->fd, (long long)size,
			 (unsigned long long)region->length);
		return -EINVAL;
	}
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
	destination->progress.pages_total += region->pages;
	destination->nr_regions++;
	return 0;
}

static int begin_to_listen(struct destination *destination, char actual[URI_TEXT_MAX],
			   char *error)
{
	int err = socket_listen(&destination->options->uri, &destination->listening, actual,
				error);

	if (err)
		return err;
	destination->listener = (struct watch){
		.fd = destination->listening.fd,
		.events = EPOLLIN,
		.priority = PRIORITY_STRANGERS,
		.ready = listener_ready,
		.owner = destination,
	};
	err = loop_add(&destination->loop, &destination->listener);
	if (err)
		snprintf(error, CODEC_ERROR_MAX, "epoll: %s", strerror(-err));
	return err;
}

static int prepare(struct destination *destination, char *error)
{
	const struct options *options = destination->options;
	char actual[URI_TEXT_MAX];
	int flags, err;

	for (uint32_t i = 0; i < options->nr_regions; i++) {
		err = open_region(destination, i, error);
		if (err)
			return err;
	}
	if (pending_init(&destination->pending)) {
		snprintf(error, CODEC_ERROR_MAX, "out of memory");
		return -ENOMEM;
	}
	flags = fcntl(options->state_fd, F_GETFL);
	if (flags < 0 || fcntl(options->state_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		snprintf(error, CODEC_ERROR_MAX, "--state-fd %d: %s", options->state_fd,
			 strerror(errno));
		return -EBADF;
	}
	destination->state = (struct watch){
		.fd = options->state_fd,
		.priority = PRIORITY_CONTROL,
		.ready = state_ready,
		.owner = destination,
	};
	if (options->uri.kind == URI_FD || options->uri.kind == URI_EXEC) {
		destination->stream = stream_open(&destination->loop, &options->uri,
						  stream_opened, destination, error);
		err = destination->stream ? 0 : -EIO;
		strcpy(actual, options->uri_text);
	} else {
		err = begin_to_listen(destination, actual, error);
	}
	if (err)
		return err;
	launcher_send(&destination->launcher,
		      json_pack("{s:s,s:s}", "event", "listening", "uri", actual));
	return 0;
}

static void destroy(struct destination *destination)
{
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (destination->strangers[i].channel)
			dismiss(&destination->strangers[i]);
	}
	close_channels(destination);
	stream_close(destination->stream);
	socket_unlisten(&destination->listening);
	for (uint32_t i = 0; i < REGIONS_MAX; i++)
		free(destination->regions[i].present);
	decompressor_free(destination->decompressor);
	free(destination->unpacked);
	pending_destroy(&destination->pending);
	loop_destroy(&destination->loop);
	free(destination);
}

int destination_run(const struct options *options)
{
	struct destination *destination = calloc(1, sizeof(*destination));
	char error[max(CODEC_ERROR_MAX, SOCKET_ERROR_MAX)];
	int status;

	if (!destination) {
		log_error("out of memory");
		return 1;
	}
	destination->options = options;
	destination->state.fd = -1;
	destination->listening.fd = destination->listener.fd = -1;
	destination->launcher.command = command;
	destination->launcher.lost = launcher_lost;
	destination->launcher.owner = destination;
	session_init(&destination->session, ROLE_DESTINATION);

	if (loop_init(&destination->loop) ||
	    launcher_init(&destination->launcher, &destination->loop, options->control_fd)) {
		log_error("--control-fd %d: %s", options->control_fd, strerror(errno));
		free(destination);
		return 1;
	}
	if (prepare(destination, error))
		fail(destination, "%s", error);
	run_loop(destination);

	launcher_finish(&destination->launcher);
	status = destination->exit_status;
	destroy(destination);
	return status;
}
