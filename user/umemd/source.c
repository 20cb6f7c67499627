// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The side the guest leaves: connects, carries the device state over, then
 * sends pages, asked for and unasked, until the other side has all.
 *
 * Pages are sent from a read-only mapping of the regions, without a copy. Looking
 * at a hole through it allocates the page; a region's file that tells holes from
 * data (SEEK_DATA) is asked first, and then holes are not looked at.
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
#include "umemd/channel.h"
#include "umemd/compress.h"
#include "umemd/launcher.h"
#include "umemd/pacer.h"
#include "umemd/progress.h"
#include "umemd/scheduler.h"
#include "umemd/socket.h"
#include "umemd/stream.h"

#define TICK_MS			100
#define PING_PERIOD_NS		(5 * NSEC_PER_SEC)
#define SILENCE_NS		(30 * NSEC_PER_SEC)
#define RETRY_FIRST_NS		(100 * NSEC_PER_MSEC)
#define RETRY_LAST_NS		(5 * NSEC_PER_SEC)
#define BULK_UNSENT		(128 * 1024)
#define EXPLAIN_NS		(300 * NSEC_PER_MSEC)	/* for control to say why urgent ended */

/*
 * Pages with contents in one frame: the fewer, the sooner the first is there.
 * But what is prefaulted goes with what was requested: else a reader that goes
 * on to the next page finds that missing too, and asks for it.
 */
#define REQUESTED_BATCH		4
#define PREFAULT_BATCH		16
#define BULK_BATCH		32
#define COMPRESSED_BATCH	8	/* a request waits while they are compressed */

/**
 * struct extent - what is known of a file around where it was last asked
 * @hole_start: [@hole_start, @data_start) is a hole
 * @data_end: [@data_start, @data_end) is to be looked at
 */
struct extent {
	uint64_t hole_start, data_start, data_end;
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

/* Header and entries of the PAGES frame a channel is busy with. */
struct page_frame {
	uint8_t head[FRAME_HEADER + PAGES_MAX * PAGES_ENTRY];
};

struct source {
	const struct options *options;
	struct loop loop;
	struct launcher launcher;
	struct session session;
	struct scheduler scheduler;
	struct pacer pacer;	/* of bulk */
	struct progress progress;
	struct source_region regions[REGIONS_MAX];

	struct socket_address addresses[SOCKET_ADDRESSES_MAX];
	unsigned int nr_addresses, address;
	struct stream *stream;	/* of fd: and exec:, which have no addresses */
	struct channel *channels[3];
	bool connected[3];
	struct page_frame frames[3];
	uint64_t features;
	struct compressor *compressor;	/* --compress */
	uint8_t *packed;		/* contents of bulk's frame */
	uint8_t session_id[SESSION_SIZE];

	struct watch state;
	bool stopped;		/* pages may be sent */
	bool all_sent;		/* ALL_SENT was sent */
	bool run;		/* what GO said */

	uint64_t deadline_ns;	/* of connecting and agreeing; 0: none */
	uint64_t retry_ns;	/* when to connect again; 0: not waiting for it */
	uint64_t retry_delay_ns;
	uint64_t ping_ns;
	uint64_t lost_ns;	/* when a channel that ended ends the rest; 0: none did */
	char lost_why[CODEC_ERROR_MAX + 128];

	bool done;
	int exit_status;
};

static void connect_control(struct source *source);

static void finish(struct source *source, int exit_status)
{
	if (source->done)
		return;
	source->done = true;
	source->loop.stopped = true;
	source->exit_status = exit_status;
}

static void close_channels(struct source *source)
{
	for (int i = 0; i < 3; i++) {
		channel_free(&source->loop, source->channels[i]);
		source->channels[i] = NULL;
		source->connected[i] = false;
	}
	source->lost_ns = 0;
}

/* The end before GO: the guest stays here, and the other side is told. */
static void __attribute__((format(printf, 2, 3)))
fail(struct source *source, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list args;

	if (source->done)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (source->channels[CHANNEL_CONTROL] && source->connected[CHANNEL_CONTROL]) {
		struct frame frame = { .type = FRAME_ERROR, .length = (uint32_t)strlen(text) };

		if (source->session.state >= SESSION_PREPARE)
			channel_send(source->channels[CHANNEL_CONTROL], &frame, text);
	}
	launcher_message(&source->launcher, "error", "%s", text);
	close_channels(source);
	finish(source, 1);
}

/* Paused for good: there is no other stream. */
static void say_paused(struct source *source, const char *why)
{
	char text[CODEC_ERROR_MAX + URI_TEXT_MAX + 192];

	snprintf(text, sizeof(text), "%s; %s cannot be connected again", why,
		 source->options->uri_text);
	log_warning("%s", text);
	launcher_send(&source->launcher, json_pack("{s:s,s:s,s:s}", "event", "state",
						   "state", "paused", "message", text));
}

/* A connection is of no more use: the end before GO, a pause after it. */
static void __attribute__((format(printf, 2, 3)))
lost(struct source *source, const char *format, ...)
{
	enum session_state before = source->session.state;
	char text[CODEC_ERROR_MAX + 128], error[CODEC_ERROR_MAX];
	va_list args;

	if (source->done)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (session_event(&source->session, EVENT_LOST, error)) {
		fail(source, "%s", text);
		return;
	}
	close_channels(source);
	source->deadline_ns = 0;
	if (source->stream) {
		say_paused(source, text);
		return;
	}
	source->retry_ns = now_ns() + source->retry_delay_ns;
	if (before == SESSION_RUNNING) {
		log_warning("%s; connecting again until it works", text);
		launcher_send(&source->launcher, json_pack("{s:s,s:s,s:s}", "event", "state",
							   "state", "paused", "message", text));
	} else {
		log_debug("%s", text);
	}
}

/*
 * A channel ended. When the other side gives up it says so on control and closes
 * all three: what is said may come after another channel's end.
 */
static void channel_ended(struct source *source, enum channel_kind kind, const char *why)
{
	char text[sizeof(source->lost_why)];

	if (source->stream && stream_broken(source->stream))
		why = stream_broken(source->stream);
	snprintf(text, sizeof(text), "connection to %s lost on the %s channel: %s",
		 source->options->uri_text, channel_name(kind), why);
	if (kind == CHANNEL_CONTROL) {
		lost(source, "%s", source->lost_ns ? source->lost_why : text);
		return;
	}
	channel_free(&source->loop, source->channels[kind]);
	source->channels[kind] = NULL;
	source->connected[kind] = false;
	if (!source->lost_ns) {
		source->lost_ns = now_ns() + EXPLAIN_NS;
		strcpy(source->lost_why, text);
	}
}

/* What a send gave: true if the connection is still good. */
static bool sent(struct source *source, enum channel_kind kind, int err)
{
	if (!err)
		return true;
	channel_ended(source, kind, strerror(-err));
	return false;
}

static bool say(struct source *source, enum frame_type type, uint16_t flags)
{
	return sent(source, CHANNEL_CONTROL,
		    channel_say(source->channels[CHANNEL_CONTROL], type, flags));
}

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
 * Where the file has nothing, memory is zero; nobody writes to it any more.
 * How far data goes is not asked: the kernel would look at each page of it,
 * however long that takes, while requests wait.
 */
static bool in_hole(struct source_region *region, enum channel_kind kind, uint64_t offset)
{
	struct extent *extent = &region->extents[kind];
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
	extent->data_end = extent->data_start + BULK_BATCH * PAGE_BYTES;
	return offset < extent->data_start;
}

static bool next_pick(struct source *source, enum channel_kind kind, struct pick *pick)
{
	return kind == CHANNEL_BULK ? scheduler_bulk(&source->scheduler, pick) :
				      scheduler_urgent(&source->scheduler, pick);
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
	return kind == CHANNEL_BULK && source->features & FEATURE_ZSTD;
}

/* Pages with contents in a frame on bulk: fewer, down to one, when the limit is low. */
static unsigned int bulk_batch(const struct source *source)
{
	uint64_t pages = pacer_frame(&source->pacer) / PAGE_BYTES;
	uint64_t most = compresses(source, CHANNEL_BULK) ? COMPRESSED_BATCH : BULK_BATCH;

	return (unsigned int)min(max(pages, (uint64_t)1), most);
}

/* May the next page be in a frame that began with @first and has @full pages with contents? */
static bool fits(const struct source *source, enum pick_kind first, enum pick_kind next,
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
	source->progress.compressed_pages++;
	source->progress.saved_bytes += PAGE_BYTES - entry->compressed;
	return room;
}

/* Send the next frame of pages if there is one. Returns whether there was. */
static bool send_pages(struct source *source, enum channel_kind kind)
{
	struct frame frame = { .type = FRAME_PAGES };
	uint8_t *head = source->frames[kind].head;
	struct iovec iov[CHANNEL_IOV_MAX];
	unsigned int iov_count = 1, full = 0;
	enum pick_kind first = PICK_BULK;
	struct pick pick;

	while (frame.count < PAGES_MAX && next_pick(source, kind, &pick)) {
		struct source_region *region = &source->regions[pick.region];
		struct page_entry entry = { .offset = pick.page * PAGE_BYTES };
		const uint8_t *page = region->memory + entry.offset;

		if (!frame.count) {
			frame.region = pick.region;
			first = pick.kind;
		} else if (pick.region != frame.region || !fits(source, first, pick.kind, full)) {
			break;
		}
		entry.zero = in_hole(region, kind, entry.offset) || is_zero(page);
		source->progress.zero_pages += entry.zero;
		if (!entry.zero) {
			const uint8_t *contents = page;

			if (compresses(source, kind))
				contents = pack(source, &entry, page,
						source->packed + full * PAGE_BYTES);
			add_contents(iov, &iov_count, contents, page_entry_contents(&entry));
			full++;
		}
		frame.length += PAGES_ENTRY + page_entry_contents(&entry);
		if (entry.compressed)
			frame.flags = FRAME_PAGES_COMPRESSED;
		if (source->features & FEATURE_CHECKSUM)
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
		pacer_sent(&source->pacer, FRAME_HEADER + frame.length, now_ns());
	return sent(source, kind, channel_send_pages(source->channels[kind], iov, iov_count));
}

static bool may_send_pages(const struct source *source)
{
	enum session_state state = source->session.state;

	return !source->done && source->stopped && source->connected[CHANNEL_URGENT] &&
	       source->connected[CHANNEL_BULK] && state >= SESSION_ADVISE &&
	       state <= SESSION_RUNNING;
}

/* Until it has no more or takes no more. */
static void send_urgent(struct source *source)
{
	while (may_send_pages(source) && !channel_busy(source->channels[CHANNEL_URGENT]) &&
	       send_pages(source, CHANNEL_URGENT))
		;
}

/* Nanoseconds until the limit lets bulk send again. */
static uint64_t bulk_waits(const struct source *source)
{
	return pacer_wait(&source->pacer, now_ns());
}

static bool may_send_bulk(const struct source *source)
{
	/* Before GO the hosts are busy with the state of the devices. */
	return may_send_pages(source) && source->session.state == SESSION_RUNNING &&
	       !channel_busy(source->channels[CHANNEL_URGENT]) &&
	       !channel_busy(source->channels[CHANNEL_BULK]) && !bulk_waits(source);
}

/* One frame, if urgent is idle. */
static void send_bulk(struct source *source)
{
	if (!may_send_bulk(source))
		return;
	if (!send_pages(source, CHANNEL_BULK) && may_send_pages(source) &&
	    scheduler_all_sent(&source->scheduler) && !source->all_sent) {
		source->all_sent = true;
		sent(source, CHANNEL_BULK,
		     channel_say(source->channels[CHANNEL_BULK], FRAME_ALL_SENT, 0));
	}
}

static bool bulk_is_due(struct source *source)
{
	struct pick pick;

	return may_send_bulk(source) &&
	       (scheduler_bulk(&source->scheduler, &pick) ||
		(scheduler_all_sent(&source->scheduler) && !source->all_sent));
}

/* What each connection is watched for follows from what it could do now. */
static void set_wants(struct source *source)
{
	bool room = false;

	for (int i = 0; i < 3; i++) {
		struct channel *channel = source->channels[i];
		uint32_t events = EPOLLIN;

		if (!channel)
			continue;
		if (!source->connected[i])
			events = EPOLLOUT;
		else if (channel_busy(channel))
			events |= EPOLLOUT;
		if (i == CHANNEL_URGENT && scheduler_room(&source->scheduler) < REQUEST_MAX)
			events &= ~(uint32_t)EPOLLIN;
		if (i == CHANNEL_BULK && source->connected[i] && bulk_is_due(source))
			events |= EPOLLOUT;
		loop_want(&source->loop, &channel->watch, events);
	}
	if (source->channels[CHANNEL_CONTROL])
		room = channel_queued(source->channels[CHANNEL_CONTROL]) + FRAME_HEADER +
		       STATE_MAX <= CHANNEL_OUT_MAX / 2;
	if (source->state.fd >= 0)
		loop_want(&source->loop, &source->state,
			  source->session.state == SESSION_ADVISE && room ? EPOLLIN : 0);
}

/* Device state. */

static void state_ready(void *owner, uint32_t events)
{
	struct source *source = owner;
	struct frame frame = { .type = FRAME_STATE };
	uint8_t buffer[STATE_MAX];
	char error[CODEC_ERROR_MAX];
	ssize_t n;

	(void)events;
	if (source->session.state != SESSION_ADVISE)
		return;
	n = read(source->state.fd, buffer, sizeof(buffer));
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			fail(source, "cannot read the device state: %s", strerror(errno));
		return;
	}
	if (n > 0) {
		frame.length = (uint32_t)n;
		sent(source, CHANNEL_CONTROL,
		     channel_send(source->channels[CHANNEL_CONTROL], &frame, buffer));
		return;
	}
	loop_remove(&source->loop, &source->state);
	close(source->state.fd);
	source->state.fd = -1;
	if (say(source, FRAME_STATE_END, 0) &&
	    !session_event(&source->session, EVENT_STATE_END, error))
		launcher_state(&source->launcher, "listen");
}

/* What comes. */

static void progress_now(struct source *source)
{
	source->progress.pages_done = source->scheduler.pages_sent;
	source->progress.prefault_pages = source->scheduler.prefault_pages;
	source->progress.prefault_hits = source->scheduler.prefault_hits;
	source->progress.duplicates = source->scheduler.duplicates;
	launcher_send(&source->launcher,
		      progress_event(&source->progress, ROLE_SOURCE,
				     session_state_name(source->session.state), now_ns()));
}

static struct channel *open_channel(struct source *source, enum channel_kind kind);

static void take_hello_ack(struct source *source, struct channel *channel)
{
	char error[CODEC_ERROR_MAX];
	struct hello_ack ack;

	if (hello_ack_decode(&ack, channel->payload, source->features, error)) {
		lost(source, "%s: %s", source->options->uri_text, error);
		return;
	}
	if (source->features & ~ack.features & FEATURE_ZSTD)
		log_warning("%s takes no compressed pages: sending them as they are",
			    source->options->uri_text);
	source->features = ack.features;
	source->deadline_ns = 0;
	open_channel(source, CHANNEL_URGENT);
	if (!source->done && source->session.state == SESSION_PREPARE)
		open_channel(source, CHANNEL_BULK);
}

static void take_prepared(struct source *source)
{
	source->deadline_ns = 0;
	source->retry_delay_ns = RETRY_FIRST_NS;
	launcher_state(&source->launcher, session_state_name(source->session.state));
	if (!source->progress.started_ns)
		progress_start(&source->progress, now_ns());
}

static void take_request(struct source *source, struct channel *channel)
{
	const struct frame *frame = &channel->frame;
	uint64_t pages[REQUEST_MAX];
	char error[CODEC_ERROR_MAX];

	if (frame->region >= source->options->nr_regions) {
		lost(source, "%s asks for region %u, wanted 0 to %u", source->options->uri_text,
		     frame->region, source->options->nr_regions - 1);
		return;
	}
	if (request_decode(pages, frame, channel->payload,
			   source->regions[frame->region].length / PAGE_BYTES, error)) {
		lost(source, "%s: %s", source->options->uri_text, error);
		return;
	}
	source->progress.requests += frame->count;
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

	if (frame->region >= source->options->nr_regions) {
		lost(source, "%s tells of region %u, wanted 0 to %u", source->options->uri_text,
		     frame->region, source->options->nr_regions - 1);
		return;
	}
	if (bitmap_decode(&first, words, frame, channel->payload,
			  source->regions[frame->region].length / PAGE_BYTES, error)) {
		lost(source, "%s: %s", source->options->uri_text, error);
		return;
	}
	scheduler_present(&source->scheduler, frame->region, first, words, frame->count);
}

static void take_end(struct source *source)
{
	channel_say(source->channels[CHANNEL_CONTROL], FRAME_END, 0);
	progress_now(source);
	launcher_state(&source->launcher, "end");
	finish(source, 0);
}

static void take_frame(struct source *source, struct channel *channel)
{
	char error[CODEC_ERROR_MAX], text[TEXT_MAX + 1];

	if (session_frame(&source->session, channel->kind, &channel->frame, error)) {
		lost(source, "%s: %s", source->options->uri_text, error);
		return;
	}
	switch (channel->frame.type) {
	case FRAME_HELLO_ACK:
		take_hello_ack(source, channel);
		break;
	case FRAME_REFUSE:
		text_decode(text, channel->payload, channel->frame.length);
		lost(source, "%s refuses: %s", source->options->uri_text, text);
		break;
	case FRAME_ERROR:
		text_decode(text, channel->payload, channel->frame.length);
		lost(source, "%s failed: %s", source->options->uri_text, text);
		break;
	case FRAME_PREPARED:
		take_prepared(source);
		break;
	case FRAME_READY:
		launcher_send(&source->launcher, json_pack("{s:s}", "event", "ready"));
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

static int admit(struct source *source, enum channel_kind kind, const struct frame *frame,
		 char *error)
{
	return session_admits(&source->session, kind, frame, error);
}

static int control_admit(void *owner, const struct frame *frame, char *error)
{
	return admit(owner, CHANNEL_CONTROL, frame, error);
}

static int urgent_admit(void *owner, const struct frame *frame, char *error)
{
	return admit(owner, CHANNEL_URGENT, frame, error);
}

static int bulk_admit(void *owner, const struct frame *frame, char *error)
{
	return admit(owner, CHANNEL_BULK, frame, error);
}

/* Connecting. */

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
		close_channels(source);
		source->address++;
		connect_control(source);
		return;
	}
	source->address = 0;
	lost(source, "%s", text);
}

static void send_hello(struct source *source)
{
	const struct options *options = source->options;
	struct hello *hello = calloc(1, sizeof(*hello));
	uint8_t *payload = malloc(HELLO_BYTES_MAX);
	struct frame frame = { .type = FRAME_HELLO, .count = options->nr_regions };

	if (!hello || !payload) {
		fail(source, "out of memory");
	} else {
		hello->version = PROTOCOL_VERSION;
		hello->min_version = PROTOCOL_MIN_VERSION;
		hello->features = source->features;
		hello->page_size = PAGE_BYTES;
		memcpy(hello->session, source->session_id, SESSION_SIZE);
		hello->nr_regions = options->nr_regions;
		memcpy(hello->regions, options->regions, sizeof(hello->regions));
		frame.length = (uint32_t)hello_encode(payload, hello);
		sent(source, CHANNEL_CONTROL,
		     channel_send(source->channels[CHANNEL_CONTROL], &frame, payload));
	}
	free(payload);
	free(hello);
}

static void send_resume(struct source *source)
{
	struct frame frame = {
		.type = FRAME_RESUME,
		.flags = source->run ? FRAME_GO_RUN : 0,
		.length = RESUME_BYTES,
	};
	struct resume resume = { .version = PROTOCOL_VERSION };
	uint8_t payload[RESUME_BYTES];

	memcpy(resume.session, source->session_id, SESSION_SIZE);
	resume_encode(payload, &resume);
	scheduler_restart(&source->scheduler);
	source->all_sent = false;
	if (!sent(source, CHANNEL_CONTROL,
		  channel_send(source->channels[CHANNEL_CONTROL], &frame, payload)))
		return;
	open_channel(source, CHANNEL_URGENT);
	if (source->session.state == SESSION_RESUME)
		open_channel(source, CHANNEL_BULK);
}

static void send_join(struct source *source, enum channel_kind kind)
{
	struct frame frame = { .type = FRAME_JOIN, .length = JOIN_BYTES };
	struct join join = { .kind = kind };
	uint8_t payload[JOIN_BYTES];

	memcpy(join.session, source->session_id, SESSION_SIZE);
	join_encode(payload, &join);
	sent(source, kind, channel_send(source->channels[kind], &frame, payload));
}

static void channel_connected(struct source *source, enum channel_kind kind)
{
	char error[CODEC_ERROR_MAX], text[SOCKET_TEXT_MAX];
	int err = socket_connected(source->channels[kind]->watch.fd);

	if (err) {
		socket_text(text, &source->addresses[source->address]);
		if (kind == CHANNEL_CONTROL)
			try_next_address(source, "cannot connect to %s (%s): %s",
					 source->options->uri_text, text, strerror(-err));
		else
			lost(source, "cannot connect the %s channel to %s (%s): %s",
			     channel_name(kind), source->options->uri_text, text,
			     strerror(-err));
		return;
	}
	source->connected[kind] = true;
	if (kind != CHANNEL_CONTROL) {
		send_join(source, kind);
		return;
	}
	if (session_event(&source->session, EVENT_CONNECTED, error))
		lost(source, "%s", error);
	else if (source->session.state == SESSION_RESUME)
		send_resume(source);
	else
		send_hello(source);
}

/* Nothing came because of the stream: that has its own reason. */
static bool stream_failed(const struct source *source, const struct channel *channel)
{
	return source->stream && stream_broken(source->stream) && !channel->magic_seen;
}

static bool may_receive(const struct source *source, enum channel_kind kind)
{
	return !source->done && source->channels[kind] &&
	       (kind != CHANNEL_URGENT || scheduler_room(&source->scheduler) >= REQUEST_MAX);
}

static void receive(struct source *source, enum channel_kind kind)
{
	while (may_receive(source, kind)) {
		struct channel *channel = source->channels[kind];
		char error[CODEC_ERROR_MAX];
		int err = channel_receive(channel, error);

		if (err == -EAGAIN)
			return;
		if (err == 1)
			take_frame(source, channel);
		else if (err == -EPROTO && !stream_failed(source, channel))
			lost(source, "%s: %s", source->options->uri_text, error);
		else
			channel_ended(source, kind, error);
	}
}

static void channel_ready(struct source *source, enum channel_kind kind, uint32_t events)
{
	int err;

	if (!source->connected[kind]) {
		channel_connected(source, kind);
		return;
	}
	if (events & EPOLLOUT) {
		err = channel_flush(source->channels[kind]);
		if (err != -EAGAIN && !sent(source, kind, err))
			return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(source, kind);
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

/* @text: where to, for messages */
static int begin_to_connect(struct source *source, enum channel_kind kind, int *fd,
			    char text[SOCKET_TEXT_MAX])
{
	if (source->stream) {
		snprintf(text, SOCKET_TEXT_MAX, "%.100s", source->options->uri_text);
		return stream_connect(source->stream, kind, fd);
	}
	socket_text(text, &source->addresses[source->address]);
	return socket_connect(&source->addresses[source->address], fd);
}

/* Begins to connect; NULL if that failed, and then the failure was dealt with. */
static struct channel *open_channel(struct source *source, enum channel_kind kind)
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
	struct watch watch = {
		.priority = kinds[kind].priority,
		.ready = kinds[kind].ready,
		.owner = source,
	};
	char text[SOCKET_TEXT_MAX];
	int fd, err;

	err = begin_to_connect(source, kind, &fd, text);
	if (err) {
		if (kind == CHANNEL_CONTROL)
			try_next_address(source, "cannot connect to %s (%s): %s",
					 source->options->uri_text, text, strerror(-err));
		else
			lost(source, "cannot connect the %s channel to %s (%s): %s",
			     channel_name(kind), source->options->uri_text, text,
			     strerror(-err));
		return NULL;
	}
	if (kind == CHANNEL_BULK)
		socket_limit_unsent(fd, BULK_UNSENT);
	source->channels[kind] = channel_new(fd, text, &source->progress.bytes[kind], &watch,
					     kinds[kind].admit);
	if (!source->channels[kind]) {
		lost(source, "out of memory");
		return NULL;
	}
	source->channels[kind]->kind = kind;
	source->connected[kind] = false;
	return source->channels[kind];
}

static void connect_control(struct source *source)
{
	source->retry_ns = 0;
	source->deadline_ns = now_ns() + source->options->connect_timeout * NSEC_PER_SEC;
	open_channel(source, CHANNEL_CONTROL);
}

/* What the launcher says. */

static void set(struct source *source, json_t *object)
{
	json_t *limit = json_object_get(object, "max_bulk_bandwidth");

	if (!json_is_integer(limit) || json_integer_value(limit) < 0) {
		log_warning("command set: wanted \"max_bulk_bandwidth\", bytes a second from 0 on");
		return;
	}
	pacer_set(&source->pacer, (uint64_t)json_integer_value(limit), now_ns());
}

static void command(void *owner, const char *name, json_t *object)
{
	struct source *source = owner;
	char error[CODEC_ERROR_MAX];

	if (source->done)
		return;
	if (!strcmp(name, "stopped")) {
		if (session_event(&source->session, EVENT_STOPPED, error)) {
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
		if (session_event(&source->session, EVENT_GO, error)) {
			log_warning("%s", error);
			return;
		}
		source->run = json_is_true(run);
		progress_now(source);	/* before anyone asks how it goes */
		launcher_state(&source->launcher, "running");
		say(source, FRAME_GO, source->run ? FRAME_GO_RUN : 0);
	} else if (!strcmp(name, "set")) {
		set(source, object);
	} else if (!strcmp(name, "cancel")) {
		if (session_event(&source->session, EVENT_CANCEL, error)) {
			log_warning("%s", error);
			return;
		}
		if (source->connected[CHANNEL_CONTROL])
			channel_say(source->channels[CHANNEL_CONTROL], FRAME_CANCEL, 0);
		launcher_send(&source->launcher, json_pack("{s:s}", "event", "cancelled"));
		finish(source, 0);
	} else {
		log_warning("command \"%s\" is unknown to a source", name);
	}
}

static void launcher_lost(void *owner)
{
	struct source *source = owner;

	if (source->session.gone)
		log_warning("the launcher is gone; going on without it");
	else
		fail(source, "the launcher is gone");
}

/* Time. */

static void check_deadlines(struct source *source, uint64_t now)
{
	struct channel *control = source->channels[CHANNEL_CONTROL];

	if (source->retry_ns && now >= source->retry_ns) {
		source->retry_delay_ns = min(source->retry_delay_ns * 2,
					     (uint64_t)RETRY_LAST_NS);
		connect_control(source);
		return;
	}
	if (source->deadline_ns && now >= source->deadline_ns) {
		if (source->session.state == SESSION_NONE || source->session.state == SESSION_PAUSED)
			try_next_address(source, "cannot connect to %s: no answer within %u seconds",
					 source->options->uri_text,
					 source->options->connect_timeout);
		else if (source->session.state == SESSION_HELLO ||
			 source->session.state == SESSION_RESUME)
			lost(source, "%s took the connection but did not answer within %u seconds",
			     source->options->uri_text, source->options->connect_timeout);
		return;
	}
	if (source->lost_ns && now >= source->lost_ns) {
		lost(source, "%s", source->lost_why);
		return;
	}
	if (!control || source->session.state < SESSION_PREPARE || !source->connected[0])
		return;
	if (now - control->heard_ns >= SILENCE_NS) {
		lost(source, "nothing came from %s for %llu seconds", source->options->uri_text,
		     SILENCE_NS / NSEC_PER_SEC);
		return;
	}
	if (now - source->ping_ns >= PING_PERIOD_NS) {
		int err = channel_say(control, FRAME_PING, 0);

		source->ping_ns = now;
		if (err != -ENOBUFS)
			sent(source, CHANNEL_CONTROL, err);
	}
}

/* How long the loop may sleep: to the next tick, or until the limit lets bulk send. */
static int sleep_ms(const struct source *source, uint64_t until_tick)
{
	uint64_t waits = source->all_sent ? 0 : bulk_waits(source);

	return (int)((waits ? min(waits, until_tick) : until_tick) / NSEC_PER_MSEC) + 1;
}

static void run_loop(struct source *source)
{
	uint64_t next_tick = 0;

	while (!source->done) {
		uint64_t now = now_ns();
		int err;

		if (now >= next_tick) {
			next_tick = now + TICK_MS * NSEC_PER_MSEC;
			check_deadlines(source, now);
			if (!source->done && progress_due(&source->progress, now))
				progress_now(source);
			continue;
		}
		send_urgent(source);
		send_bulk(source);
		if (source->done)
			break;
		set_wants(source);
		if (source->stream)
			stream_turn(source->stream);
		err = loop_turn(&source->loop, sleep_ms(source, next_tick - now));
		if (err)
			fail(source, "epoll: %s", strerror(-err));
	}
}

/* Beginning and end. */

static int map_regions(struct source *source, char *error)
{
	const struct options *options = source->options;

	for (uint32_t i = 0; i < options->nr_regions; i++) {
		struct source_region *region = &source->regions[i];
		void *memory;
		off_t size;
		int err;

		region->fd = options->region_fds[i];
		region->length = options->regions[i].length;
		size = lseek(region->fd, 0, SEEK_END);
		if (size < 0 || (uint64_t)size != region->length) {
			snprintf(error, CODEC_ERROR_MAX, "region \"%s\": descriptor %d has %lld bytes, wanted %llu",
				 options->regions[i].name, region->fd, (long long)size,
				 (unsigned long long)region->length);
			return -EINVAL;
		}
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

static int prepare(struct source *source, char *error)
{
	const struct options *options = source->options;
	uint64_t pages[REGIONS_MAX];
	int flags, err;

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
	source->progress.pages_total = source->scheduler.pages_total;
	if (options->compress) {
		source->compressor = compressor_new();
		source->packed = malloc((size_t)COMPRESSED_BATCH * PAGE_BYTES);
		if (!source->compressor || !source->packed) {
			snprintf(error, CODEC_ERROR_MAX, "no memory to compress pages with");
			return -ENOMEM;
		}
		source->features |= FEATURE_ZSTD;
	}

	flags = fcntl(options->state_fd, F_GETFL);
	if (flags < 0 || fcntl(options->state_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		snprintf(error, CODEC_ERROR_MAX, "--state-fd %d: %s", options->state_fd,
			 strerror(errno));
		return -EBADF;
	}
	source->state = (struct watch){
		.fd = options->state_fd,
		.priority = PRIORITY_CONTROL,
		.ready = state_ready,
		.owner = source,
	};
	if (getrandom(source->session_id, SESSION_SIZE, 0) != SESSION_SIZE) {
		snprintf(error, CODEC_ERROR_MAX, "no random numbers: %s", strerror(errno));
		return -EIO;
	}
	if (options->uri.kind == URI_FD || options->uri.kind == URI_EXEC) {
		source->stream = stream_open(&source->loop, &options->uri, NULL, NULL, error);
		return source->stream ? 0 : -EIO;
	}
	return socket_resolve(&options->uri, 0, source->addresses, &source->nr_addresses, error);
}

int source_run(const struct options *options)
{
	struct source *source = calloc(1, sizeof(*source));
	char error[max(CODEC_ERROR_MAX, SOCKET_ERROR_MAX)];
	int status;

	if (!source) {
		log_error("out of memory");
		return 1;
	}
	source->options = options;
	source->retry_delay_ns = RETRY_FIRST_NS;
	source->features = options->checksum ? FEATURE_CHECKSUM : 0;
	pacer_set(&source->pacer, options->max_bulk_bandwidth, now_ns());
	source->state.fd = -1;
	source->launcher.command = command;
	source->launcher.lost = launcher_lost;
	source->launcher.owner = source;
	session_init(&source->session, ROLE_SOURCE);

	if (loop_init(&source->loop) ||
	    launcher_init(&source->launcher, &source->loop, options->control_fd)) {
		log_error("--control-fd %d: %s", options->control_fd, strerror(errno));
		free(source);
		return 1;
	}
	if (prepare(source, error))
		fail(source, "%s", error);
	else
		connect_control(source);
	run_loop(source);

	close_channels(source);
	stream_close(source->stream);
	launcher_finish(&source->launcher);
	scheduler_destroy(&source->scheduler);
	compressor_free(source->compressor);
	free(source->packed);
	loop_destroy(&source->loop);
	status = source->exit_status;
	free(source);
	return status;
}
