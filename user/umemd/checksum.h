/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each page travels with, so that a damaged one is noticed. */
#ifndef UMEMD_CHECKSUM_H
#define UMEMD_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/**
 * page_checksum - XXH3 of a page and of where it belongs
 * @data: PAGE_BYTES of it, NULL for a zero page
 *
 * Calculated in the way that is the fastest on this processor, which the first call measures.
 */
uint64_t page_checksum(const void *data, uint32_t region, uint64_t offset);

/* The ways there are: XXH3_64bits_withSeed(), with vectors if the processor has them, and without. */
typedef uint64_t checksum_way(const void *data, size_t size, uint64_t seed);
checksum_way checksum_vector, checksum_scalar;

#endif
