// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "umemd/codec.h"

#define LEVEL	1

struct compressor {
	ZSTD_CCtx *context;
};

struct decompressor {
	ZSTD_DCtx *context;
};

struct compressor *compressor_new(void)
{
	static const uint8_t page[PAGE_BYTES];
	struct compressor *compressor = calloc(1, sizeof(*compressor));
	uint8_t to[PAGE_BYTES];

	if (!compressor)
		return NULL;
	compressor->context = ZSTD_createCCtx();
	/* The first page takes the memory that the others use again. */
	if (!compressor->context ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(compressor->context, ZSTD_c_compressionLevel,
						LEVEL)) ||
	    !compress_page(compressor, to, page)) {
		compressor_free(compressor);
		return NULL;
	}
	return compressor;
}

void compressor_free(struct compressor *compressor)
{
	if (!compressor)
		return;
	ZSTD_freeCCtx(compressor->context);
	free(compressor);
}

size_t compress_page(struct compressor *compressor, uint8_t *to, const uint8_t *page)
{
	size_t size = ZSTD_compress2(compressor->context, to, COMPRESSED_MAX, page, PAGE_BYTES);

	return ZSTD_isError(size) || size < COMPRESSED_MIN ? 0 : size;
}

struct decompressor *decompressor_new(void)
{
	struct decompressor *decompressor = calloc(1, sizeof(*decompressor));

	if (!decompressor)
		return NULL;
	decompressor->context = ZSTD_createDCtx();
	if (!decompressor->context) {
		free(decompressor);
		return NULL;
	}
	return decompressor;
}

void decompressor_free(struct decompressor *decompressor)
{
	if (!decompressor)
		return;
	ZSTD_freeDCtx(decompressor->context);
	free(decompressor);
}

int decompress_page(struct decompressor *decompressor, uint8_t *to, const uint8_t *from,
		    size_t size)
{
	static const uint8_t magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };

	/*
	 * The library would also take frames of its first formats, frames that say
	 * nothing, and several frames one after another.
	 */
	if (size < COMPRESSED_MIN || size > COMPRESSED_MAX || memcmp(from, magic, sizeof(magic)) ||
	    ZSTD_findFrameCompressedSize(from, size) != size)
		return -EPROTO;
	if (ZSTD_decompressDCtx(decompressor->context, to, PAGE_BYTES, from, size) != PAGE_BYTES)
		return -EPROTO;
	return 0;
}
