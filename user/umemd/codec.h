/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes to frames and back: Documentation/protocol.rst in C. Nothing here
 * believes a peer, reads a descriptor or keeps state.
 */
#ifndef UMEMD_CODEC_H
#define UMEMD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION	1
#define PROTOCOL_MIN_VERSION	1

#define MAGIC			"UMEM\r\n\x1a\n"
#define MAGIC_SIZE		8
#define SESSION_SIZE		16
#define FRAME_HEADER		16

#define PAGE_BYTES		4096
#define REGIONS_MAX		256
#define REGION_NAME_MAX		64	/* with the NUL */
#define PAGES_MAX		64	/* pages of one PAGES */
#define PAGES_ENTRY		16
#define COMPRESSED_MIN		9	/* bytes of a compressed page */
#define COMPRESSED_MAX		4032
#define REQUEST_MAX		512	/* pages of one REQUEST */
#define STATE_MAX		65536	/* bytes of one STATE */
#define BITMAP_WORDS_MAX	4096	/* words of one BITMAP */
#define DISCARD_RANGE		16	/* bytes of a range in DISCARD */
#define DISCARD_MAX		1024	/* ranges of one DISCARD */
#define CHANNELS_MAX		16	/* of a kind */
#define TEXT_MAX		1024	/* bytes of a text, without a NUL */

#define HELLO_FIXED		40
#define HELLO_REGION		72
#define HELLO_BYTES_MAX		(HELLO_FIXED + REGIONS_MAX * HELLO_REGION)
#define HELLO_ACK_BYTES		16
#define JOIN_BYTES		24
#define RESUME_BYTES		24
#define FRAME_PAYLOAD_MAX	(PAGES_MAX * (PAGES_ENTRY + PAGE_BYTES))

#define CODEC_ERROR_MAX		(TEXT_MAX + 512)

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_HELLO_ACK = 2,
	FRAME_REFUSE = 3,
	FRAME_JOIN = 4,
	FRAME_RESUME = 5,
	FRAME_PREPARED = 6,
	FRAME_STATE = 7,
	FRAME_STATE_END = 8,
	FRAME_READY = 9,
	FRAME_GO = 10,
	FRAME_REQUEST = 11,
	FRAME_PAGES = 12,
	FRAME_ALL_SENT = 13,
	FRAME_END = 14,
	FRAME_ERROR = 15,
	FRAME_CANCEL = 16,
	FRAME_BITMAP = 17,
	FRAME_PING = 18,
	FRAME_SYNC = 19,
	FRAME_DISCARD = 20,
	FRAME_PUBLISH = 21,
	FRAME_LEAVE = 22,
	FRAME_TYPES
};

#define FRAME_GO_RUN		(1 << 0)	/* GO, RESUME: the guest is to run */
#define FRAME_REQUEST_AGAIN	(1 << 0)	/* REQUEST: what came was damaged or lost */

#define FRAME_PAGES_COMPRESSED	(1 << 0)	/* PAGES: some may be compressed */
#define FRAME_PAGES_EARLY	(1 << 1)	/* PAGES: the guest still runs at the source */

#define FRAME_SYNC_LAST		(1 << 0)	/* SYNC: nothing early follows */

enum refuse_code {
	REFUSE_VERSION = 1,
	REFUSE_PAGE_SIZE = 2,
	REFUSE_REGIONS = 3,
	REFUSE_BUSY = 4,
	REFUSE_SESSION = 5,
	REFUSE_PROTOCOL = 6,
	REFUSE_FAILED = 7,
};

enum channel_kind {
	CHANNEL_CONTROL = 0,
	CHANNEL_URGENT = 1,
	CHANNEL_BULK = 2,
};

#define FEATURE_CHECKSUM	(1ULL << 0)
#define FEATURE_ZSTD		(1ULL << 1)
#define FEATURE_PRECOPY		(1ULL << 2)
#define FEATURES_KNOWN		(FEATURE_CHECKSUM | FEATURE_ZSTD | FEATURE_PRECOPY)

struct frame {
	uint16_t type;
	uint16_t flags;
	uint32_t length;
	uint32_t region;
	uint32_t count;
};

struct hello_region {
	char name[REGION_NAME_MAX];
	uint64_t length;
};

struct hello {
	uint32_t version;
	uint32_t min_version;
	uint64_t features;
	uint32_t page_size;
	uint8_t session[SESSION_SIZE];
	uint32_t nr_regions;
	struct hello_region regions[REGIONS_MAX];
};

struct hello_ack {
	uint32_t version;
	uint64_t features;
};

struct join {
	uint8_t session[SESSION_SIZE];
	uint32_t kind;
	uint32_t index;
};

struct resume {
	uint8_t session[SESSION_SIZE];
	uint32_t version;
};

/* Pages [@first, @end) of a region. */
struct page_range {
	uint64_t first, end;
};

/**
 * struct page_entry - of a page in a PAGES frame
 * @checksum: of the page, compressed or not
 * @zero: no contents follow
 * @compressed: bytes of its contents in the frame; 0: all of the page
 */
struct page_entry {
	uint64_t offset;
	uint64_t checksum;
	bool zero;
	uint16_t compressed;
};

const char *frame_name(uint16_t type);
const char *channel_name(enum channel_kind kind);

/* A sentence of at most CODEC_ERROR_MAX bytes into @error. Return: -EPROTO. */
int wrong(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * The decoders below return 0, or -EPROTO with a sentence of at most
 * CODEC_ERROR_MAX bytes in @error that says what came and what was wanted.
 */

/**
 * magic_check - are these the first bytes of a umem peer?
 * @bytes: what came
 * @size: how many, up to MAGIC_SIZE
 * @wanted: MAGIC, or MUX_MAGIC of a stream; of the same size
 * @error: as above; names what it looks like instead
 */
int magic_check(const uint8_t *bytes, size_t size, const char *wanted, char *error);

void frame_encode(uint8_t bytes[FRAME_HEADER], const struct frame *frame);

/**
 * frame_decode - a header, checked against the limits of its type
 *
 * After it @length is not above FRAME_PAYLOAD_MAX, fits @count exactly where
 * the type has one, and what the type does not use is zero.
 */
int frame_decode(struct frame *frame, const uint8_t bytes[FRAME_HEADER], char *error);

/* Return: the size of the payload. */
size_t hello_encode(uint8_t *payload, const struct hello *hello);

/**
 * hello_decode - what a source offers
 *
 * If the versions do not overlap only @version and @min_version are filled:
 * nothing more is known of such a HELLO. See hello_version().
 */
int hello_decode(struct hello *hello, const struct frame *frame, const uint8_t *payload,
		 char *error);

/* Return: the version to speak; 0 if there is none in common. */
uint32_t hello_version(const struct hello *hello);

/**
 * hello_match - do the regions of both sides agree?
 * @ours: the regions of this side
 * @count: how many
 * @index: filled: @index[n] is our region that the source calls n
 * @error: names the first that does not agree, and both values
 */
int hello_match(const struct hello *hello, const struct hello_region *ours, uint32_t count,
		uint32_t *index, char *error);

void hello_ack_encode(uint8_t payload[HELLO_ACK_BYTES], const struct hello_ack *ack);
int hello_ack_decode(struct hello_ack *ack, const uint8_t *payload, uint64_t offered, char *error);

void join_encode(uint8_t payload[JOIN_BYTES], const struct join *join);
int join_decode(struct join *join, const uint8_t *payload, char *error);

void resume_encode(uint8_t payload[RESUME_BYTES], const struct resume *resume);
int resume_decode(struct resume *resume, const uint8_t *payload, char *error);

/**
 * text_decode - text of REFUSE and ERROR, fit for a terminal and for JSON
 * @text: TEXT_MAX + 1 bytes; what is not printable ASCII becomes '?'
 */
void text_decode(char *text, const uint8_t *payload, size_t size);

/* Return: the size of the payload. */
size_t request_encode(uint8_t *payload, const uint64_t *pages, uint32_t count);

/**
 * request_decode - page numbers, all inside a region of @region_pages
 * @pages: REQUEST_MAX of them
 */
int request_decode(uint64_t *pages, const struct frame *frame, const uint8_t *payload,
		   uint64_t region_pages, char *error);

/* Return: bytes of its contents in the frame. */
uint32_t page_entry_contents(const struct page_entry *entry);

void page_entry_encode(uint8_t bytes[PAGES_ENTRY], const struct page_entry *entry);

/**
 * pages_decode - the entries of a PAGES frame
 * @entries: PAGES_MAX of them; what they say to follow is what follows, exactly
 * @region_pages: pages of the region, which must exist
 */
int pages_decode(struct page_entry *entries, const struct frame *frame, const uint8_t *payload,
		 uint64_t region_pages, char *error);

/* Return: the size of the payload. */
size_t bitmap_encode(uint8_t *payload, uint64_t first, const uint64_t *words, uint32_t count);

/**
 * bitmap_decode - a piece of a present bitmap
 * @first: number of its first page, a multiple of 64
 * @words: BITMAP_WORDS_MAX of them
 */
int bitmap_decode(uint64_t *first, uint64_t *words, const struct frame *frame,
		  const uint8_t *payload, uint64_t region_pages, char *error);

/* Return: the size of the payload. */
size_t discard_encode(uint8_t *payload, const struct page_range *ranges, uint32_t count);

/**
 * discard_decode - ranges of pages, none empty, all inside a region of @region_pages
 * @ranges: DISCARD_MAX of them
 */
int discard_decode(struct page_range *ranges, const struct frame *frame, const uint8_t *payload,
		   uint64_t region_pages, char *error);

/**
 * region_name_valid - printable ASCII without a colon, 1 to 63 characters
 */
bool region_name_valid(const char *name, size_t size);

#endif
