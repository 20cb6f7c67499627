// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Compressed pages: anything may come, and stays within its page; what was compressed
 * here comes back as it was.
 *
 * Input: 0 and what came, or 1 and what the page repeats.
 */
#include "fuzz.h"

#include "common/util.h"
#include "umemd/codec.h"
#include "umemd/compress.h"

static struct compressor *compressor;
static struct decompressor *decompressor;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	compressor = compressor_new();
	decompressor = decompressor_new();
	must(compressor && decompressor);
	return 0;
}

static void come(const uint8_t *data, size_t size)
{
	uint8_t *to = malloc(PAGE_BYTES);

	must(to);
	if (!decompress_page(decompressor, to, data, size))
		must(size >= COMPRESSED_MIN && size <= COMPRESSED_MAX);
	free(to);
}

static void go(const uint8_t *data, size_t size)
{
	uint8_t page[PAGE_BYTES] = { 0 }, again[PAGE_BYTES];
	uint8_t *packed = malloc(COMPRESSED_MAX);
	size_t packed_size;

	must(packed);
	for (size_t i = 0; size && i < PAGE_BYTES; i++)
		page[i] = (uint8_t)(data[i % size] + (data[0] & 1 ? i / size : 0));
	packed_size = compress_page(compressor, packed, page);
	if (packed_size) {
		must(packed_size >= COMPRESSED_MIN && packed_size <= COMPRESSED_MAX);
		must(!decompress_page(decompressor, again, packed, packed_size));
		must(!memcmp(again, page, PAGE_BYTES));
	}
	free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint8_t what = input_u8(&input);
	uint8_t *rest = input_rest(&input, &size);

	if (what & 1)
		go(rest, size);
	else
		come(rest, size);
	free(rest);
	return 0;
}
