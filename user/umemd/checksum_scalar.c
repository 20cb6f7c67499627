// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/checksum.h"

/* In a file of its own, for that is how the library is told. */
#define XXH_INLINE_ALL
#define XXH_VECTOR	XXH_SCALAR
#include <xxhash.h>

uint64_t checksum_scalar(const void *data, size_t size, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, size, seed);
}
