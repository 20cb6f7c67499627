/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Single pages, compressed and back. Contexts and room are taken once, not for a
 * page. What is decompressed was sent by somebody and may be anything.
 */
#ifndef UMEMD_COMPRESS_H
#define UMEMD_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

struct compressor;
struct decompressor;

/* Return: NULL when there is no memory. */
struct compressor *compressor_new(void);
void compressor_free(struct compressor *compressor);

/**
 * compress_page - a zstd frame with one page in it
 * @to: PAGE_BYTES of room
 * @page: PAGE_BYTES of it
 *
 * Return: bytes of the frame, COMPRESSED_MIN to COMPRESSED_MAX; 0 if it would not be
 * that small.
 */
size_t compress_page(struct compressor *compressor, uint8_t *to, const uint8_t *page);

/* Return: NULL when there is no memory. */
struct decompressor *decompressor_new(void);
void decompressor_free(struct decompressor *decompressor);

/**
 * decompress_page - what compress_page() made, or anything else
 * @to: PAGE_BYTES of room; not more is written, whatever comes
 * @size: bytes of @from
 *
 * Good is one zstd frame that takes all of @from, needs no dictionary and gives
 * PAGE_BYTES.
 *
 * Return: 0, or -EPROTO, and then @to holds anything.
 */
int decompress_page(struct decompressor *decompressor, uint8_t *to, const uint8_t *from,
		    size_t size);

#endif
