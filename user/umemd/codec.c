// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/codec.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/util.h"

/* What a header of each type may say. @each: bytes of payload a @count. */
static const struct frame_rule {
	const char *name;
	uint32_t min_length, max_length;
	uint32_t max_count;	/* 0: count must be 0 */
	uint32_t fixed, each;	/* length is fixed + each * count, if each is not 0 */
	uint16_t flags;
	bool region;
} frame_rules[FRAME_TYPES] = {
	/* A later version's HELLO may be longer: its versions come first. */
	[FRAME_HELLO] = { "HELLO", 8, HELLO_BYTES_MAX, .max_count = UINT32_MAX },
	[FRAME_HELLO_ACK] = { "HELLO_ACK", HELLO_ACK_BYTES, HELLO_ACK_BYTES },
	[FRAME_REFUSE] = { "REFUSE", 0, TEXT_MAX, .max_count = UINT32_MAX },
	[FRAME_JOIN] = { "JOIN", JOIN_BYTES, JOIN_BYTES },
	[FRAME_RESUME] = { "RESUME", RESUME_BYTES, RESUME_BYTES, .flags = FRAME_GO_RUN },
	[FRAME_PREPARED] = { "PREPARED" },
	[FRAME_STATE] = { "STATE", 1, STATE_MAX },
	[FRAME_STATE_END] = { "STATE_END" },
	[FRAME_READY] = { "READY" },
	[FRAME_GO] = { "GO", .flags = FRAME_GO_RUN },
	[FRAME_REQUEST] = { "REQUEST", 8, 8 * REQUEST_MAX, REQUEST_MAX, 0, 8,
			    FRAME_REQUEST_AGAIN, true },
	[FRAME_PAGES] = { "PAGES", PAGES_ENTRY, FRAME_PAYLOAD_MAX, PAGES_MAX,
			  .flags = FRAME_PAGES_COMPRESSED | FRAME_PAGES_EARLY, .region = true },
	[FRAME_ALL_SENT] = { "ALL_SENT" },
	[FRAME_END] = { "END" },
	[FRAME_ERROR] = { "ERROR", 0, TEXT_MAX },
	[FRAME_CANCEL] = { "CANCEL" },
	[FRAME_BITMAP] = { "BITMAP", 16, 8 + 8 * BITMAP_WORDS_MAX, BITMAP_WORDS_MAX, 8, 8,
			   .region = true },
	[FRAME_PING] = { "PING" },
	[FRAME_SYNC] = { "SYNC", .max_count = CHANNELS_MAX, .flags = FRAME_SYNC_LAST },
	[FRAME_DISCARD] = { "DISCARD", DISCARD_RANGE, DISCARD_RANGE * DISCARD_MAX, DISCARD_MAX,
			    0, DISCARD_RANGE, .region = true },
	[FRAME_PUBLISH] = { "PUBLISH" },
	[FRAME_LEAVE] = { "LEAVE" },
};

int wrong(char *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, CODEC_ERROR_MAX, format, args);
	va_end(args);
	return -EPROTO;
}

static void put16(uint8_t *p, uint16_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *p, uint32_t value)
{
	put16(p, (uint16_t)value);
	put16(p + 2, (uint16_t)(value >> 16));
}

static void put64(uint8_t *p, uint64_t value)
{
	put32(p, (uint32_t)value);
	put32(p + 4, (uint32_t)(value >> 32));
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

const char *frame_name(uint16_t type)
{
	return type < FRAME_TYPES && frame_rules[type].name ? frame_rules[type].name : "unknown";
}

const char *channel_name(enum channel_kind kind)
{
	static const char *const names[] = { "control", "urgent", "bulk" };

	return names[kind];
}

int magic_check(const uint8_t *bytes, size_t size, const char *wanted, char *error)
{
	static const struct {
		const char *start;
		const char *meaning;
	} known[] = {
		{ "QEVM", "; this is a migration stream of QEMU itself: start the source with umem-qemu and migrate -p" },
		{ "GET ", "; this is a browser" },
		{ "POST", "; this is a browser" },
		{ "HTTP", "; this is a web server" },
		{ "SSH-", "; this is an SSH server" },
		{ "{\"QM", "; this is a QMP monitor" },
		{ "UMUX", "; this is the one stream of fd: or exec:, wanted the connections of tcp: or unix:" },
		{ "UMEM", "; this is a connection of tcp: or unix:, wanted the one stream of fd: or exec:" },
	};
	static const char tls[] = "; it speaks TLS, wanted none: set tls-creds at both sides, or at neither";
	char shown[MAGIC_SIZE * 4 + 1];
	const char *meaning = "";
	size_t used = 0;

	if (size == MAGIC_SIZE && !memcmp(bytes, wanted, MAGIC_SIZE))
		return 0;
	if (!size)
		return wrong(error, "not a umem peer: it sent nothing, wanted \"%.4s\"", wanted);
	for (size_t i = 0; i < size; i++) {
		const char *format = bytes[i] >= 0x20 && bytes[i] < 0x7f ? "%c" : "\\x%02x";

		used += (size_t)sprintf(shown + used, format, bytes[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (size >= 4 && !memcmp(bytes, known[i].start, 4) && memcmp(bytes, wanted, 4))
			meaning = known[i].meaning;
	}
	if (size >= 2 && bytes[0] >= 20 && bytes[0] <= 23 && bytes[1] == 3)	/* a record of it */
		meaning = tls;
	return wrong(error, "not a umem peer: got \"%s\", wanted \"%.4s\"%s", shown, wanted, meaning);
}

void frame_encode(uint8_t bytes[FRAME_HEADER], const struct frame *frame)
{
	put16(bytes, frame->type);
	put16(bytes + 2, frame->flags);
	put32(bytes + 4, frame->length);
	put32(bytes + 8, frame->region);
	put32(bytes + 12, frame->count);
}

static int check_pages_length(const struct frame *frame, char *error)
{
	uint32_t data = frame->length - frame->count * PAGES_ENTRY;
	bool compressed = frame->flags & FRAME_PAGES_COMPRESSED;

	if (compressed && (frame->length < frame->count * PAGES_ENTRY ||
			   data > frame->count * PAGE_BYTES))
		return wrong(error,
			     "frame PAGES of %u pages, some compressed, has %u bytes, wanted %u to %u",
			     frame->count, frame->length, frame->count * PAGES_ENTRY,
			     frame->count * (PAGES_ENTRY + PAGE_BYTES));
	if (compressed)
		return 0;
	if (frame->length < frame->count * PAGES_ENTRY || data % PAGE_BYTES ||
	    data / PAGE_BYTES > frame->count)
		return wrong(error,
			     "frame PAGES of %u pages has %u bytes, wanted %u and at most %u times %u",
			     frame->count, frame->length, frame->count * PAGES_ENTRY,
			     frame->count, PAGE_BYTES);
	return 0;
}

int frame_decode(struct frame *frame, const uint8_t bytes[FRAME_HEADER], char *error)
{
	const struct frame_rule *rule;

	frame->type = get16(bytes);
	frame->flags = get16(bytes + 2);
	frame->length = get32(bytes + 4);
	frame->region = get32(bytes + 8);
	frame->count = get32(bytes + 12);

	if (frame->type >= FRAME_TYPES || !frame_rules[frame->type].name)
		return wrong(error, "frame type %u is unknown, wanted 1 to %u", frame->type,
			     FRAME_TYPES - 1);
	rule = &frame_rules[frame->type];
	if (frame->length < rule->min_length || frame->length > rule->max_length)
		return wrong(error, "frame %s has %u bytes, wanted %u to %u", rule->name,
			     frame->length, rule->min_length, rule->max_length);
	if (frame->flags & ~rule->flags)
		return wrong(error, "frame %s has flags 0x%x, wanted only those of 0x%x",
			     rule->name, frame->flags, rule->flags);
	if (!rule->region && frame->region)
		return wrong(error, "frame %s has region %u, wanted 0", rule->name, frame->region);
	if (frame->region >= REGIONS_MAX)
		return wrong(error, "frame %s has region %u, wanted 0 to %u", rule->name,
			     frame->region, REGIONS_MAX - 1);
	if (!rule->max_count) {
		if (frame->count)
			return wrong(error, "frame %s has count %u, wanted 0", rule->name,
				     frame->count);
		return 0;
	}
	if (frame->count < 1 || frame->count > rule->max_count)
		return wrong(error, "frame %s has count %u, wanted 1 to %u", rule->name,
			     frame->count, rule->max_count);
	if (rule->each && frame->length != rule->fixed + rule->each * frame->count)
		return wrong(error, "frame %s with count %u has %u bytes, wanted %u", rule->name,
			     frame->count, frame->length,
			     rule->fixed + rule->each * frame->count);
	if (frame->type == FRAME_PAGES)
		return check_pages_length(frame, error);
	return 0;
}

bool region_name_valid(const char *name, size_t size)
{
	if (!size || size >= REGION_NAME_MAX)
		return false;
	for (size_t i = 0; i < size; i++) {
		if (name[i] < 0x20 || name[i] > 0x7e || name[i] == ':')
			return false;
	}
	return true;
}

size_t hello_encode(uint8_t *payload, const struct hello *hello)
{
	uint8_t *p = payload + HELLO_FIXED;

	memset(payload, 0, HELLO_FIXED + hello->nr_regions * HELLO_REGION);
	put32(payload, hello->version);
	put32(payload + 4, hello->min_version);
	put64(payload + 8, hello->features);
	put32(payload + 16, hello->page_size);
	memcpy(payload + 24, hello->session, SESSION_SIZE);
	for (uint32_t i = 0; i < hello->nr_regions; i++, p += HELLO_REGION) {
		put64(p, hello->regions[i].length);
		memcpy(p + 8, hello->regions[i].name, strlen(hello->regions[i].name));
	}
	return HELLO_FIXED + hello->nr_regions * HELLO_REGION;
}

uint32_t hello_version(const struct hello *hello)
{
	uint32_t version = min(hello->version, (uint32_t)PROTOCOL_VERSION);

	if (version < PROTOCOL_MIN_VERSION || version < hello->min_version)
		return 0;
	return version;
}

static int decode_region(struct hello *hello, uint32_t n, const uint8_t *p, char *error)
{
	struct hello_region *region = &hello->regions[n];
	size_t size = strnlen((const char *)p + 8, REGION_NAME_MAX);

	region->length = get64(p);
	memcpy(region->name, p + 8, REGION_NAME_MAX);
	if (!region_name_valid(region->name, size))
		return wrong(error, "the name of region %u is not 1 to %d printable characters without ':'",
			     n, REGION_NAME_MAX - 1);
	for (size_t i = size; i < REGION_NAME_MAX; i++) {
		if (region->name[i])
			return wrong(error, "the name of region \"%s\" is not padded with zeroes",
				     region->name);
	}
	if (!region->length || region->length % PAGE_BYTES || region->length > INT64_MAX)
		return wrong(error, "region \"%s\": the source has %llu bytes, wanted a positive multiple of %u",
			     region->name, (unsigned long long)region->length, PAGE_BYTES);
	for (uint32_t i = 0; i < n; i++) {
		if (!strcmp(hello->regions[i].name, region->name))
			return wrong(error, "region \"%s\" is there twice at the source",
				     region->name);
	}
	return 0;
}

int hello_decode(struct hello *hello, const struct frame *frame, const uint8_t *payload,
		 char *error)
{
	int err;

	memset(hello, 0, sizeof(*hello));
	hello->version = get32(payload);
	hello->min_version = get32(payload + 4);
	if (!hello->min_version || hello->min_version > hello->version)
		return wrong(error, "HELLO offers the versions %u to %u, wanted a range above 0",
			     hello->min_version, hello->version);
	if (!hello_version(hello))
		return 0;

	if (frame->count > REGIONS_MAX ||
	    frame->length != HELLO_FIXED + frame->count * HELLO_REGION)
		return wrong(error, "HELLO with %u regions has %u bytes, wanted %u, and %u regions at most",
			     frame->count, frame->length,
			     HELLO_FIXED + min(frame->count, (uint32_t)REGIONS_MAX) * HELLO_REGION,
			     REGIONS_MAX);
	hello->features = get64(payload + 8);
	hello->page_size = get32(payload + 16);
	if (get32(payload + 20))
		return wrong(error, "HELLO has %u where 0 is wanted", get32(payload + 20));
	memcpy(hello->session, payload + 24, SESSION_SIZE);
	for (hello->nr_regions = 0; hello->nr_regions < frame->count; hello->nr_regions++) {
		err = decode_region(hello, hello->nr_regions,
				    payload + HELLO_FIXED + hello->nr_regions * HELLO_REGION,
				    error);
		if (err)
			return err;
	}
	return 0;
}

static const struct hello_region *region_named(const struct hello_region *regions, uint32_t count,
					       const char *name)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!strcmp(regions[i].name, name))
			return &regions[i];
	}
	return NULL;
}

/* "a" 4096 bytes, "b" 8192 bytes: as many as fit. */
static void list_regions(char *text, size_t size, const struct hello_region *regions,
			 uint32_t count)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < count; i++) {
		int n = snprintf(text + used, size - used, "%s\"%s\" of %llu bytes",
				 i ? ", " : "", regions[i].name,
				 (unsigned long long)regions[i].length);

		if (n < 0 || (size_t)n >= size - used) {
			snprintf(text + min(used, size - 6), 6, ", ...");
			return;
		}
		used += (size_t)n;
	}
}

int hello_match(const struct hello *hello, const struct hello_region *ours, uint32_t count,
		uint32_t *index, char *error)
{
	char list[400];

	for (uint32_t i = 0; i < hello->nr_regions; i++) {
		const struct hello_region *theirs = &hello->regions[i];
		const struct hello_region *mine = region_named(ours, count, theirs->name);

		if (!mine) {
			list_regions(list, sizeof(list), ours, count);
			return wrong(error, "region \"%s\" of %llu bytes is at the source, the destination has only %s",
				     theirs->name, (unsigned long long)theirs->length, list);
		}
		if (mine->length != theirs->length)
			return wrong(error, "region \"%s\" has %llu bytes at the source, %llu bytes at the destination",
				     theirs->name, (unsigned long long)theirs->length,
				     (unsigned long long)mine->length);
		index[i] = (uint32_t)(mine - ours);
	}
	for (uint32_t i = 0; i < count; i++) {
		if (!region_named(hello->regions, hello->nr_regions, ours[i].name)) {
			list_regions(list, sizeof(list), hello->regions, hello->nr_regions);
			return wrong(error, "region \"%s\" of %llu bytes is at the destination, the source has only %s",
				     ours[i].name, (unsigned long long)ours[i].length, list);
		}
	}
	return 0;
}

void hello_ack_encode(uint8_t payload[HELLO_ACK_BYTES], const struct hello_ack *ack)
{
	put32(payload, ack->version);
	put32(payload + 4, 0);
	put64(payload + 8, ack->features);
}

int hello_ack_decode(struct hello_ack *ack, const uint8_t *payload, uint64_t offered, char *error)
{
	ack->version = get32(payload);
	ack->features = get64(payload + 8);
	if (ack->version < PROTOCOL_MIN_VERSION || ack->version > PROTOCOL_VERSION)
		return wrong(error, "HELLO_ACK chooses version %u, wanted %u to %u", ack->version,
			     PROTOCOL_MIN_VERSION, PROTOCOL_VERSION);
	if (get32(payload + 4))
		return wrong(error, "HELLO_ACK has %u where 0 is wanted", get32(payload + 4));
	if (ack->features & ~offered)
		return wrong(error, "HELLO_ACK chooses features 0x%llx, offered were 0x%llx",
			     (unsigned long long)ack->features, (unsigned long long)offered);
	return 0;
}

void join_encode(uint8_t payload[JOIN_BYTES], const struct join *join)
{
	memcpy(payload, join->session, SESSION_SIZE);
	put32(payload + 16, join->kind);
	put32(payload + 20, join->index);
}

int join_decode(struct join *join, const uint8_t *payload, char *error)
{
	memcpy(join->session, payload, SESSION_SIZE);
	join->kind = get32(payload + 16);
	join->index = get32(payload + 20);
	if (join->kind != CHANNEL_URGENT && join->kind != CHANNEL_BULK)
		return wrong(error, "JOIN has kind %u, wanted %u (urgent) or %u (bulk)",
			     join->kind, CHANNEL_URGENT, CHANNEL_BULK);
	if (join->index >= CHANNELS_MAX)
		return wrong(error, "JOIN has index %u, wanted 0 to %u", join->index,
			     CHANNELS_MAX - 1);
	return 0;
}

void resume_encode(uint8_t payload[RESUME_BYTES], const struct resume *resume)
{
	memcpy(payload, resume->session, SESSION_SIZE);
	put32(payload + 16, resume->version);
	put32(payload + 20, 0);
}

int resume_decode(struct resume *resume, const uint8_t *payload, char *error)
{
	memcpy(resume->session, payload, SESSION_SIZE);
	resume->version = get32(payload + 16);
	if (resume->version < PROTOCOL_MIN_VERSION || resume->version > PROTOCOL_VERSION)
		return wrong(error, "RESUME has version %u, wanted %u to %u", resume->version,
			     PROTOCOL_MIN_VERSION, PROTOCOL_VERSION);
	if (get32(payload + 20))
		return wrong(error, "RESUME has %u where 0 is wanted", get32(payload + 20));
	return 0;
}

void text_decode(char *text, const uint8_t *payload, size_t size)
{
	size = min(size, (size_t)TEXT_MAX);
	for (size_t i = 0; i < size; i++)
		text[i] = payload[i] >= 0x20 && payload[i] < 0x7f ? (char)payload[i] : '?';
	text[size] = '\0';
}

static int check_offset(const char *name, uint64_t offset, uint64_t region_pages, char *error)
{
	if (offset % PAGE_BYTES || offset / PAGE_BYTES >= region_pages)
		return wrong(error, "frame %s has offset %llu, wanted a multiple of %u below %llu",
			     name, (unsigned long long)offset, PAGE_BYTES,
			     (unsigned long long)(region_pages * PAGE_BYTES));
	return 0;
}

size_t request_encode(uint8_t *payload, const uint64_t *pages, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		put64(payload + 8 * i, pages[i] * PAGE_BYTES);
	return 8 * (size_t)count;
}

int request_decode(uint64_t *pages, const struct frame *frame, const uint8_t *payload,
		   uint64_t region_pages, char *error)
{
	for (uint32_t i = 0; i < frame->count; i++) {
		uint64_t offset = get64(payload + 8 * i);
		int err = check_offset("REQUEST", offset, region_pages, error);

		if (err)
			return err;
		pages[i] = offset / PAGE_BYTES;
	}
	return 0;
}

void page_entry_encode(uint8_t bytes[PAGES_ENTRY], const struct page_entry *entry)
{
	put64(bytes, entry->offset | (entry->zero ? 1 : entry->compressed));
	put64(bytes + 8, entry->checksum);
}

uint32_t page_entry_contents(const struct page_entry *entry)
{
	if (entry->zero)
		return 0;
	return entry->compressed ? entry->compressed : PAGE_BYTES;
}

/* The lowest 12 bits of an entry: what follows of the page. */
static int decode_contents(struct page_entry *entry, bool compressed, char *error)
{
	uint32_t size = entry->offset % PAGE_BYTES;

	entry->zero = size == 1;
	entry->compressed = 0;
	if (size <= 1 || !compressed) {
		entry->offset &= ~1ULL;
		return 0;
	}
	if (size < COMPRESSED_MIN || size > COMPRESSED_MAX)
		return wrong(error, "frame PAGES has a compressed page of %u bytes, wanted %u to %u",
			     size, COMPRESSED_MIN, COMPRESSED_MAX);
	entry->compressed = (uint16_t)size;
	entry->offset -= size;
	return 0;
}

int pages_decode(struct page_entry *entries, const struct frame *frame, const uint8_t *payload,
		 uint64_t region_pages, char *error)
{
	uint32_t data = frame->length - frame->count * PAGES_ENTRY, wanted = 0;

	for (uint32_t i = 0; i < frame->count; i++) {
		struct page_entry *entry = &entries[i];
		int err;

		entry->offset = get64(payload + i * PAGES_ENTRY);
		entry->checksum = get64(payload + i * PAGES_ENTRY + 8);
		err = decode_contents(entry, frame->flags & FRAME_PAGES_COMPRESSED, error);
		if (!err)
			err = check_offset("PAGES", entry->offset, region_pages, error);
		if (err)
			return err;
		wanted += page_entry_contents(entry);
	}
	if (data != wanted)
		return wrong(error, "frame PAGES has %u bytes of contents, wanted %u", data,
			     wanted);
	return 0;
}

size_t bitmap_encode(uint8_t *payload, uint64_t first, const uint64_t *words, uint32_t count)
{
	put64(payload, first);
	for (uint32_t i = 0; i < count; i++)
		put64(payload + 8 + 8 * i, words[i]);
	return 8 + 8 * (size_t)count;
}

int bitmap_decode(uint64_t *first, uint64_t *words, const struct frame *frame,
		  const uint8_t *payload, uint64_t region_pages, char *error)
{
	uint64_t total = (region_pages + 63) / 64;

	*first = get64(payload);
	if (*first % 64 || *first / 64 >= total || frame->count > total - *first / 64)
		return wrong(error, "frame BITMAP of %u words starts at page %llu, wanted a multiple of 64 and no more than %llu pages",
			     frame->count, (unsigned long long)*first,
			     (unsigned long long)region_pages);
	for (uint32_t i = 0; i < frame->count; i++)
		words[i] = get64(payload + 8 + 8 * i);
	return 0;
}

size_t discard_encode(uint8_t *payload, const struct page_range *ranges, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *p = payload + i * DISCARD_RANGE;

		put64(p, ranges[i].first * PAGE_BYTES);
		put64(p + 8, (ranges[i].end - ranges[i].first) * PAGE_BYTES);
	}
	return DISCARD_RANGE * (size_t)count;
}

int discard_decode(struct page_range *ranges, const struct frame *frame, const uint8_t *payload,
		   uint64_t region_pages, char *error)
{
	for (uint32_t i = 0; i < frame->count; i++) {
		uint64_t offset = get64(payload + i * DISCARD_RANGE);
		uint64_t length = get64(payload + i * DISCARD_RANGE + 8);
		int err = check_offset("DISCARD", offset, region_pages, error);

		if (err)
			return err;
		if (!length || length % PAGE_BYTES ||
		    length / PAGE_BYTES > region_pages - offset / PAGE_BYTES)
			return wrong(error, "frame DISCARD has %llu bytes from offset %llu, wanted a multiple of %u up to %llu",
				     (unsigned long long)length, (unsigned long long)offset,
				     PAGE_BYTES,
				     (unsigned long long)(region_pages * PAGE_BYTES - offset));
		ranges[i].first = offset / PAGE_BYTES;
		ranges[i].end = (offset + length) / PAGE_BYTES;
	}
	return 0;
}
