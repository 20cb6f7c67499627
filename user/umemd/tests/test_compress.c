// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "umemd/codec.h"
#include "umemd/tests/cmocka_first.h"

static struct compressor *compressor;
static struct decompressor *decompressor;
static uint8_t page[PAGE_BYTES], back[PAGE_BYTES + 64];
static uint64_t seed = 1;

static int setup(void **state)
{
	(void)state;
	compressor = compressor_new();
	decompressor = decompressor_new();
	memset(back, 0x55, sizeof(back));
	return compressor && decompressor ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	compressor_free(compressor);
	decompressor_free(decompressor);
	return 0;
}

static uint8_t noise(void)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint8_t)(seed >> 56);
}

static void fill(size_t noisy)
{
	for (size_t i = 0; i < PAGE_BYTES; i++)
		page[i] = i < noisy ? noise() : (uint8_t)(i / 64);
}

/* What anybody could send: memory of exactly that size, so that a read behind it shows. */
static int decompress(const uint8_t *from, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	int err;

	memcpy(copy, from, size);
	err = decompress_page(decompressor, back, copy, size);
	free(copy);
	for (size_t i = PAGE_BYTES; i < sizeof(back); i++)
		assert_int_equal(back[i], 0x55);
	return err;
}

static void test_pages_come_back_as_they_were(void **state)
{
	uint8_t to[PAGE_BYTES];

	(void)state;
	for (size_t noisy = 0; noisy < PAGE_BYTES; noisy += 101) {
		size_t size;

		fill(noisy);
		size = compress_page(compressor, to, page);
		if (!size)
			continue;
		assert_in_range(size, COMPRESSED_MIN, COMPRESSED_MAX);
		assert_int_equal(decompress(to, size), 0);
		assert_memory_equal(back, page, PAGE_BYTES);
	}
}

static void test_a_page_that_does_not_shrink_is_left(void **state)
{
	uint8_t to[PAGE_BYTES];

	(void)state;
	fill(PAGE_BYTES);
	assert_int_equal(compress_page(compressor, to, page), 0);
	fill(0);
	assert_in_range(compress_page(compressor, to, page), COMPRESSED_MIN, 1000);
}

static void test_every_other_length_of_a_good_page_is_refused(void **state)
{
	uint8_t to[PAGE_BYTES] = { 0 };
	size_t good;

	(void)state;
	fill(2000);
	good = compress_page(compressor, to, page);
	assert_in_range(good, 2000, COMPRESSED_MAX);
	for (size_t size = 0; size <= PAGE_BYTES; size++)
		assert_int_equal(decompress(to, size), size == good ? 0 : -EPROTO);
}

static void test_only_one_frame_of_exactly_a_page_is_good(void **state)
{
	static const size_t lengths[] = { 0, 1, 4095, 4097, 8192, 1 << 20, 64 << 20 };
	static const uint8_t skippable[16] = { 0x50, 0x2a, 0x4d, 0x18, 8 };
	static const uint8_t older[16] = { 0x25, 0xb5, 0x2f, 0xfd };
	uint8_t to[PAGE_BYTES];
	size_t half, size;

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		uint8_t *zeroes = calloc(1, lengths[i] + 1);

		size = ZSTD_compress(to, sizeof(to), zeroes, lengths[i], 1);
		free(zeroes);
		assert_false(ZSTD_isError(size));
		assert_int_equal(decompress(to, size), -EPROTO);
	}
	fill(100);
	half = ZSTD_compress(to, sizeof(to), page, PAGE_BYTES / 2, 1);
	size = ZSTD_compress(to + half, sizeof(to) - half, page, PAGE_BYTES / 2, 1);
	assert_int_equal(decompress(to, half + size), -EPROTO);

	memcpy(to, skippable, sizeof(skippable));
	fill(100);
	size = ZSTD_compress(to + sizeof(skippable), sizeof(to) - sizeof(skippable), page,
			     PAGE_BYTES, 1);
	assert_int_equal(decompress(to, sizeof(skippable) + size), -EPROTO);
	assert_int_equal(decompress(skippable, sizeof(skippable)), -EPROTO);
	assert_int_equal(decompress(older, sizeof(older)), -EPROTO);
}

static void test_damage_anywhere_reads_and_writes_nothing_outside(void **state)
{
	uint8_t to[PAGE_BYTES];
	size_t size;

	(void)state;
	for (int round = 0; round < 20; round++) {
		fill((size_t)round * 100);
		size = compress_page(compressor, to, page);
		for (size_t i = 0; i < size; i++) {
			uint8_t was = to[i];

			to[i] ^= (uint8_t)(1 + noise() % 255);
			decompress(to, size);
			to[i] = was;
		}
		assert_int_equal(decompress(to, size), 0);
		assert_memory_equal(back, page, PAGE_BYTES);
	}
	for (int round = 0; round < 2000; round++) {
		for (size_t i = 4; i < sizeof(to); i++)
			to[i] = noise();
		to[4] &= 0x20;		/* a header that the rest may follow */
		decompress(to, COMPRESSED_MIN + (size_t)noise() * 15);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_come_back_as_they_were),
		cmocka_unit_test(test_a_page_that_does_not_shrink_is_left),
		cmocka_unit_test(test_every_other_length_of_a_good_page_is_refused),
		cmocka_unit_test(test_only_one_frame_of_exactly_a_page_is_good),
		cmocka_unit_test(test_damage_anywhere_reads_and_writes_nothing_outside),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
