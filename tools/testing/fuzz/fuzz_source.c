// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A source whose destination, launcher and guest do anything: see world.h. Each page
 * is what the guest has there, of early ones at least those that are shown; the
 * launcher knows of GO before it is said, and once it is said nothing is cancelled.
 *
 * Input: flags (1), prefault (1), then steps.
 */
#include "fuzz.h"

#include "common/util.h"
#include "umemd/checksum.h"
#include "umemd/compress.h"
#include "umemd/source.h"
#include "world.h"

enum flag {
	FLAG_PRECOPY = 1 << 0,
	FLAG_CHECKSUM = 1 << 1,
	FLAG_COMPRESS = 1 << 2,
	FLAG_NO_PUSH = 1 << 3,
	FLAG_FOLLOW = 1 << 4,
};

#define PAGES_ROOM	256

static const char *const commands[] = {
	"{\"cmd\":\"stopped\"}",
	"{\"cmd\":\"go\",\"run\":true}",
	"{\"cmd\":\"go\",\"run\":false}",
	"{\"cmd\":\"cancel\"}",
	"{\"cmd\":\"set\",\"bulk_channels\":3,\"urgent_channels\":2}",
	"{\"cmd\":\"set\",\"bulk_channels\":1,\"urgent_channels\":1}",
	"{\"cmd\":\"set\",\"max_bulk_bandwidth\":100000}",
	"{\"cmd\":\"set\",\"max_precopy_bandwidth\":1000000,\"downtime_limit_ms\":0}",
};

static struct decompressor *decompressor;

/* What the other side has of pages that came early, and which of them are old. */
static bool has[KERNEL_REGIONS][PAGES_ROOM], named[KERNEL_REGIONS][PAGES_ROOM];
static uint64_t copies[KERNEL_REGIONS][PAGES_ROOM];
static unsigned int syncs;
static bool published, early_over, said_running, went;

static bool is_zero(const uint8_t *page)
{
	static const uint8_t zeroes[PAGE_BYTES];

	return !memcmp(page, zeroes, PAGE_BYTES);
}

static uint64_t hash(uint32_t region, uint64_t page)
{
	return page_checksum(kernel.regions[region].memory + page * PAGE_BYTES, region, page);
}

/* @contents: NULL for zeroes */
static void take_page(const struct frame *frame, const struct page_entry *entry,
		      const uint8_t *contents)
{
	static const uint8_t zeroes[PAGE_BYTES];
	uint64_t page = entry->offset / PAGE_BYTES;
	const uint8_t *memory = kernel.regions[frame->region].memory + entry->offset;

	if (world.side->features & FEATURE_CHECKSUM)
		must(entry->checksum == page_checksum(contents, frame->region, entry->offset));
	must(!contents || !is_zero(contents));
	if (frame->flags & FRAME_PAGES_EARLY) {
		has[frame->region][page] = true;
		copies[frame->region][page] = page_checksum(contents ? contents : zeroes,
							    frame->region, page);
		return;
	}
	must(world.frozen);
	must(contents ? !memcmp(contents, memory, PAGE_BYTES) : is_zero(memory));
}

static void take_pages(const struct frame *frame, const uint8_t *payload)
{
	const uint8_t *data = payload + frame->count * PAGES_ENTRY;
	struct page_entry entries[PAGES_MAX];
	uint8_t unpacked[PAGE_BYTES];
	char error[CODEC_ERROR_MAX];

	must(frame->region < KERNEL_REGIONS);
	must(!pages_decode(entries, frame, payload, kernel.regions[frame->region].pages, error));
	must(world.side->features & FEATURE_ZSTD || !(frame->flags & FRAME_PAGES_COMPRESSED));
	for (uint32_t i = 0; i < frame->count; i++) {
		const uint8_t *contents = entries[i].zero ? NULL : data;

		if (entries[i].compressed) {
			must(!decompress_page(decompressor, unpacked, data, entries[i].compressed));
			contents = unpacked;
		}
		data += page_entry_contents(&entries[i]);
		take_page(frame, &entries[i], contents);
	}
}

static void take_discard(const struct frame *frame, const uint8_t *payload)
{
	struct page_range ranges[DISCARD_MAX];
	char error[CODEC_ERROR_MAX];

	must(frame->region < KERNEL_REGIONS);
	must(!discard_decode(ranges, frame, payload, kernel.regions[frame->region].pages, error));
	for (uint32_t i = 0; i < frame->count; i++)
		memset(named[frame->region] + ranges[i].first, 1, ranges[i].end - ranges[i].first);
}

/* Once all that is early has come, what was not named is shown to the guest. */
static void check_published(void)
{
	if (!published || !early_over)
		return;
	must(world.frozen);
	for (uint32_t i = 0; i < KERNEL_REGIONS; i++) {
		for (uint64_t page = 0; page < kernel.regions[i].pages; page++)
			must(!has[i][page] || named[i][page] || copies[i][page] == hash(i, page));
	}
}

/* What follows on a channel is of the next round: it has to wait for the others. */
static void take_sync(struct connection *connection, const struct frame *frame)
{
	connection->synced = true;
	if (++syncs < frame->count)
		return;
	syncs = 0;
	for (unsigned int i = 0; i < world.nr_connections; i++)
		world.connections[i].synced = false;
	early_over = frame->flags & FRAME_SYNC_LAST;
	check_published();
}

static void take_frame(struct connection *connection, const struct frame *frame,
		       const uint8_t *payload)
{
	must(frame->type == FRAME_JOIN || world_is_frame_for(ROLE_DESTINATION, frame));
	switch (frame->type) {
	case FRAME_PAGES:
		take_pages(frame, payload);
		break;
	case FRAME_DISCARD:
		take_discard(frame, payload);
		break;
	case FRAME_PUBLISH:
		published = true;
		check_published();
		break;
	case FRAME_SYNC:
		take_sync(connection, frame);
		break;
	case FRAME_CANCEL:
		must(!went);
		break;
	case FRAME_GO:
	case FRAME_RESUME:
		must(said_running);
		went = true;
		break;
	}
}

static void take_event(const char *name, const char *state)
{
	said_running |= state && !strcmp(state, "running");
	must(strcmp(name, "cancelled") || !said_running);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	decompressor = decompressor_new();
	must(decompressor);
	world.commands = commands;
	world.nr_commands = ARRAY_SIZE(commands);
	world.frame = take_frame;
	world.event = take_event;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint8_t flags = input_u8(&input), prefault = input_u8(&input);

	memset(has, 0, sizeof(has));
	memset(named, 0, sizeof(named));
	syncs = 0;
	published = early_over = said_running = went = false;
	world.options = (struct options){
		.resume_fd = -1,
		.listen_fd = -1,
		.role = ROLE_SOURCE,
		.uri.kind = URI_TCP,
		.uri_text = "tcp:b:4444",
		.connect_timeout = 10,
		.precopy = flags & FLAG_PRECOPY,
		.checksum = flags & FLAG_CHECKSUM,
		.compress = flags & FLAG_COMPRESS,
		.policy = {
			.push = flags & FLAG_PRECOPY || !(flags & FLAG_NO_PUSH),
			.follow = flags & FLAG_FOLLOW,
			.forward = prefault & 15,
			.backward = prefault >> 4,
		},
	};
	world_run(input.data, input.left, source_run);
	return 0;
}
