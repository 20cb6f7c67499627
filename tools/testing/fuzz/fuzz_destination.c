// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A destination whose source, launcher and guest do anything: see world.h. No page is
 * put in place that nobody vouched for with its checksum, none that is missing is
 * claimed to be present, END is said once all are.
 *
 * Input: 1 for --no-prealloc (1), then steps.
 */
#include "fuzz.h"

#include "common/util.h"
#include "umemd/bitmap.h"
#include "umemd/checksum.h"
#include "umemd/destination.h"
#include "world.h"

#define PAGES_ROOM	256

static const char *const commands[] = {
	"{\"cmd\":\"ready\"}",
	"{\"cmd\":\"fail\",\"message\":\"no\"}",
	"{\"cmd\":\"cancel\"}",
};

static bool is_zero(const uint8_t *page)
{
	static const uint8_t zeroes[PAGE_BYTES];

	return !memcmp(page, zeroes, PAGE_BYTES);
}

/* Did the source send its checksum? It may call the regions what it likes. */
static bool is_vouched_for(uint64_t page, const uint8_t *contents)
{
	for (uint32_t number = 0; number < KERNEL_REGIONS; number++) {
		uint64_t checksum = page_checksum(contents, number, page * PAGE_BYTES);

		if (world_sent(&checksum, sizeof(checksum)))
			return true;
	}
	return contents && is_zero(contents) && is_vouched_for(page, NULL);
}

static void check_page(uint32_t region, uint64_t page, const uint8_t *contents)
{
	(void)region;
	must(!(world.side->features & FEATURE_CHECKSUM) || is_vouched_for(page, contents));
}

/*
 * What was said of pages that come early, until the next HELLO is taken. Regions are
 * those of the source, which calls ours the same if @same.
 */
static struct {
	const struct connection *control;
	bool same;
	struct {
		bool named;
		const struct connection *from;
		bool many;		/* which came last nobody knows */
		uint64_t checksum;	/* of the last */
	} pages[KERNEL_REGIONS][PAGES_ROOM];
} early;

static void sent_pages(const struct connection *connection, const struct frame *frame,
		       const uint8_t *payload)
{
	struct page_entry entries[PAGES_MAX];
	char error[CODEC_ERROR_MAX];

	if (!(frame->flags & FRAME_PAGES_EARLY) || frame->region >= KERNEL_REGIONS ||
	    pages_decode(entries, frame, payload, kernel.regions[frame->region].pages, error))
		return;
	for (uint32_t i = 0; i < frame->count; i++) {
		uint64_t page = entries[i].offset / PAGE_BYTES;

		early.pages[frame->region][page].many |=
			early.pages[frame->region][page].from &&
			early.pages[frame->region][page].from != connection;
		for (uint32_t j = 0; j < i; j++)
			early.pages[frame->region][page].many |=
				entries[j].offset == entries[i].offset;
		early.pages[frame->region][page].from = connection;
		early.pages[frame->region][page].checksum = entries[i].checksum;
	}
}

static void sent_discard(const struct connection *connection, const struct frame *frame,
			 const uint8_t *payload)
{
	struct page_range ranges[DISCARD_MAX];
	char error[CODEC_ERROR_MAX];

	if (connection != early.control || frame->region >= KERNEL_REGIONS ||
	    !frame->count || frame->count * DISCARD_RANGE != frame->length ||
	    discard_decode(ranges, frame, payload, kernel.regions[frame->region].pages, error))
		return;
	for (uint32_t i = 0; i < frame->count; i++) {
		for (uint64_t page = ranges[i].first; page < ranges[i].end; page++)
			early.pages[frame->region][page].named = true;
	}
}

static void sent_frame(struct connection *connection, const struct frame *frame,
		       const uint8_t *payload)
{
	size_t name = strlen(kernel.regions[0].name) + 1;

	if (frame->type == FRAME_HELLO && !early.control)
		early.same = frame->length >= HELLO_FIXED + 8 + name &&
			     !memcmp(payload + HELLO_FIXED + 8, kernel.regions[0].name, name);
	else if (frame->type == FRAME_PAGES)
		sent_pages(connection, frame, payload);
	else if (frame->type == FRAME_DISCARD)
		sent_discard(connection, frame, payload);
}

/* What is shown of what came early is the last copy of a page, and no old one. Else it is zero. */
static void check_shown(uint32_t region, uint64_t page, const uint8_t *contents)
{
	uint64_t checksum = early.pages[region][page].checksum, offset = page * PAGE_BYTES;

	check_page(region, page, contents);
	if (!(world.side->features & FEATURE_PRECOPY)) {
		must(is_zero(contents));
		return;
	}
	if (!early.same || !(world.side->features & FEATURE_CHECKSUM) || !world_is_heard() ||
	    early.pages[region][page].many)
		return;
	must(early.pages[region][page].from && !early.pages[region][page].named);
	must(checksum == page_checksum(contents, region, offset) ||
	     (checksum == page_checksum(NULL, region, offset) && is_zero(contents)));
}

static bool claims_truth(const struct kernel_region *region, const struct frame *frame,
			 const uint8_t *payload)
{
	uint64_t words[BITMAP_WORDS_MAX], first;
	char error[CODEC_ERROR_MAX];

	if (bitmap_decode(&first, words, frame, payload, region->pages, error))
		return false;
	for (uint64_t i = 0; i < 64 * frame->count && first + i < region->pages; i++) {
		if (bitmap_test(words, i) && region->missing[first + i])
			return false;
	}
	return true;
}

static void take_bitmap(const struct frame *frame, const uint8_t *payload)
{
	must(claims_truth(&kernel.regions[0], frame, payload) ||
	     claims_truth(&kernel.regions[1], frame, payload));
}

static void take_request(const struct frame *frame, const uint8_t *payload)
{
	uint64_t pages[REQUEST_MAX];
	char error[CODEC_ERROR_MAX];

	must(!request_decode(pages, frame, payload, kernel.regions[0].pages, error));
}

static void take_frame(struct connection *connection, const struct frame *frame,
		       const uint8_t *payload)
{
	must(world_is_frame_for(ROLE_SOURCE, frame));
	if (frame->type == FRAME_HELLO_ACK) {
		bool same = early.same;

		memset(&early, 0, sizeof(early));
		early.same = same;
		early.control = connection;
	} else if (frame->type == FRAME_BITMAP) {
		take_bitmap(frame, payload);
	} else if (frame->type == FRAME_REQUEST) {
		take_request(frame, payload);
	} else if (frame->type == FRAME_END) {
		must(!kernel_missing());
	}
}

static void take_event(const char *name, const char *state)
{
	(void)state;
	/* The guest runs here only if the source can never run it again. */
	must(strcmp(name, "go") || world.side->session.gone);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	kernel.check = check_page;
	kernel.show = check_shown;
	world.sent_frame = sent_frame;
	world.commands = commands;
	world.nr_commands = ARRAY_SIZE(commands);
	world.frame = take_frame;
	world.event = take_event;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };

	memset(&early, 0, sizeof(early));
	world.options = (struct options){
		.resume_fd = -1,
		.listen_fd = -1,
		.role = ROLE_DESTINATION,
		.uri.kind = URI_TCP,
		.uri_text = "tcp:0:4444",
		.preallocate = !(input_u8(&input) & 1),
	};
	world_run(input.data, input.left, destination_run);
	return 0;
}
