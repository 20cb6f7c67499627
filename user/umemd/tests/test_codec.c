// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"

static char error[CODEC_ERROR_MAX];

static void expect_error(int err, const char *part)
{
	assert_int_equal(err, -EPROTO);
	if (!strstr(error, part))
		fail_msg("\"%s\", wanted \"%s\" in it", error, part);
}

/* Magic. */

static void test_magic(void **state)
{
	(void)state;
	assert_int_equal(magic_check((const uint8_t *)MAGIC, MAGIC_SIZE, MAGIC, error), 0);
	/* At every length below the whole it is not the magic yet. */
	for (size_t size = 0; size < MAGIC_SIZE; size++)
		assert_int_equal(magic_check((const uint8_t *)MAGIC, size, MAGIC, error), -EPROTO);
	/* Any changed byte makes it something else. */
	for (size_t i = 0; i < MAGIC_SIZE; i++) {
		uint8_t bytes[MAGIC_SIZE];

		memcpy(bytes, MAGIC, MAGIC_SIZE);
		bytes[i] ^= 0x20;
		assert_int_equal(magic_check(bytes, MAGIC_SIZE, MAGIC, error), -EPROTO);
	}
}

static void test_what_else_may_come_is_named(void **state)
{
	(void)state;
	expect_error(magic_check((const uint8_t *)"GET / HTTP", 8, MAGIC, error),
		     "got \"GET / HT\", wanted \"UMEM\"; this is a browser");
	expect_error(magic_check((const uint8_t *)"QEVM\0\0\0\3", 8, MAGIC, error),
		     "got \"QEVM\\x00\\x00\\x00\\x03\", wanted \"UMEM\"; this is a migration stream of QEMU");
	expect_error(magic_check((const uint8_t *)"SSH-2.0-", 8, MAGIC, error), "an SSH server");
	expect_error(magic_check((const uint8_t *)"\xff\xfe", 2, MAGIC, error),
		     "got \"\\xff\\xfe\", wanted \"UMEM\"");
	expect_error(magic_check(NULL, 0, MAGIC, error), "it sent nothing, wanted \"UMEM\"");
}

/* Headers. */

static int decode(struct frame frame)
{
	uint8_t bytes[FRAME_HEADER];
	struct frame got;
	int err;

	frame_encode(bytes, &frame);
	error[0] = '\0';
	err = frame_decode(&got, bytes, error);
	if (!err)
		assert_memory_equal(&got, &frame, sizeof(frame));
	return err;
}

#define good(...) assert_int_equal(decode((struct frame){ __VA_ARGS__ }), 0)
#define bad(part, ...) expect_error(decode((struct frame){ __VA_ARGS__ }), part)

static void test_header_bytes_are_little_endian(void **state)
{
	static const uint8_t wanted[FRAME_HEADER] = {
		0x0b, 0, 0x01, 0, 0x10, 0, 0, 0, 0x03, 0, 0, 0, 0x02, 0, 0, 0,
	};
	struct frame frame = { FRAME_REQUEST, FRAME_REQUEST_AGAIN, 16, 3, 2 };
	uint8_t bytes[FRAME_HEADER];

	(void)state;
	frame_encode(bytes, &frame);
	assert_memory_equal(bytes, wanted, sizeof(wanted));
}

static void test_good_headers(void **state)
{
	(void)state;
	good(FRAME_HELLO, 0, 112, 0, 1);
	good(FRAME_HELLO_ACK, 0, 16, 0, 0);
	good(FRAME_REFUSE, 0, 0, 0, REFUSE_BUSY);
	good(FRAME_REFUSE, 0, TEXT_MAX, 0, UINT32_MAX);
	good(FRAME_JOIN, 0, 24, 0, 0);
	good(FRAME_RESUME, FRAME_GO_RUN, 24, 0, 0);
	good(FRAME_PREPARED, 0, 0, 0, 0);
	good(FRAME_STATE, 0, 1, 0, 0);
	good(FRAME_STATE, 0, STATE_MAX, 0, 0);
	good(FRAME_STATE_END, 0, 0, 0, 0);
	good(FRAME_READY, 0, 0, 0, 0);
	good(FRAME_GO, FRAME_GO_RUN, 0, 0, 0);
	good(FRAME_REQUEST, 0, 8 * REQUEST_MAX, 255, REQUEST_MAX);
	good(FRAME_PAGES, 0, 16, 0, 1);
	good(FRAME_PAGES, 0, PAGES_MAX * (16 + 4096), 0, PAGES_MAX);
	good(FRAME_PAGES, FRAME_PAGES_COMPRESSED, 16, 0, 1);
	good(FRAME_PAGES, FRAME_PAGES_COMPRESSED, 2 * 16 + 5000, 0, 2);
	good(FRAME_PAGES, FRAME_PAGES_COMPRESSED, PAGES_MAX * (16 + 4096), 0, PAGES_MAX);
	good(FRAME_ALL_SENT, 0, 0, 0, 0);
	good(FRAME_END, 0, 0, 0, 0);
	good(FRAME_ERROR, 0, 5, 0, 0);
	good(FRAME_CANCEL, 0, 0, 0, 0);
	good(FRAME_BITMAP, 0, 16, 0, 1);
	good(FRAME_BITMAP, 0, 8 + 8 * BITMAP_WORDS_MAX, 255, BITMAP_WORDS_MAX);
	good(FRAME_PING, 0, 0, 0, 0);
	good(FRAME_PAGES, FRAME_PAGES_EARLY | FRAME_PAGES_COMPRESSED, 16, 0, 1);
	good(FRAME_SYNC, 0, 0, 0, 1);
	good(FRAME_SYNC, FRAME_SYNC_LAST, 0, 0, 16);
	good(FRAME_DISCARD, 0, DISCARD_RANGE, 255, 1);
	good(FRAME_DISCARD, 0, DISCARD_RANGE * DISCARD_MAX, 0, DISCARD_MAX);
	good(FRAME_PUBLISH, 0, 0, 0, 0);
}

static void test_hostile_headers(void **state)
{
	(void)state;
	bad("frame type 0 is unknown, wanted 1 to 22", 0, 0, 0, 0, 0);
	bad("frame type 23 is unknown", FRAME_TYPES, 0, 0, 0, 0);
	bad("frame type 65535 is unknown", 65535, 0, 0, 0, 0);
	bad("frame HELLO has 7 bytes, wanted 8 to", FRAME_HELLO, 0, 7, 0, 1);
	bad("frame HELLO has 4294967295 bytes", FRAME_HELLO, 0, UINT32_MAX, 0, 1);
	bad("frame HELLO_ACK has 15 bytes, wanted 16 to 16", FRAME_HELLO_ACK, 0, 15, 0, 0);
	bad("frame REFUSE has 1025 bytes", FRAME_REFUSE, 0, TEXT_MAX + 1, 0, 1);
	bad("frame STATE has 0 bytes, wanted 1 to 65536", FRAME_STATE, 0, 0, 0, 0);
	bad("frame STATE has 65537 bytes", FRAME_STATE, 0, STATE_MAX + 1, 0, 0);
	bad("frame READY has 1 bytes, wanted 0 to 0", FRAME_READY, 0, 1, 0, 0);
	bad("frame GO has flags 0x2, wanted only those of 0x1", FRAME_GO, 2, 0, 0, 0);
	bad("frame END has flags 0x8000", FRAME_END, 0x8000, 0, 0, 0);
	bad("frame GO has region 1, wanted 0", FRAME_GO, 0, 0, 1, 0);
	bad("frame GO has count 1, wanted 0", FRAME_GO, 0, 0, 0, 1);
	bad("frame REQUEST has region 256, wanted 0 to 255", FRAME_REQUEST, 0, 8, 256, 1);
	bad("frame REQUEST has count 0, wanted 1 to 512", FRAME_REQUEST, 0, 8, 0, 0);
	bad("frame REQUEST with count 2 has 8 bytes, wanted 16", FRAME_REQUEST, 0, 8, 0, 2);
	bad("frame REQUEST has count 513", FRAME_REQUEST, 0, 8, 0, 513);
	/* 8 * 0x20000001 wraps to 8. */
	bad("frame REQUEST has count 536870913", FRAME_REQUEST, 0, 8, 0, 0x20000001);
	bad("frame BITMAP with count 2 has 16 bytes, wanted 24", FRAME_BITMAP, 0, 16, 0, 2);
	bad("frame BITMAP has count 4097", FRAME_BITMAP, 0, 16, 0, 4097);
	bad("frame PAGES has count 65", FRAME_PAGES, 0, 65 * 16, 0, 65);
	bad("frame PAGES of 2 pages has 16 bytes", FRAME_PAGES, 0, 16, 0, 2);
	bad("frame PAGES of 1 pages has 17 bytes", FRAME_PAGES, 0, 17, 0, 1);
	bad("frame PAGES of 1 pages has 8208 bytes", FRAME_PAGES, 0, 16 + 8192, 0, 1);
	bad("frame PAGES has flags 0x4, wanted only those of 0x3", FRAME_PAGES, 4, 16, 0, 1);
	bad("frame PAGES of 2 pages, some compressed, has 31 bytes, wanted 32 to 8224", FRAME_PAGES,
	    FRAME_PAGES_COMPRESSED, 31, 0, 2);
	bad("frame PAGES of 2 pages, some compressed, has 8225 bytes", FRAME_PAGES,
	    FRAME_PAGES_COMPRESSED, 8225, 0, 2);
	bad("frame PAGES has 4294967295 bytes", FRAME_PAGES, 0, UINT32_MAX, 0, 1);
	bad("frame SYNC has count 0, wanted 1 to 16", FRAME_SYNC, 0, 0, 0, 0);
	bad("frame SYNC has count 17", FRAME_SYNC, 0, 0, 0, 17);
	bad("frame SYNC has flags 0x2, wanted only those of 0x1", FRAME_SYNC, 2, 0, 0, 1);
	bad("frame DISCARD with count 2 has 16 bytes, wanted 32", FRAME_DISCARD, 0, 16, 0, 2);
	bad("frame DISCARD has 16400 bytes", FRAME_DISCARD, 0, 16400, 0, 1025);
	bad("frame PUBLISH has region 1, wanted 0", FRAME_PUBLISH, 0, 0, 1, 0);
}

/* No header, whatever its bytes, leads to more memory or to a count that does not fit. */
static void test_random_headers_stay_within_limits(void **state)
{
	unsigned int accepted = 0;

	(void)state;
	srand(3);
	for (int i = 0; i < 2000000; i++) {
		uint8_t bytes[FRAME_HEADER];
		struct frame frame;

		for (int k = 0; k < FRAME_HEADER; k++)
			bytes[k] = rand() % 3 ? 0 : (uint8_t)rand();
		bytes[0] = (uint8_t)(rand() % (FRAME_TYPES + 1));
		if (frame_decode(&frame, bytes, error))
			continue;
		accepted++;
		assert_true(frame.length <= FRAME_PAYLOAD_MAX);
		assert_true(frame.region < REGIONS_MAX);
		if (frame.type == FRAME_PAGES)
			assert_true(frame.length >= 16 * frame.count);
		if (frame.type == FRAME_REQUEST)
			assert_true(frame.length == 8 * frame.count);
	}
	assert_true(accepted > 1000);
}

/* HELLO. */

static struct hello make_hello(void)
{
	struct hello hello = {
		.version = PROTOCOL_VERSION,
		.min_version = PROTOCOL_MIN_VERSION,
		.features = FEATURE_CHECKSUM | 1ULL << 63,
		.page_size = PAGE_BYTES,
		.session = "0123456789abcde",
		.nr_regions = 2,
		.regions = { { "ram0", 1 << 20 }, { "pc.bios", 4096 } },
	};

	return hello;
}

struct message {
	struct frame frame;
	uint8_t payload[HELLO_BYTES_MAX];
};

static struct message *make_message(const struct hello *hello)
{
	static struct message message;

	message.frame = (struct frame){ .type = FRAME_HELLO, .count = hello->nr_regions };
	message.frame.length = (uint32_t)hello_encode(message.payload, hello);
	return &message;
}

static int decode_hello(const struct message *message, struct hello *hello)
{
	/* A copy of the exact size, so that ASan sees one byte too many. */
	uint8_t *payload = malloc(message->frame.length);
	int err;

	memcpy(payload, message->payload, message->frame.length);
	error[0] = '\0';
	err = hello_decode(hello, &message->frame, payload, error);
	free(payload);
	return err;
}

static void test_hello_round_trip(void **state)
{
	struct hello sent = make_hello(), got;

	(void)state;
	assert_int_equal(decode_hello(make_message(&sent), &got), 0);
	assert_memory_equal(&got, &sent, sizeof(sent));
	assert_int_equal(hello_version(&got), PROTOCOL_VERSION);
}

static void test_hello_of_the_largest_size(void **state)
{
	static struct hello sent, got;

	(void)state;
	sent = make_hello();
	sent.nr_regions = REGIONS_MAX;
	for (int i = 0; i < REGIONS_MAX; i++) {
		snprintf(sent.regions[i].name, REGION_NAME_MAX, "%063d", i);
		sent.regions[i].length = 4096;
	}
	assert_int_equal(decode_hello(make_message(&sent), &got), 0);
	assert_memory_equal(&got, &sent, sizeof(sent));
	good(FRAME_HELLO, 0, HELLO_BYTES_MAX, 0, REGIONS_MAX);
}

static void test_hello_cut_at_every_byte(void **state)
{
	struct hello hello = make_hello(), got;
	struct message *message = make_message(&hello);
	uint32_t whole = message->frame.length;

	(void)state;
	for (uint32_t length = 8; length < whole; length++) {
		message->frame.length = length;
		expect_error(decode_hello(message, &got), "bytes, wanted 184");
	}
	message->frame.length = whole + 1;
	expect_error(decode_hello(message, &got), "HELLO with 2 regions has 185 bytes, wanted 184");
	message->frame.length = whole;
	message->frame.count = UINT32_MAX;
	expect_error(decode_hello(message, &got), "HELLO with 4294967295 regions");
	message->frame.count = 0x038e38e5;	/* 72 times this wraps to 104 */
	expect_error(decode_hello(message, &got), "regions at most");
}

static void test_hello_of_other_versions(void **state)
{
	struct hello hello = make_hello(), got;
	struct message *message;

	(void)state;
	hello.version = 9;
	assert_int_equal(decode_hello(make_message(&hello), &got), 0);
	assert_int_equal(hello_version(&got), PROTOCOL_VERSION);

	/* Nothing of a version that is not ours can be taken for granted but the range. */
	hello.min_version = 7;
	message = make_message(&hello);
	memset(message->payload + 8, 0xff, message->frame.length - 8);
	message->frame.length = 8;
	assert_int_equal(decode_hello(message, &got), 0);
	assert_int_equal(hello_version(&got), 0);
	assert_int_equal(got.version, 9);
	assert_int_equal(got.min_version, 7);

	hello.min_version = 10;
	expect_error(decode_hello(make_message(&hello), &got), "versions 10 to 9");
	hello.version = hello.min_version = 0;
	expect_error(decode_hello(make_message(&hello), &got), "versions 0 to 0");
}

static void test_hostile_regions(void **state)
{
	struct hello hello, got;
	struct message *message;

	(void)state;
	hello = make_hello();
	hello.regions[1].length = 0;
	expect_error(decode_hello(make_message(&hello), &got),
		     "region \"pc.bios\": the source has 0 bytes, wanted a positive multiple of 4096");
	hello.regions[1].length = 4097;
	expect_error(decode_hello(make_message(&hello), &got), "has 4097 bytes");
	hello.regions[1].length = 1ULL << 63;
	expect_error(decode_hello(make_message(&hello), &got), "has 9223372036854775808 bytes");

	hello = make_hello();
	strcpy(hello.regions[1].name, "ram0");
	expect_error(decode_hello(make_message(&hello), &got), "region \"ram0\" is there twice");
	hello.regions[1].name[0] = '\0';
	expect_error(decode_hello(make_message(&hello), &got), "the name of region 1 is not");
	strcpy(hello.regions[1].name, "a:b");
	expect_error(decode_hello(make_message(&hello), &got), "the name of region 1 is not");
	strcpy(hello.regions[1].name, "\x1b[2J");
	expect_error(decode_hello(make_message(&hello), &got), "the name of region 1 is not");
	strcpy(hello.regions[1].name, "\xc3\xa4");
	expect_error(decode_hello(make_message(&hello), &got), "the name of region 1 is not");

	hello = make_hello();
	message = make_message(&hello);
	memset(message->payload + HELLO_FIXED + 8, 'x', REGION_NAME_MAX);
	expect_error(decode_hello(message, &got), "the name of region 0 is not");
	message = make_message(&hello);
	message->payload[HELLO_FIXED + 8 + 60] = 'x';
	expect_error(decode_hello(message, &got), "is not padded");
	message = make_message(&hello);
	message->payload[20] = 1;
	expect_error(decode_hello(message, &got), "HELLO has 1 where 0 is wanted");
}

static void test_regions_that_agree_in_any_order(void **state)
{
	const struct hello_region ours[] = { { "pc.bios", 4096 }, { "ram0", 1 << 20 } };
	struct hello hello = make_hello();
	uint32_t index[REGIONS_MAX];

	(void)state;
	assert_int_equal(hello_match(&hello, ours, 2, index, error), 0);
	assert_int_equal(index[0], 1);
	assert_int_equal(index[1], 0);
}

static void test_regions_that_differ(void **state)
{
	const struct hello_region ours[] = {
		{ "pc.bios", 8192 }, { "ram0", 1 << 20 }, { "ram1", 4096 },
	};
	struct hello hello = make_hello();
	uint32_t index[REGIONS_MAX];

	(void)state;
	expect_error(hello_match(&hello, ours, 2, index, error),
		     "region \"pc.bios\" has 4096 bytes at the source, 8192 bytes at the destination");
	expect_error(hello_match(&hello, ours + 1, 1, index, error),
		     "region \"pc.bios\" of 4096 bytes is at the source, the destination has only \"ram0\" of 1048576 bytes");
	hello.regions[1].length = 8192;
	expect_error(hello_match(&hello, ours, 3, index, error),
		     "region \"ram1\" of 4096 bytes is at the destination, the source has only \"ram0\" of 1048576 bytes, \"pc.bios\" of 8192 bytes");
}

static void test_a_long_list_of_regions_is_cut(void **state)
{
	static struct hello_region ours[REGIONS_MAX];
	struct hello hello = make_hello();
	uint32_t index[REGIONS_MAX];

	(void)state;
	for (int i = 0; i < REGIONS_MAX; i++) {
		snprintf(ours[i].name, REGION_NAME_MAX, "%063d", i);
		ours[i].length = 4096;
	}
	expect_error(hello_match(&hello, ours, REGIONS_MAX, index, error), ", ...");
	assert_true(strlen(error) < TEXT_MAX);
}

/* The small ones. */

static void test_hello_ack(void **state)
{
	struct hello_ack sent = { 1, FEATURE_CHECKSUM }, got;
	uint8_t payload[HELLO_ACK_BYTES];

	(void)state;
	hello_ack_encode(payload, &sent);
	assert_int_equal(hello_ack_decode(&got, payload, FEATURE_CHECKSUM, error), 0);
	assert_int_equal(got.version, 1);
	assert_int_equal(got.features, FEATURE_CHECKSUM);
	expect_error(hello_ack_decode(&got, payload, 0, error),
		     "HELLO_ACK chooses features 0x1, offered were 0x0");
	payload[4] = 1;
	expect_error(hello_ack_decode(&got, payload, 1, error), "where 0 is wanted");
	payload[0] = 2;
	expect_error(hello_ack_decode(&got, payload, 1, error),
		     "HELLO_ACK chooses version 2, wanted 1 to 1");
}

static void test_join_and_resume(void **state)
{
	struct join join = { "0123456789abcde", CHANNEL_BULK, CHANNELS_MAX - 1 }, got_join;
	struct resume resume = { "0123456789abcde", 1 }, got_resume;
	uint8_t payload[24];

	(void)state;
	join_encode(payload, &join);
	assert_int_equal(join_decode(&got_join, payload, error), 0);
	assert_memory_equal(&got_join, &join, sizeof(join));
	payload[20] = CHANNELS_MAX;
	expect_error(join_decode(&got_join, payload, error), "JOIN has index 16, wanted 0 to 15");
	payload[16] = CHANNEL_CONTROL;
	expect_error(join_decode(&got_join, payload, error), "JOIN has kind 0, wanted 1");
	payload[16] = 3;
	expect_error(join_decode(&got_join, payload, error), "JOIN has kind 3");

	resume_encode(payload, &resume);
	assert_int_equal(resume_decode(&got_resume, payload, error), 0);
	assert_memory_equal(got_resume.session, resume.session, SESSION_SIZE);
	payload[20] = 1;
	expect_error(resume_decode(&got_resume, payload, error), "RESUME has 1 where 0");
	payload[16] = 0;
	expect_error(resume_decode(&got_resume, payload, error), "RESUME has version 0");
}

static void test_text_cannot_harm_a_terminal(void **state)
{
	static uint8_t payload[TEXT_MAX + 10];
	char text[TEXT_MAX + 1];

	(void)state;
	text_decode(text, (const uint8_t *)"a\x1b[2J\xc3\xa4\0b", 9);
	assert_string_equal(text, "a?[2J???b");
	memset(payload, 'x', sizeof(payload));
	text_decode(text, payload, sizeof(payload));
	assert_int_equal(strlen(text), TEXT_MAX);
	text_decode(text, NULL, 0);
	assert_string_equal(text, "");
}

/* Requests, pages, bitmaps. */

static void test_request(void **state)
{
	uint64_t sent[REQUEST_MAX], got[REQUEST_MAX];
	uint8_t payload[8 * REQUEST_MAX];
	struct frame frame = { FRAME_REQUEST, 0, 0, 0, REQUEST_MAX };

	(void)state;
	for (uint64_t i = 0; i < REQUEST_MAX; i++)
		sent[i] = i * 3;
	frame.length = (uint32_t)request_encode(payload, sent, REQUEST_MAX);
	assert_int_equal(frame.length, sizeof(payload));
	assert_int_equal(request_decode(got, &frame, payload, 3 * REQUEST_MAX, error), 0);
	assert_memory_equal(got, sent, sizeof(sent));

	/* The last page is inside, the one behind it is not. */
	sent[REQUEST_MAX - 1] = 3 * REQUEST_MAX - 1;
	request_encode(payload, sent, REQUEST_MAX);
	assert_int_equal(request_decode(got, &frame, payload, 3 * REQUEST_MAX, error), 0);
	sent[REQUEST_MAX - 1] = 3 * REQUEST_MAX;
	request_encode(payload, sent, REQUEST_MAX);
	expect_error(request_decode(got, &frame, payload, 3 * REQUEST_MAX, error),
		     "frame REQUEST has offset 6291456, wanted a multiple of 4096 below 6291456");
	payload[0] = 1;
	expect_error(request_decode(got, &frame, payload, 3 * REQUEST_MAX, error), "offset 1,");
	memset(payload, 0xff, 8);
	payload[0] = 0;
	payload[1] = 0xf0;
	expect_error(request_decode(got, &frame, payload, 3 * REQUEST_MAX, error),
		     "offset 18446744073709547520");
}

static void test_pages(void **state)
{
	const struct page_entry sent[3] = {
		{ 4096, 0x1122334455667788, false, 0 }, { 8192, 2, true, 0 }, { 0, 3, false, 0 },
	};
	struct page_entry got[PAGES_MAX];
	uint8_t payload[3 * PAGES_ENTRY];
	struct frame frame = { FRAME_PAGES, 0, 3 * 16 + 2 * 4096, 0, 3 };

	(void)state;
	for (int i = 0; i < 3; i++)
		page_entry_encode(payload + i * PAGES_ENTRY, &sent[i]);
	assert_int_equal(pages_decode(got, &frame, payload, 3, error), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(got[i].offset, sent[i].offset);
		assert_int_equal(got[i].checksum, sent[i].checksum);
		assert_int_equal(got[i].zero, sent[i].zero);
	}

	expect_error(pages_decode(got, &frame, payload, 2, error),
		     "frame PAGES has offset 8192, wanted a multiple of 4096 below 8192");
	frame.length = 3 * 16 + 3 * 4096;
	expect_error(pages_decode(got, &frame, payload, 3, error),
		     "frame PAGES has 12288 bytes of contents, wanted 8192");
	frame.length = 3 * 16 + 1 * 4096;
	expect_error(pages_decode(got, &frame, payload, 3, error),
		     "frame PAGES has 4096 bytes of contents, wanted 8192");
	frame.length = 3 * 16 + 2 * 4096;
	payload[0] |= 2;
	expect_error(pages_decode(got, &frame, payload, 3, error), "offset 4098");
}

static void test_compressed_pages(void **state)
{
	const struct page_entry sent[4] = {
		{ 4096, 1, false, COMPRESSED_MIN }, { 8192, 2, true, 0 }, { 0, 3, false, 0 },
		{ 12288, 4, false, COMPRESSED_MAX },
	};
	const uint32_t contents = COMPRESSED_MIN + 4096 + COMPRESSED_MAX;
	struct page_entry got[PAGES_MAX];
	uint8_t payload[4 * PAGES_ENTRY];
	struct frame frame = { FRAME_PAGES, FRAME_PAGES_COMPRESSED, 4 * 16 + contents, 0, 4 };

	(void)state;
	for (int i = 0; i < 4; i++)
		page_entry_encode(payload + i * PAGES_ENTRY, &sent[i]);
	assert_int_equal(pages_decode(got, &frame, payload, 4, error), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(got[i].offset, sent[i].offset);
		assert_int_equal(got[i].checksum, sent[i].checksum);
		assert_int_equal(got[i].zero, sent[i].zero);
		assert_int_equal(got[i].compressed, sent[i].compressed);
	}
	expect_error(pages_decode(got, &frame, payload, 3, error), "offset 12288");
	for (uint32_t length = 4 * 16; length <= 4 * (16 + 4096); length++) {
		frame.length = length;
		assert_int_equal(pages_decode(got, &frame, payload, 4, error),
				 length == 4 * 16 + contents ? 0 : -EPROTO);
	}
	/* Every length a page can claim, with contents that fit it. */
	frame.count = 1;
	for (uint32_t size = 0; size < PAGE_BYTES; size++) {
		bool good = size <= 1 || (size >= COMPRESSED_MIN && size <= COMPRESSED_MAX);

		payload[0] = (uint8_t)size;
		payload[1] = (uint8_t)(size >> 8);
		frame.length = 16 + (size > 1 ? size : size ? 0 : PAGE_BYTES);
		assert_int_equal(pages_decode(got, &frame, payload, 4, error), good ? 0 : -EPROTO);
		if (good)
			assert_int_equal(16 + page_entry_contents(got), frame.length);
	}
	payload[0] = COMPRESSED_MIN - 1;
	payload[1] = 0;
	expect_error(pages_decode(got, &frame, payload, 4, error),
		     "a compressed page of 8 bytes, wanted 9 to 4032");
	/* Without the flag these bits are nothing. */
	payload[0] = 100;
	frame.flags = 0;
	frame.length = 16 + PAGE_BYTES;
	expect_error(pages_decode(got, &frame, payload, 4, error), "offset 100, wanted a multiple");
}

static void test_bitmap(void **state)
{
	const uint64_t sent[2] = { 0x0123456789abcdef, 0x8000000000000001 };
	uint64_t got[BITMAP_WORDS_MAX], first;
	uint8_t payload[24];
	struct frame frame = { FRAME_BITMAP, 0, 24, 0, 2 };

	(void)state;
	assert_int_equal(bitmap_encode(payload, 64, sent, 2), 24);
	assert_int_equal(bitmap_decode(&first, got, &frame, payload, 192, error), 0);
	assert_int_equal(first, 64);
	assert_memory_equal(got, sent, sizeof(sent));
	/* 129 pages still need a third word, 128 do not. */
	assert_int_equal(bitmap_decode(&first, got, &frame, payload, 129, error), 0);
	expect_error(bitmap_decode(&first, got, &frame, payload, 128, error),
		     "frame BITMAP of 2 words starts at page 64");
	bitmap_encode(payload, 1, sent, 2);
	expect_error(bitmap_decode(&first, got, &frame, payload, 192, error),
		     "starts at page 1, wanted a multiple of 64");
	bitmap_encode(payload, ~63ULL, sent, 2);
	expect_error(bitmap_decode(&first, got, &frame, payload, 192, error),
		     "starts at page 18446744073709551552");
}

static void test_discard(void **state)
{
	struct page_range ranges[] = { { 0, 1 }, { 3, 10 }, { 9, 12 } }, got[3];
	uint8_t payload[3 * DISCARD_RANGE];
	struct frame frame = { FRAME_DISCARD, 0, sizeof(payload), 0, 3 };

	(void)state;
	assert_int_equal(discard_encode(payload, ranges, 3), sizeof(payload));
	assert_int_equal(discard_decode(got, &frame, payload, 12, error), 0);
	assert_memory_equal(got, ranges, sizeof(ranges));
	expect_error(discard_decode(got, &frame, payload, 11, error),
		     "frame DISCARD has 12288 bytes from offset 36864, wanted a multiple of 4096 up to 8192");
	ranges[0].end = 0;
	discard_encode(payload, ranges, 3);
	expect_error(discard_decode(got, &frame, payload, 12, error),
		     "has 0 bytes from offset 0, wanted a multiple of 4096 up to 49152");
	ranges[0] = (struct page_range){ 12, 13 };
	discard_encode(payload, ranges, 3);
	expect_error(discard_decode(got, &frame, payload, 12, error),
		     "frame DISCARD has offset 49152, wanted a multiple of 4096 below 49152");
	ranges[0] = (struct page_range){ 1, 1ULL << 52 };	/* wraps to just before it */
	discard_encode(payload, ranges, 3);
	expect_error(discard_decode(got, &frame, payload, 12, error),
		     "has 18446744073709547520 bytes from offset 4096");
	ranges[0] = (struct page_range){ 0, 1 };
	discard_encode(payload, ranges, 3);
	payload[8] = 1;
	expect_error(discard_decode(got, &frame, payload, 12, error), "has 4097 bytes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_magic),
		cmocka_unit_test(test_what_else_may_come_is_named),
		cmocka_unit_test(test_header_bytes_are_little_endian),
		cmocka_unit_test(test_good_headers),
		cmocka_unit_test(test_hostile_headers),
		cmocka_unit_test(test_random_headers_stay_within_limits),
		cmocka_unit_test(test_hello_round_trip),
		cmocka_unit_test(test_hello_of_the_largest_size),
		cmocka_unit_test(test_hello_cut_at_every_byte),
		cmocka_unit_test(test_hello_of_other_versions),
		cmocka_unit_test(test_hostile_regions),
		cmocka_unit_test(test_regions_that_agree_in_any_order),
		cmocka_unit_test(test_regions_that_differ),
		cmocka_unit_test(test_a_long_list_of_regions_is_cut),
		cmocka_unit_test(test_hello_ack),
		cmocka_unit_test(test_join_and_resume),
		cmocka_unit_test(test_text_cannot_harm_a_terminal),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_compressed_pages),
		cmocka_unit_test(test_bitmap),
		cmocka_unit_test(test_discard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
