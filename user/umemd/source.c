// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The side the guest leaves: connects, carries the device state over, then
 * sends pages, asked for and unasked, until the other side has all.
 *
 * Pages are sent from a read-only mapping of the regions, without a copy. Looking
 * at a hole through it allocates the page; a region's file that tells holes from
 * data (SEEK_DATA) is asked first, and then holes are not looked at. While the
 * guest still writes to them, in pre-copy, pages are read into a copy first: what
 * is sent is what the checksum is of, and no mapping makes the page look dirty.
 */
#include "umemd/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "libumem.h"
#include "umemd/checksum.h"
#include "umemd/compress.h"
#include "umemd/errands.h"
#include "umemd/pacer.h"
#include "umemd/precopy.h"
#include "umemd/sandbox.h"
#include "umemd/scheduler.h"
#include "umemd/side.h"
#include "umemd/socket.h"
#include "umemd/tracker.h"
#include "umemd/window.h"

#define RETRY_FIRST_NS		(100 * NSEC_PER_MSEC)
#define RETRY_LAST_NS		(5 * NSEC_PER_SEC)
#define BULK_UNSENT		(128 * 1024)

#define FOLIO_MAX		((uint64_t)2 * 1024 * 1024)

/*
 * Pages with contents in one frame: the fewer, the sooner the first is there.
 * But what is prefaulted goes with what was requested: else a reader that goes
 * on to the next page finds that missing too, and asks for it.
 */
#define REQUESTED_BATCH		4
#define PREFAULT_BATCH		16
#define BULK_BATCH		45	/* three times what TCP gives to a card at once, 64 KiB or less */
#define COMPRESSED_BATCH	8	/* a request waits while they are compressed */

/**
 * struct extent - what is known of a file around where it was last asked
 * @hole_start: [@hole_start, @data_start) is a hole
 * @data_end: [@data_start, @data_end) is to be looked at
 * @zero: what was looked at last was zero
 */
struct extent {
	uint64_t hole_start, data_start, data_end;
	bool zero;
};

/**
 * struct source_region - memory to send
 * @extents: of each channel: urgent and bulk are at different places
 */
struct source_region {
	const uint8_t *memory;
	int fd;
	uint64_t length;
	struct extent extents[3];
};

/**
 * struct page_frame - the PAGES frame a channel is busy with
 * @head: header and entries
 * @copies: of early pages, BULK_BATCH of them; NULL until needed
 * @packed: of compressed pages, COMPRESSED_BATCH of them; NULL until needed
 */
struct page_frame {
	uint8_t head[FRAME_HEADER + PAGES_MAX * PAGES_ENTRY];
	uint8_t *copies;
	uint8_t *packed;
};

/**
 * struct source - the side that sends pages
 * @frames: what the channels of urgent and bulk are busy with
 * @wanted: how many channels of urgent and of bulk there are to be
 * @tracking: pre-copy is not over: the tracker knows what the guest writes to
 * @closing: and the last of that is found out, since nothing writes any more
 */
struct source {
	struct side side;
	struct scheduler scheduler;
	struct pacer pacer;	/* of bulk once the guest has stopped */
	struct pacer early_pacer;	/* and before */
	struct window window;
	uint64_t bulk_ns;		/* bulk waits for what is on its way until then */
	uint64_t bulk_bytes;		/* and has frames of at most so many */
	struct precopy precopy;
	struct tracker tracker;
	bool tracking, closing;
	struct source_region regions[REGIONS_MAX];

	struct socket_address addresses[SOCKET_ADDRESSES_MAX];
	unsigned int nr_addresses, address;
	struct errands errands;		/* connects to them */
	struct page_frame frames[SIDE_KINDS][CHANNELS_MAX];
	unsigned int wanted[SIDE_KINDS];
	struct compressor *compressor;	/* --compress */

	bool stopped;		/* pages may be sent */
	bool all_sent;		/* ALL_SENT was sent */
	bool run;		/* what GO said */

	uint64_t deadline_ns;	/* of connecting and agreeing; 0: none */
	uint64_t retry_ns;	/* when to connect again; 0: not waiting for it */
	uint64_t retry_delay_ns;
};

/* Pages. */

static bool is_zero(const uint8_t *page)
{
	const uint64_t *word = (const uint64_t *)page;

	for (size_t i = 0; i < PAGE_BYTES / sizeof(*word); i += 8) {
		if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] |
		    word[i + 5] | word[i + 6] | word[i + 7])
			return false;
	}
	return true;
}

/*
 * Where the file has nothing, memory is zero; nobody writes to it any more. To
 * look at it would fill it: a folio of 2 MiB, where it has such.
 * How far data goes is not asked: the kernel would look at each page of it,
 * however long that takes, while requests wait. So it is asked again after some
 * pages, and where the next folio may begin.
 */
static bool in_hole(struct source_region *region, enum channel_kind kind, uint64_t offset)
{
	struct extent *extent = &region->extents[kind];
	uint64_t below;
	off_t data;

	if (offset >= extent->data_start && offset < extent->data_end)
		return false;
	if (offset >= extent->hole_start && offset < extent->data_start)
		return true;

	data = lseek(region->fd, (off_t)offset, SEEK_DATA);
	extent->hole_start = offset;
	if (data >= 0)
		extent->data_start = (uint64_t)data & ~(uint64_t)(PAGE_BYTES - 1);
	else	/* ENXIO: no more data. Else the file cannot tell: look at it. */
		extent->data_start = errno == ENXIO ? region->length : offset;
	below = extent->data_start % FOLIO_MAX;
	extent->data_end = extent->data_start +
			   min(FOLIO_MAX - below, (uint64_t)BULK_BATCH * PAGE_BYTES);
	if (offset < extent->data_start)
		return true;
	/* What is prefaulted may go on downwards. */
	extent->data_start -= min(below, (uint64_t)PREFAULT_BATCH * PAGE_BYTES);
	return false;
}

/* A zero page may have been a hole before it was looked at: ask about those around it. */
static void looked_at(struct extent *extent, bool zero)
{
	if (zero && !extent->zero)
		memset(extent, 0, sizeof(*extent));
	extent->zero = zero;
}

/* Does what goes on bulk go while the guest may still write to it? */
static bool is_early(const struct source *source)
{
	return source->tracking && !source->stopped && !source->closing;
}

static struct pacer *bulk_pacer(struct source *source)
{
	return is_early(source) ? &source->early_pacer : &source->pacer;
}

/* What was a hole may be one no more. */
static void forget_extents(struct source *source)
{
	for (uint32_t i = 0; i < source->side.options->nr_regions; i++)
		memset(source->regions[i].extents, 0, sizeof(source->regions[i].extents));
}

static bool next_pick(struct source *source, enum channel_kind kind, struct pick *pick)
{
	if (kind == CHANNEL_URGENT)
		return scheduler_urgent(&source->scheduler, pick);
	return is_early(source) ? scheduler_precopy(&source->scheduler, pick) :
				  scheduler_bulk(&source->scheduler, pick);
}

/* A page as it is now, in @room. Its later changes are told by the tracker. */
static const uint8_t *copy_page(struct source *source, uint32_t index, uint64_t offset,
				uint8_t *room)
{
	ssize_t n = pread(source->regions[index].fd, room, PAGE_BYTES, (off_t)offset);

	if (n == PAGE_BYTES)
		return room;
	side_fail(&source->side, "region \"%s\": cannot read the page at offset %llu: %s",
		  source->side.options->regions[index].name, (unsigned long long)offset,
		  n < 0 ? strerror(errno) : "it ends early");
	return NULL;
}

static void add_contents(struct iovec *iov, unsigned int *count, const uint8_t *contents,
			 size_t size)
{
	struct iovec *last = &iov[*count - 1];

	if (*count > 1 && (const uint8_t *)last->iov_base + last->iov_len == contents) {
		last->iov_len += size;
		return;
	}
	iov[(*count)++] = (struct iovec){ (void *)(uintptr_t)contents, size };
}

static bool compresses(const struct source *source, enum channel_kind kind)
{
	return kind == CHANNEL_BULK && source->side.features & FEATURE_ZSTD;
}

/* Pages with contents in a frame on bulk: fewer, down to one, when limit or link are slow. */
static unsigned int bulk_batch(struct source *source)
{
	uint64_t most = compresses(source, CHANNEL_BULK) ? COMPRESSED_BATCH : BULK_BATCH;
	uint64_t bytes = pacer_frame(bulk_pacer(source));

	if (!is_early(source))
		bytes = min(bytes, source->bulk_bytes);
	return (unsigned int)min(max(bytes / PAGE_BYTES, (uint64_t)1), most);
}

/* May the next page be in a frame that began with @first and has @full pages with contents? */
static bool fits(struct source *source, enum pick_kind first, enum pick_kind next,
		 unsigned int full)
{
	switch (next) {
	case PICK_REQUESTED:
		return full < REQUESTED_BATCH;
	case PICK_PREFAULT:
		return first == PICK_REQUESTED || full < PREFAULT_BATCH;
	default:
		return full < bulk_batch(source);
	}
}

/* Into @room if that makes it smaller. Returns where it is then. */
static const uint8_t *pack(struct source *source, struct page_entry *entry, const uint8_t *page,
			   uint8_t *room)
{
	entry->compressed = (uint16_t)compress_page(source->compressor, room, page);
	if (!entry->compressed)
		return page;
	source->side.progress.compressed_pages++;
	source->side.progress.saved_bytes += PAGE_BYTES - entry->compressed;
	return room;
}

/* Send the next frame of pages if there is one. Returns whether there was. */
static bool send_pages(struct source *source, struct channel *channel)
{
	enum channel_kind kind = channel->kind;
	bool early = kind == CHANNEL_BULK && is_early(source);
	struct frame frame = { .type = FRAME_PAGES, .flags = early ? FRAME_PAGES_EARLY : 0 };
	struct page_frame *buffers = &source->frames[kind][channel->index];
	uint8_t *head = buffers->head;
	struct iovec iov[CHANNEL_IOV_MAX];
	unsigned int iov_count = 1, full = 0;
	enum pick_kind first = PICK_BULK;
	struct pick pick;

	while (frame.count < PAGES_MAX && next_pick(source, kind, &pick)) {
		struct source_region *region = &source->regions[pick.region];
		struct page_entry entry = { .offset = pick.page * PAGE_BYTES };
		const uint8_t *page = NULL;

		if (!frame.count) {
			frame.region = pick.region;
			first = pick.kind;
		} else if (pick.region != frame.region || !fits(source, first, pick.kind, full)) {
			break;
		}
		entry.zero = in_hole(region, kind, entry.offset);
		if (!entry.zero) {
			page = early ? copy_page(source, pick.region, entry.offset,
						 buffers->copies + full * PAGE_BYTES) :
				       region->memory + entry.offset;
			if (!page)
				return false;
			entry.zero = is_zero(page);
			looked_at(&region->extents[kind], entry.zero);
		}
		source->side.progress.zero_pages += entry.zero;
		if (!entry.zero) {
			const uint8_t *contents = page;

			if (compresses(source, kind))
				contents = pack(source, &entry, page,
						buffers->packed + full * PAGE_BYTES);
			add_contents(iov, &iov_count, contents, page_entry_contents(&entry));
			full++;
		}
		frame.length += PAGES_ENTRY + page_entry_contents(&entry);
		if (entry.compressed)
			frame.flags |= FRAME_PAGES_COMPRESSED;
		if (source->side.features & FEATURE_CHECKSUM)
			entry.checksum = page_checksum(entry.zero ? NULL : page, pick.region,
						       entry.offset);
		page_entry_encode(head + FRAME_HEADER + frame.count * PAGES_ENTRY, &entry);
		frame.count++;
		scheduler_take(&source->scheduler, &pick);
	}
	if (!frame.count)
		return false;

	frame_encode(head, &frame);
	iov[0] = (struct iovec){ head, FRAME_HEADER + frame.count * PAGES_ENTRY };
	if (kind == CHANNEL_BULK)
		pacer_sent(bulk_pacer(source), FRAME_HEADER + frame.length, now_ns());
	return side_sent(&source->side, channel, channel_send_pages(channel, iov, iov_count));
}

static bool is_connected(const struct source *source)
{
	enum session_state state = source->side.session.state;

	return !source->side.done && side_is_joined(&source->side) &&
	       state >= SESSION_ADVISE && state <= SESSION_RUNNING;
}

static bool may_send_pages(const struct source *source)
{
	return source->stopped && is_connected(source);
}

/* Until it has no more or takes no more. */
static void send_urgent(struct source *source)
{
	struct channel *channel;

	while (may_send_pages(source) &&
	       (channel = side_idlest(&source->side, CHANNEL_URGENT, true)) &&
	       send_pages(source, channel))
		;
}

/* Nanoseconds until the limit, or urgent, lets bulk send again. */
static uint64_t bulk_waits(const struct source *source)
{
	const struct pacer *pacer = is_early(source) ? &source->early_pacer : &source->pacer;
	uint64_t now = now_ns();

	return max(pacer_wait(pacer, now), source->bulk_ns - min(source->bulk_ns, now));
}

static bool any_is_idle(const struct source *source, enum channel_kind kind)
{
	struct channel *channel;

	side_for_each(&source->side, kind, channel) {
		if (!channel->connecting && !channel->held && !channel->end &&
		    !channel_busy(channel))
			return true;
	}
	return false;
}

static bool may_send_bulk(const struct source *source)
{
	/* What goes before it was collected once would be collected as dirty. */
	bool early = is_early(source) &&
		     !(source->precopy.round == 1 && source->precopy.step == PRECOPY_COLLECT);

	/* Between stop and GO the hosts are busy with the state of the devices. */
	return is_connected(source) &&
	       (early || source->side.session.state == SESSION_RUNNING) &&
	       any_is_idle(source, CHANNEL_URGENT) && any_is_idle(source, CHANNEL_BULK) &&
	       !bulk_waits(source);
}

static bool bulk_is_due(struct source *source)
{
	struct pick pick;

	return may_send_bulk(source) &&
	       (next_pick(source, CHANNEL_BULK, &pick) ||
		(source->stopped && scheduler_all_sent(&source->scheduler) && !source->all_sent));
}

/* What the bulk channels together get through. */
static void look_at_path(struct source *source, uint64_t now)
{
	uint64_t rate = 0, rtt_ns = UINT64_MAX;
	struct socket_path path;
	struct channel *channel;

	side_for_each(&source->side, CHANNEL_BULK, channel) {
		if (socket_get_path(channel->watch.fd, &path))
			continue;
		rate += path.rate;
		rtt_ns = min(rtt_ns, path.rtt_ns);
	}
	window_set(&source->window, rate, rtt_ns, now);
}

static uint64_t under_way(const struct source *source, enum channel_kind kind)
{
	struct channel *channel;
	uint64_t bytes = 0;

	side_for_each(&source->side, kind, channel)
		bytes += channel_under_way(channel);
	return bytes;
}

/* Does what is on its way keep bulk from sending now? */
static bool bulk_is_held(struct source *source)
{
	uint64_t now = now_ns(), urgent, wait;

	if (is_early(source))
		return false;
	if (now - source->window.looked_ns >= WINDOW_LOOK_NS)
		look_at_path(source, now);
	urgent = under_way(source, CHANNEL_URGENT);
	wait = window_wait(&source->window, under_way(source, CHANNEL_BULK), urgent);
	source->bulk_ns = now + wait;
	source->bulk_bytes = window_frame(&source->window, urgent);
	return wait;
}

/* One frame, if urgent is idle. */
static void send_bulk(struct source *source)
{
	struct channel *channel;

	if (!bulk_is_due(source) || bulk_is_held(source))
		return;
	channel = side_idlest(&source->side, CHANNEL_BULK, true);
	if (!send_pages(source, channel) && may_send_pages(source) &&
	    scheduler_all_sent(&source->scheduler) && !source->all_sent) {
		source->all_sent = true;
		side_sent(&source->side, channel, channel_say(channel, FRAME_ALL_SENT, 0));
	}
}

static bool has_more(void *owner, const struct channel *channel)
{
	return channel->kind == CHANNEL_BULK && !channel->end && bulk_is_due(owner);
}

/* Numbers of channels. */

static struct channel *open_channel(struct source *source, enum channel_kind kind,
				    unsigned int index);

/* Returns whether the connection is still good. */
static bool say_leave(struct source *source, struct channel *channel)
{
	channel->end = CHANNEL_SAID_LEAVE;
	return side_sent(&source->side, channel, channel_say(channel, FRAME_LEAVE, 0));
}

static bool adjust_place(struct source *source, enum channel_kind kind, unsigned int index)
{
	struct channel *channel = source->side.channels[kind][index];
	bool wanted = index < source->wanted[kind];

	if (!channel)
		return !wanted || open_channel(source, kind, index);
	if (!wanted && !channel->connecting && channel->end == CHANNEL_STAYS)
		channel->end = CHANNEL_LEAVING;
	/* Of early pages the other side has to know that they came before the next round. */
	if (channel->end != CHANNEL_LEAVING || channel_busy(channel) ||
	    (kind == CHANNEL_BULK && source->tracking))
		return true;
	return say_leave(source, channel);
}

/* The first of each kind is there: further ones come, or those of the highest index go. */
static void adjust_channels(struct source *source)
{
	for (int kind = CHANNEL_URGENT; kind < SIDE_KINDS; kind++) {
		unsigned int end = max(source->side.nr[kind], source->wanted[kind]);

		for (unsigned int i = 1; i < end; i++) {
			if (!is_connected(source) || source->side.lost_ns ||
			    !adjust_place(source, (enum channel_kind)kind, i))
				return;
		}
	}
}

/* Pre-copy: see precopy.h. */

static void begin_precopy(struct source *source)
{
	const struct options *options = source->side.options;
	char error[CODEC_ERROR_MAX];

	for (unsigned int i = 0; i < CHANNELS_MAX; i++) {
		source->frames[CHANNEL_BULK][i].copies = malloc((size_t)BULK_BATCH * PAGE_BYTES);
		if (!source->frames[CHANNEL_BULK][i].copies) {
			side_fail(&source->side, "no memory for copies of pages");
			return;
		}
	}
	if (tracker_start(&source->tracker, options->regions, options->region_fds,
			  options->nr_regions, error)) {
		side_fail(&source->side, "%s", error);
		return;
	}
	source->tracking = true;
	precopy_begin(&source->precopy, now_ns(), thread_cpu_ns());
}

/*
 * Was there a SYNC that did not go on a channel that is new now? What goes on it
 * could overtake older copies that others carried before that; so it waits for
 * the next SYNC.
 */
static bool came_too_late(const struct source *source)
{
	return source->tracking &&
	       (source->precopy.round > 1 || source->precopy.step == PRECOPY_WAIT);
}

static void end_precopy(struct source *source)
{
	if (source->tracking)
		tracker_stop(&source->tracker);
	source->tracking = source->closing = false;
	for (unsigned int i = 0; i < CHANNELS_MAX; i++) {
		free(source->frames[CHANNEL_BULK][i].copies);
		source->frames[CHANNEL_BULK][i].copies = NULL;
	}
}

/* @range: as of tracker_step(). Return: whether it worked. */
static bool collect(struct source *source, uint32_t *region, struct page_range *range)
{
	int err = tracker_step(&source->tracker, &source->scheduler, region, range);

	forget_extents(source);
	if (err)
		side_fail(&source->side, "cannot tell which pages the guest has written to: %s",
			  strerror(-err));
	return !err;
}

static uint64_t unsent_pages(const struct source *source)
{
	return source->scheduler.pages_total - source->scheduler.pages_sent;
}

static void collect_for_round(struct source *source)
{
	struct precopy *precopy = &source->precopy;
	uint64_t dirty;

	if (!collect(source, NULL, NULL) || !tracker_is_done(&source->tracker))
		return;
	dirty = unsent_pages(source);
	if (precopy_collected(precopy, dirty, source->side.progress.bytes[CHANNEL_BULK], now_ns(),
			      thread_cpu_ns()))
		launcher_send(&source->side.launcher,
			      json_pack("{s:s,s:I,s:I}", "event", "converged",
					"remaining_bytes", (json_int_t)(dirty * PAGE_BYTES),
					"expected_downtime_ms",
					(json_int_t)precopy_expected_ms(precopy, dirty)));
}

static bool bulk_is_idle(const struct source *source)
{
	struct channel *channel;

	side_for_each(&source->side, CHANNEL_BULK, channel) {
		if (!channel->connecting && channel_busy(channel))
			return false;
	}
	return true;
}

/* What the sockets hold has not gone: a small round is all in there at once. */
static bool round_has_gone(const struct source *source)
{
	return scheduler_all_sent(&source->scheduler) && bulk_is_idle(source) &&
	       !under_way(source, CHANNEL_BULK);
}

static bool says_sync(const struct channel *channel)
{
	return !channel->connecting && channel->end <= CHANNEL_LEAVING;
}

/* A channel that is to leave has done so after this: no later round knows of it. */
static void say_sync(struct source *source, uint16_t flags)
{
	struct frame frame = { .type = FRAME_SYNC, .flags = flags };
	struct channel *channel;

	side_for_each(&source->side, CHANNEL_BULK, channel)
		frame.count += says_sync(channel);
	side_for_each(&source->side, CHANNEL_BULK, channel) {
		if (!says_sync(channel))
			continue;
		if (!side_sent(&source->side, channel, channel_send(channel, &frame, NULL)))
			return;
		channel->held = false;
		if (channel->end == CHANNEL_LEAVING && !say_leave(source, channel))
			return;
	}
}

static void end_round(struct source *source)
{
	say_sync(source, 0);
	precopy_sent(&source->precopy, source->side.progress.bytes[CHANNEL_BULK], now_ns());
}

static void end_state(struct source *source)
{
	char error[CODEC_ERROR_MAX];

	if (side_say(&source->side, FRAME_STATE_END, 0) &&
	    !session_event(&source->side.session, EVENT_STATE_END, error))
		launcher_state(&source->side.launcher, "listen");
}

/* What of a piece of a region is not at the destination as it is now. */
static void discard(struct source *source, uint32_t region, struct page_range piece)
{
	struct channel *control = side_control(&source->side);
	struct frame frame = { .type = FRAME_DISCARD, .region = region };
	struct page_range ranges[DISCARD_MAX];
	uint8_t payload[DISCARD_MAX * DISCARD_RANGE];

	while (piece.first < piece.end) {
		for (frame.count = 0; frame.count < DISCARD_MAX; frame.count++) {
			struct page_range *range = &ranges[frame.count];

			*range = piece;
			if (!scheduler_unsent(&source->scheduler, region, range))
				break;
			piece.first = range->end;
		}
		if (!frame.count)
			return;
		frame.length = (uint32_t)discard_encode(payload, ranges, frame.count);
		if (!side_sent(&source->side, control, channel_send(control, &frame, payload)))
			return;
	}
}

static bool control_has_room(const struct source *source)
{
	const struct channel *control = side_control(&source->side);

	return control && channel_queued(control) + FRAME_HEADER + STATE_MAX <=
			  CHANNEL_OUT_MAX / 2;
}

/* The guest has stopped and its devices have said all: what was written last? */
static void close_precopy(struct source *source)
{
	struct page_range piece;
	uint32_t region;

	if (!tracker_is_done(&source->tracker)) {
		if (control_has_room(source) && collect(source, &region, &piece))
			discard(source, region, piece);
		return;
	}
	if (!bulk_is_idle(source))
		return;
	end_precopy(source);
	say_sync(source, FRAME_SYNC_LAST);
	if (!source->side.done && side_control(&source->side) &&
	    side_say(&source->side, FRAME_PUBLISH, 0))
		end_state(source);
}

static void precopy_turn(struct source *source)
{
	struct precopy *precopy = &source->precopy;

	if (!source->tracking || !is_connected(source))
		return;
	if (source->closing) {
		close_precopy(source);
	} else if (source->stopped) {
		return;		/* the devices may still write */
	} else if (precopy->step == PRECOPY_COLLECT) {
		collect_for_round(source);
	} else if (precopy->step == PRECOPY_SEND) {
		if (round_has_gone(source))
			end_round(source);
	} else if (!precopy_wait(precopy, now_ns())) {
		tracker_rewind(&source->tracker);
		precopy_begin(precopy, now_ns(), thread_cpu_ns());
	}
}

/* How long precopy_turn() has nothing to do; what it waits for else wakes the loop. */
static uint64_t precopy_waits(const struct source *source)
{
	const struct precopy *precopy = &source->precopy;

	if (!source->tracking || !is_connected(source))
		return UINT64_MAX;
	if (source->closing)
		return !tracker_is_done(&source->tracker) && control_has_room(source) ? 0 :
			UINT64_MAX;
	if (source->stopped)
		return UINT64_MAX;
	if (precopy->step == PRECOPY_SEND)	/* nothing tells when a socket is empty */
		return scheduler_all_sent(&source->scheduler) ? NSEC_PER_MSEC : UINT64_MAX;
	return precopy->step == PRECOPY_COLLECT ? 0 : precopy_wait(precopy, now_ns());
}

static void set_wants(void *owner)
{
	struct source *source = owner;
	bool room = source->side.session.state == SESSION_ADVISE && control_has_room(source);

	loop_want(&source->side.loop, &source->side.state, room ? EPOLLIN : 0);
}

/* Device state. */

static void state_ready(void *owner, uint32_t events)
{
	struct source *source = owner;
	struct frame frame = { .type = FRAME_STATE };
	struct channel *control;
	uint8_t buffer[STATE_MAX];
	ssize_t n;

	(void)events;
	if (source->side.session.state != SESSION_ADVISE)
		return;
	n = read(source->side.state.fd, buffer, sizeof(buffer));
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			side_fail(&source->side, "cannot read the device state: %s", strerror(errno));
		return;
	}
	if (n > 0) {
		frame.length = (uint32_t)n;
		control = side_control(&source->side);
		side_sent(&source->side, control, channel_send(control, &frame, buffer));
		return;
	}
	side_close_state(&source->side);
	forget_extents(source);		/* the devices may have written, too */
	if (source->tracking) {
		source->closing = true;
		tracker_rewind(&source->tracker);
	} else {
		end_state(source);
	}
}

/* What comes. */

static void count(void *owner)
{
	struct source *source = owner;

	source->side.progress.pages_done = source->scheduler.pages_sent;
	source->side.progress.prefault_pages = source->scheduler.prefault_pages;
	source->side.progress.prefault_hits = source->scheduler.prefault_hits;
	source->side.progress.duplicates = source->scheduler.duplicates;
	source->side.progress.round = source->precopy.round;
	source->side.progress.early = is_early(source);
	source->side.progress.dirty_pages = unsent_pages(source);
	source->side.progress.expected_downtime_ms =
		(int64_t)precopy_expected_ms(&source->precopy, unsent_pages(source));
	if (is_early(source))
		source->side.progress.precopy_bytes = source->side.progress.bytes[CHANNEL_BULK];
}

static void open_page_channels(struct source *source)
{
	if (open_channel(source, CHANNEL_URGENT, 0))
		open_channel(source, CHANNEL_BULK, 0);
}

static void take_hello_ack(struct source *source, struct channel *channel)
{
	char error[CODEC_ERROR_MAX];
	struct hello_ack ack;

	if (hello_ack_decode(&ack, channel->payload, source->side.features, error)) {
		side_lost(&source->side, "%s: %s", source->side.name, error);
		return;
	}
	if (source->side.features & ~ack.features & FEATURE_ZSTD)
		log_warning("%s takes no compressed pages: sending them as they are",
			    source->side.options->uri_text);
	if (source->side.features & ~ack.features & FEATURE_PRECOPY) {
		side_fail(&source->side, "%s takes no pages of a guest that still runs, wanted one that does: use migrate -p",
			  source->side.name);
		return;
	}
	source->side.features = ack.features;
	source->deadline_ns = 0;
	side_tell_session(&source->side, NULL);
	open_page_channels(source);
}

static void take_prepared(struct source *source)
{
	source->deadline_ns = 0;
	source->retry_delay_ns = RETRY_FIRST_NS;
	launcher_state(&source->side.launcher, session_state_name(source->side.session.state));
	if (!source->side.progress.started_ns)
		progress_start(&source->side.progress, now_ns());
	if (source->side.session.state == SESSION_ADVISE &&
	    source->side.features & FEATURE_PRECOPY)
		begin_precopy(source);
}

static void take_request(struct source *source, struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	uint64_t pages[REQUEST_MAX];
	char error[CODEC_ERROR_MAX];

	if (frame->region >= source->side.options->nr_regions) {
		side_lost(&source->side, "%s asks for region %u, wanted 0 to %u",
			  source->side.name, frame->region, source->side.options->nr_regions - 1);
		return;
	}
	if (request_decode(pages, frame, channel->payload,
			   source->regions[frame->region].length / PAGE_BYTES, error)) {
		side_lost(&source->side, "%s: %s", source->side.name, error);
		return;
	}
	source->side.progress.requests += frame->count;
	/* There is room: set_wants() and urgent_ready() see to it. */
	scheduler_request(&source->scheduler, frame->region, pages, frame->count,
			  frame->flags & FRAME_REQUEST_AGAIN);
	send_urgent(source);
}

static void take_bitmap(struct source *source, struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	uint64_t words[BITMAP_WORDS_MAX], first;
	char error[CODEC_ERROR_MAX];

	if (frame->region >= source->side.options->nr_regions) {
		side_lost(&source->side, "%s tells of region %u, wanted 0 to %u",
			  source->side.name, frame->region, source->side.options->nr_regions - 1);
		return;
	}
	if (bitmap_decode(&first, words, frame, channel->payload,
			  source->regions[frame->region].length / PAGE_BYTES, error)) {
		side_lost(&source->side, "%s: %s", source->side.name, error);
		return;
	}
	scheduler_present(&source->scheduler, frame->region, first, words, frame->count);
	/* RESUME was heard: sooner, JOIN might overtake it and be refused. */
	if (!source->side.channels[CHANNEL_URGENT][0])
		open_page_channels(source);
}

static void take_end(struct source *source)
{
	side_progress(&source->side);
	/* In this order: without the other side's END the destination stays for a while. */
	launcher_state(&source->side.launcher, "end");
	channel_say(side_control(&source->side), FRAME_END, 0);
	side_finish(&source->side, 0);
}

static void take(void *owner, struct channel *channel)
{
	struct source *source = owner;
	char text[TEXT_MAX + 1];

	switch (channel->frame.type) {
	case FRAME_HELLO_ACK:
		take_hello_ack(source, channel);
		break;
	case FRAME_REFUSE:
		text_decode(text, channel->payload, channel->frame.length);
		side_lost(&source->side, "%s refuses: %s", source->side.name, text);
		break;
	case FRAME_PREPARED:
		take_prepared(source);
		break;
	case FRAME_READY:
		launcher_send(&source->side.launcher, json_pack("{s:s}", "event", "ready"));
		break;
	case FRAME_REQUEST:
		take_request(source, channel);
		break;
	case FRAME_BITMAP:
		take_bitmap(source, channel);
		break;
	case FRAME_END:
		take_end(source);
		break;
	}
}

/* Connecting. */

static void connect_control(struct source *source);

static void __attribute__((format(printf, 2, 3)))
try_next_address(struct source *source, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (source->address + 1 < source->nr_addresses) {
		log_debug("%s", text);
		side_close_channels(&source->side);
		source->address++;
		connect_control(source);
		return;
	}
	source->address = 0;
	side_lost(&source->side, "%s", text);
}

static void send_hello(struct source *source)
{
	const struct options *options = source->side.options;
	struct channel *control = side_control(&source->side);
	struct hello *hello = calloc(1, sizeof(*hello));
	uint8_t *payload = malloc(HELLO_BYTES_MAX);
	struct frame frame = { .type = FRAME_HELLO, .count = options->nr_regions };

	if (!hello || !payload) {
		side_fail(&source->side, "out of memory");
	} else {
		hello->version = PROTOCOL_VERSION;
		hello->min_version = PROTOCOL_MIN_VERSION;
		hello->features = source->side.features;
		hello->page_size = PAGE_BYTES;
		memcpy(hello->session, source->side.session_id, SESSION_SIZE);
		hello->nr_regions = options->nr_regions;
		memcpy(hello->regions, options->regions, sizeof(hello->regions));
		frame.length = (uint32_t)hello_encode(payload, hello);
		side_sent(&source->side, control, channel_send(control, &frame, payload));
	}
	free(payload);
	free(hello);
}

static void send_resume(struct source *source)
{
	struct channel *control = side_control(&source->side);
	struct frame frame = {
		.type = FRAME_RESUME,
		.flags = source->run ? FRAME_GO_RUN : 0,
		.length = RESUME_BYTES,
	};
	struct resume resume = { .version = PROTOCOL_VERSION };
	uint8_t payload[RESUME_BYTES];

	memcpy(resume.session, source->side.session_id, SESSION_SIZE);
	resume_encode(payload, &resume);
	scheduler_restart(&source->scheduler);
	source->all_sent = false;
	side_sent(&source->side, control, channel_send(control, &frame, payload));
}

static void begin_recovery(struct source *source)
{
	launcher_state(&source->side.launcher, "recover");
	send_resume(source);
}

static void send_join(struct source *source, struct channel *channel)
{
	struct frame frame = { .type = FRAME_JOIN, .length = JOIN_BYTES };
	struct join join = { .kind = channel->kind, .index = channel->index };
	uint8_t payload[JOIN_BYTES];

	memcpy(join.session, source->side.session_id, SESSION_SIZE);
	join_encode(payload, &join);
	side_sent(&source->side, channel, channel_send(channel, &frame, payload));
}

/* @err: why; @text: where to */
static void cannot_connect(struct source *source, enum channel_kind kind, const char *text,
			   int err)
{
	const char *uri = source->side.name;

	if (kind == CHANNEL_CONTROL)
		try_next_address(source, "cannot connect to %s (%s): %s", uri, text, strerror(-err));
	else
		side_lost(&source->side, "cannot connect the %s channel to %s (%s): %s",
			  channel_name(kind), uri, text, strerror(-err));
}

static void connected(void *owner, struct channel *channel)
{
	struct source *source = owner;
	int err = socket_connected(channel->watch.fd);
	char error[CODEC_ERROR_MAX];

	if (err) {
		cannot_connect(source, channel->kind, channel->peer, err);
		return;
	}
	channel->connecting = false;
	side_warn_if_plain(&source->side, channel);
	if (channel->kind != CHANNEL_CONTROL) {
		channel->held = channel->kind == CHANNEL_BULK && came_too_late(source);
		send_join(source, channel);
		return;
	}
	if (session_event(&source->side.session, EVENT_CONNECTED, error))
		side_lost(&source->side, "%s", error);
	else if (source->side.session.state == SESSION_RESUME)
		begin_recovery(source);
	else
		send_hello(source);
}

static bool may_receive(const void *owner, const struct channel *channel)
{
	const struct source *source = owner;

	return channel->kind != CHANNEL_URGENT ||
	       scheduler_room(&source->scheduler) >= REQUEST_MAX;
}

/* @text: where to, for messages */
static int begin_to_connect(struct source *source, enum channel_kind kind, int *fd,
			    char text[SOCKET_TEXT_MAX])
{
	int err;

	if (source->side.stream) {
		snprintf(text, SOCKET_TEXT_MAX, "%.100s", source->side.options->uri_text);
		return stream_connect(source->side.stream, kind, fd);
	}
	socket_text(text, &source->addresses[source->address]);
	err = errands_connect(&source->errands, source->address, fd);
	if (err == -EPIPE)
		side_fail(&source->side, "the process that makes connections has ended");
	return err;
}

/* Returns whether there was memory for them. */
static bool get_buffers(struct source *source, const struct channel *channel)
{
	struct page_frame *buffers = &source->frames[channel->kind][channel->index];

	if (!compresses(source, channel->kind) || buffers->packed)
		return true;
	buffers->packed = malloc((size_t)COMPRESSED_BATCH * PAGE_BYTES);
	return buffers->packed;
}

/* Begins to connect; NULL if that failed, and then the failure was dealt with. */
static struct channel *open_channel(struct source *source, enum channel_kind kind,
				    unsigned int index)
{
	static const struct watch nothing;
	struct side *side = &source->side;
	struct channel *channel;
	char text[SOCKET_TEXT_MAX];
	int fd, err;

	err = begin_to_connect(source, kind, &fd, text);
	if (err) {
		cannot_connect(source, kind, text, err);
		return NULL;
	}
	if (kind == CHANNEL_BULK)
		socket_limit_unsent(fd, BULK_UNSENT);
	channel = channel_new(fd, text, side_channel_credentials(side), NULL, &nothing, NULL);
	if (!channel) {
		side_lost(side, "out of memory");
		return NULL;
	}
	channel->connecting = true;
	side_add(side, channel, kind, index, 0);
	if (!get_buffers(source, channel)) {
		side_fail(side, "out of memory");
		return NULL;
	}
	return channel;
}

static void connect_control(struct source *source)
{
	source->retry_ns = 0;
	source->deadline_ns = now_ns() + source->side.options->connect_timeout * NSEC_PER_SEC;
	open_channel(source, CHANNEL_CONTROL, 0);
}

/* What the launcher says. */

static void set_bulk_bandwidth(struct source *source, uint64_t value)
{
	pacer_set(&source->pacer, value, now_ns());
}

static void set_precopy_bandwidth(struct source *source, uint64_t value)
{
	pacer_set(&source->early_pacer, value, now_ns());
}

static void set_downtime_limit(struct source *source, uint64_t value)
{
	source->precopy.limit_ms = value;
}

static void set_channels(struct source *source, enum channel_kind kind, uint64_t value)
{
	if (value < 1 || value > CHANNELS_MAX)
		log_warning("command set: \"%s_channels\" is %llu, wanted 1 to %u",
			    channel_name(kind), (unsigned long long)value, CHANNELS_MAX);
	else if (!source->side.stream)	/* which has one of each */
		source->wanted[kind] = (unsigned int)value;
}

static void set_bulk_channels(struct source *source, uint64_t value)
{
	set_channels(source, CHANNEL_BULK, value);
}

static void set_urgent_channels(struct source *source, uint64_t value)
{
	set_channels(source, CHANNEL_URGENT, value);
}

static void set(struct source *source, json_t *object)
{
	static const struct {
		const char *key;
		void (*set)(struct source *source, uint64_t value);
	} settings[] = {
		{ "max_bulk_bandwidth", set_bulk_bandwidth },
		{ "max_precopy_bandwidth", set_precopy_bandwidth },
		{ "downtime_limit_ms", set_downtime_limit },
		{ "bulk_channels", set_bulk_channels },
		{ "urgent_channels", set_urgent_channels },
	};

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		json_t *value = json_object_get(object, settings[i].key);

		if (!value)
			continue;
		if (json_is_integer(value) && json_integer_value(value) >= 0)
			settings[i].set(source, (uint64_t)json_integer_value(value));
		else
			log_warning("command set: \"%s\" is no number, wanted one from 0 on",
				    settings[i].key);
	}
}

static void command(void *owner, const char *name, json_t *object)
{
	struct source *source = owner;
	char error[CODEC_ERROR_MAX];

	if (!strcmp(name, "stopped")) {
		if (session_event(&source->side.session, EVENT_STOPPED, error)) {
			log_warning("%s", error);
			return;
		}
		source->stopped = true;
	} else if (!strcmp(name, "go")) {
		json_t *run = json_object_get(object, "run");

		if (!json_is_boolean(run) || !source->stopped) {
			log_warning("command go: wanted a boolean \"run\", after command stopped");
			return;
		}
		if (session_event(&source->side.session, EVENT_GO, error)) {
			log_warning("%s", error);
			return;
		}
		source->run = json_is_true(run);
		side_progress(&source->side);	/* before anyone asks how it goes */
		launcher_state(&source->side.launcher, "running");
		side_say(&source->side, FRAME_GO, source->run ? FRAME_GO_RUN : 0);
	} else if (!strcmp(name, "set")) {
		set(source, object);
	} else if (!strcmp(name, "cancel")) {
		if (session_event(&source->side.session, EVENT_CANCEL, error)) {
			log_warning("%s", error);
			return;
		}
		if (side_control(&source->side))
			channel_say(side_control(&source->side), FRAME_CANCEL, 0);
		launcher_send(&source->side.launcher, json_pack("{s:s}", "event", "cancelled"));
		side_finish(&source->side, 0);
	} else {
		log_warning("command \"%s\" is unknown to a source", name);
	}
}

/* Time. */

/* Pages leave as soon as they may, not when the loop next wakes. */
static void turn(void *owner)
{
	struct source *source = owner;

	adjust_channels(source);
	send_urgent(source);
	send_bulk(source);
	precopy_turn(source);
}

static uint64_t wait_ns(const void *owner)
{
	const struct source *source = owner;
	uint64_t waits = source->all_sent ? 0 : bulk_waits(source);

	return min(waits ? waits : UINT64_MAX, precopy_waits(source));
}

static void tick(void *owner, uint64_t now)
{
	struct source *source = owner;
	const struct options *options = source->side.options;
	enum session_state state = source->side.session.state;

	if (source->retry_ns && now >= source->retry_ns) {
		source->retry_delay_ns = min(source->retry_delay_ns * 2,
					     (uint64_t)RETRY_LAST_NS);
		connect_control(source);
		return;
	}
	if (source->deadline_ns && now >= source->deadline_ns) {
		if (state == SESSION_NONE || state == SESSION_PAUSED)
			try_next_address(source, "cannot connect to %s: no answer within %u seconds",
					 options->uri_text, options->connect_timeout);
		else if (state == SESSION_HELLO || state == SESSION_RESUME)
			side_lost(&source->side, "%s took the connection but did not answer within %u seconds",
				  options->uri_text, options->connect_timeout);
	}
}

static const char *paused(void *owner)
{
	struct source *source = owner;

	source->deadline_ns = 0;
	if (source->side.stream)
		return "the stream cannot be connected again";
	source->retry_ns = now_ns() + source->retry_delay_ns;
	return "connecting again until it works";
}

static void over(void *owner, const char *why)
{
	struct source *source = owner;

	side_fail(&source->side, "%s", why);
}

/* Beginning and end. */

static int map_regions(struct source *source, char *error)
{
	const struct options *options = source->side.options;

	for (uint32_t i = 0; i < options->nr_regions; i++) {
		struct source_region *region = &source->regions[i];
		void *memory;
		int err = side_check_region(&source->side, i, error);

		if (err)
			return err;
		region->fd = options->region_fds[i];
		region->length = options->regions[i].length;
		err = umem_map_guest(region->fd, 0, region->length, PROT_READ, &memory);
		if (err) {
			snprintf(error, CODEC_ERROR_MAX, "region \"%s\": cannot map %llu bytes: %s",
				 options->regions[i].name, (unsigned long long)region->length,
				 strerror(-err));
			return err;
		}
		region->memory = memory;
	}
	return 0;
}

static int prepare_to_connect(struct source *source, char *error)
{
	const struct options *options = source->side.options;
	bool streams = options->uri.kind == URI_FD || options->uri.kind == URI_EXEC;
	struct errands_setup setup = { .addresses = source->addresses };
	int err = 0;

	if (!streams) {
		err = socket_resolve(&options->uri, 0, source->addresses, &source->nr_addresses,
				     error);
		setup.nr_addresses = source->nr_addresses;
		if (!err)
			err = errands_start(&source->errands, &setup, error);
	}
	/* Now: that process shall not know them. */
	if (!err)
		err = side_load_credentials(&source->side, error);
	if (!err && streams) {
		source->side.stream = stream_open(&source->side.loop, &options->uri,
						  source->side.credentials, NULL, NULL, error);
		err = source->side.stream ? 0 : -EIO;
	}
	return err;
}

static int begin_session(struct source *source, char *error)
{
	int err = side_open_state(&source->side, state_ready, error);

	if (err || getrandom(source->side.session_id, SESSION_SIZE, 0) == SESSION_SIZE)
		return err;
	snprintf(error, CODEC_ERROR_MAX, "no random numbers: %s", strerror(errno));
	return -EIO;
}

/* After GO: what the destination has its bitmaps tell. */
static int go_on(struct source *source, char *error)
{
	uint32_t index[REGIONS_MAX];
	int err = side_go_on(&source->side, index, &source->run, error);

	if (err)
		return err;
	for (uint32_t i = 0; i < source->side.options->nr_regions; i++) {
		if (index[i] == i)
			continue;
		snprintf(error, CODEC_ERROR_MAX, "region \"%s\" was number %u in the session to go on with, and is number %u here",
			 source->side.options->regions[index[i]].name, i, index[i]);
		return -EINVAL;
	}
	source->stopped = true;
	return 0;
}

static int prepare(struct source *source, char *error)
{
	const struct options *options = source->side.options;
	uint64_t pages[REGIONS_MAX];
	int err;

	/* First: what it forks shall not have the regions mapped. */
	err = prepare_to_connect(source, error);
	if (err)
		return err;
	err = map_regions(source, error);
	if (err)
		return err;
	for (uint32_t i = 0; i < options->nr_regions; i++)
		pages[i] = options->regions[i].length / PAGE_BYTES;
	err = scheduler_init(&source->scheduler, &options->policy, pages, options->nr_regions);
	if (err) {
		snprintf(error, CODEC_ERROR_MAX, "no memory for the page tables of the migration");
		return err;
	}
	source->side.progress.pages_total = source->scheduler.pages_total;
	if (options->compress) {
		source->compressor = compressor_new();
		if (!source->compressor) {
			snprintf(error, CODEC_ERROR_MAX, "no memory to compress pages with");
			return -ENOMEM;
		}
		source->side.features |= FEATURE_ZSTD;
	}
	if (options->precopy)
		source->side.features |= FEATURE_PRECOPY;
	err = options->resume_fd < 0 ? begin_session(source, error) : go_on(source, error);
	if (err)
		return err;
	return sandbox_enter(SANDBOX_MIGRATE, false, error);
}

static const struct side_role role = {
	.role = ROLE_SOURCE,
	.turn = turn,
	.tick = tick,
	.wait_ns = wait_ns,
	.set_wants = set_wants,
	.may_receive = may_receive,
	.has_more = has_more,
	.connected = connected,
	.take = take,
	.over = over,
	.paused = paused,
	.command = command,
	.count = count,
};

int source_run(const struct options *options)
{
	struct source *source = calloc(1, sizeof(*source));
	char error[max(CODEC_ERROR_MAX, SOCKET_ERROR_MAX)];
	int status, err;

	if (!source) {
		log_error("out of memory");
		return 1;
	}
	err = side_init(&source->side, &role, source, options);
	if (err) {
		log_error("--control-fd %d: %s", options->control_fd, strerror(-err));
		free(source);
		return 1;
	}
	strcpy(source->side.name, options->uri_text);
	source->side.features = options->checksum ? FEATURE_CHECKSUM : 0;
	source->retry_delay_ns = RETRY_FIRST_NS;
	source->precopy.limit_ms = DOWNTIME_LIMIT_MS;
	pacer_set(&source->pacer, options->max_bulk_bandwidth, now_ns());
	if (prepare(source, error))
		side_fail(&source->side, "%s", error);
	else
		connect_control(source);
	side_run(&source->side);

	status = source->side.exit_status;
	side_destroy(&source->side);
	errands_stop(&source->errands);
	end_precopy(source);
	scheduler_destroy(&source->scheduler);
	compressor_free(source->compressor);
	for (int i = 0; i < CHANNELS_MAX; i++)
		free(source->frames[CHANNEL_BULK][i].packed);
	free(source);
	return status;
}
