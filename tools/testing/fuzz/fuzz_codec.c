// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Each decoder of the network protocol: what it takes is within the limits, and
 * encodes to the bytes it came from.
 *
 * Input: pages of the region (1), then a header (16) and the payload. The length in
 * the header is what there is of payload, unless bit 7 of the first byte is set.
 */
#include "fuzz.h"

#include "common/util.h"
#include "umemd/codec.h"

static char error[CODEC_ERROR_MAX];

/* Return: whether it was taken. */
static bool taken(int err)
{
	if (err)
		must_be_sentence(error, sizeof(error));
	return !err;
}

static void check_magic(const uint8_t *bytes, size_t size)
{
	static const char *const magics[] = { MAGIC, "UMUX\r\n\x1a\n" };

	size = min(size, (size_t)MAGIC_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		must(taken(magic_check(bytes, size, magics[i], error)) ==
		     (size == MAGIC_SIZE && !memcmp(bytes, magics[i], MAGIC_SIZE)));
}

/* With the other's regions in another order, or one of them changed. */
static void match(const struct hello *hello, uint8_t how)
{
	struct hello_region *ours = calloc(REGIONS_MAX, sizeof(*ours));
	uint32_t index[REGIONS_MAX], count = hello->nr_regions;
	bool same = !(how & 1) || !count;

	must(ours);
	for (uint32_t i = 0; i < count; i++)
		ours[i] = hello->regions[(i + how) % count];
	if (!same && how & 2)
		ours[how % count].length += PAGE_BYTES;
	else if (!same && how & 4)
		ours[how % count].name[0] ^= 1;
	else if (!same)
		count--;
	must(taken(hello_match(hello, ours, count, index, error)) == same);
	for (uint32_t i = 0; same && i < count; i++)
		must(index[i] < count && !strcmp(ours[index[i]].name, hello->regions[i].name));
	free(ours);
}

static void check_hello(const struct frame *frame, const uint8_t *payload, uint8_t how)
{
	struct hello *hello = malloc(sizeof(*hello));
	uint8_t again[HELLO_BYTES_MAX];

	must(hello);
	if (taken(hello_decode(hello, frame, payload, error)) && hello_version(hello)) {
		must(hello->nr_regions == frame->count && hello->nr_regions <= REGIONS_MAX);
		must(hello_encode(again, hello) == frame->length);
		must(!memcmp(again, payload, frame->length));
		match(hello, how);
	}
	free(hello);
}

static void check_hello_ack(const uint8_t *payload, uint64_t offered)
{
	uint8_t again[HELLO_ACK_BYTES];
	struct hello_ack ack;

	if (!taken(hello_ack_decode(&ack, payload, offered, error)))
		return;
	must(!(ack.features & ~offered));
	hello_ack_encode(again, &ack);
	must(!memcmp(again, payload, sizeof(again)));
}

static void check_join(const uint8_t *payload)
{
	uint8_t again[JOIN_BYTES];
	struct join join;

	if (!taken(join_decode(&join, payload, error)))
		return;
	must(join.kind <= CHANNEL_BULK && join.index < CHANNELS_MAX);
	join_encode(again, &join);
	must(!memcmp(again, payload, sizeof(again)));
}

static void check_resume(const uint8_t *payload)
{
	uint8_t again[RESUME_BYTES];
	struct resume resume;

	if (!taken(resume_decode(&resume, payload, error)))
		return;
	resume_encode(again, &resume);
	must(!memcmp(again, payload, sizeof(again)));
}

static void check_text(const uint8_t *payload, size_t size)
{
	char text[TEXT_MAX + 1];

	text_decode(text, payload, size);
	must(strlen(text) == min(size, (size_t)TEXT_MAX));
	if (size)
		must_be_sentence(text, sizeof(text));
}

static void check_request(const struct frame *frame, const uint8_t *payload, uint64_t pages)
{
	uint8_t again[8 * REQUEST_MAX];
	uint64_t page[REQUEST_MAX];

	if (!taken(request_decode(page, frame, payload, pages, error)))
		return;
	for (uint32_t i = 0; i < frame->count; i++)
		must(page[i] < pages);
	must(request_encode(again, page, frame->count) == frame->length);
	must(!memcmp(again, payload, frame->length));
}

static void check_pages(const struct frame *frame, const uint8_t *payload, uint64_t pages)
{
	struct page_entry entries[PAGES_MAX];
	uint32_t contents = 0;
	uint8_t again[PAGES_ENTRY];

	if (!taken(pages_decode(entries, frame, payload, pages, error)))
		return;
	for (uint32_t i = 0; i < frame->count; i++) {
		must(entries[i].offset % PAGE_BYTES == 0);
		must(entries[i].offset / PAGE_BYTES < pages);
		must(page_entry_contents(&entries[i]) <= PAGE_BYTES);
		contents += page_entry_contents(&entries[i]);
		page_entry_encode(again, &entries[i]);
		must(!memcmp(again, payload + i * PAGES_ENTRY, PAGES_ENTRY));
	}
	must(frame->length == frame->count * PAGES_ENTRY + contents);
}

static void check_bitmap(const struct frame *frame, const uint8_t *payload, uint64_t pages)
{
	uint64_t *words = calloc(BITMAP_WORDS_MAX, sizeof(*words)), first;
	uint8_t *again = malloc(8 + 8 * BITMAP_WORDS_MAX);

	must(words && again);
	if (taken(bitmap_decode(&first, words, frame, payload, pages, error))) {
		must(first % 64 == 0 && first / 64 + frame->count <= (pages + 63) / 64);
		must(bitmap_encode(again, first, words, frame->count) == frame->length);
		must(!memcmp(again, payload, frame->length));
	}
	free(words);
	free(again);
}

static void check_discard(const struct frame *frame, const uint8_t *payload, uint64_t pages)
{
	uint8_t again[DISCARD_RANGE * DISCARD_MAX];
	struct page_range ranges[DISCARD_MAX];

	if (!taken(discard_decode(ranges, frame, payload, pages, error)))
		return;
	for (uint32_t i = 0; i < frame->count; i++)
		must(ranges[i].first < ranges[i].end && ranges[i].end <= pages);
	must(discard_encode(again, ranges, frame->count) == frame->length);
	must(!memcmp(again, payload, frame->length));
}

static void check_payload(const struct frame *frame, const uint8_t *payload, uint8_t first)
{
	uint64_t pages = (first & 0x7f) * 3 + 1;

	switch (frame->type) {
	case FRAME_HELLO:
		check_hello(frame, payload, first);
		break;
	case FRAME_HELLO_ACK:
		check_hello_ack(payload, first);
		break;
	case FRAME_REFUSE:
	case FRAME_ERROR:
		check_text(payload, frame->length);
		break;
	case FRAME_JOIN:
		check_join(payload);
		break;
	case FRAME_RESUME:
		check_resume(payload);
		break;
	case FRAME_REQUEST:
		check_request(frame, payload, pages);
		break;
	case FRAME_PAGES:
		check_pages(frame, payload, pages);
		break;
	case FRAME_BITMAP:
		check_bitmap(frame, payload, pages);
		break;
	case FRAME_DISCARD:
		check_discard(frame, payload, pages);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint8_t first = input_u8(&input), header[FRAME_HEADER] = { 0 }, again[FRAME_HEADER];
	size_t header_size = FRAME_HEADER, length;
	const uint8_t *bytes;
	struct frame frame;
	uint8_t *payload;

	check_magic(input.data, input.left);
	bytes = input_bytes(&input, &header_size);
	memcpy(header, bytes, header_size);
	if (!(first & 0x80)) {
		for (int i = 0; i < 4; i++)
			header[4 + i] = (uint8_t)(input.left >> 8 * i);
	}
	if (!taken(frame_decode(&frame, header, error)))
		return 0;
	must(frame.length <= FRAME_PAYLOAD_MAX && frame.region < REGIONS_MAX);
	must(strcmp(frame_name(frame.type), "unknown"));
	frame_encode(again, &frame);
	must(!memcmp(again, header, sizeof(again)));

	/* Exactly as long as it says: nothing may be read beyond. */
	payload = calloc(1, frame.length);
	must(payload);
	length = frame.length;
	bytes = input_bytes(&input, &length);
	memcpy(payload, bytes, length);
	if (frame.type == FRAME_PAGES && frame.count * PAGES_ENTRY <= frame.length)
		payload = realloc(payload, frame.count * PAGES_ENTRY);
	check_payload(&frame, payload, first);
	free(payload);
	return 0;
}
