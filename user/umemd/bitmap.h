/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bit n % 64 of word n / 64: the layout of UMEM_GET_BITMAP. */
#ifndef UMEMD_BITMAP_H
#define UMEMD_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t bitmap_words(uint64_t bits)
{
	return (size_t)((bits + 63) / 64);
}

static inline bool bitmap_test(const uint64_t *bitmap, uint64_t n)
{
	return bitmap[n / 64] >> (n % 64) & 1;
}

/* Returns whether the bit changed. */
static inline bool bitmap_set(uint64_t *bitmap, uint64_t n)
{
	uint64_t bit = 1ULL << (n % 64);
	bool changed = !(bitmap[n / 64] & bit);

	bitmap[n / 64] |= bit;
	return changed;
}

/* Returns whether the bit changed. */
static inline bool bitmap_clear(uint64_t *bitmap, uint64_t n)
{
	uint64_t bit = 1ULL << (n % 64);
	bool changed = bitmap[n / 64] & bit;

	bitmap[n / 64] &= ~bit;
	return changed;
}

/* The first bit at or after @from whose value is @value; @end if there is none. */
static inline uint64_t bitmap_find(const uint64_t *bitmap, bool value, uint64_t from, uint64_t end)
{
	uint64_t flip = value ? 0 : ~0ULL;

	while (from < end) {
		uint64_t word = (bitmap[from / 64] ^ flip) >> (from % 64);

		if (word) {
			from += (uint64_t)__builtin_ctzll(word);
			return from < end ? from : end;
		}
		from = (from / 64 + 1) * 64;
	}
	return end;
}

#endif
