// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/histogram.h"

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_STEPS)
		return (unsigned int)value;
	shift = 63 - HISTOGRAM_STEP_BITS - (unsigned int)__builtin_clzll(value);
	return (shift + 1) * HISTOGRAM_STEPS +
	       (unsigned int)(value >> shift & (HISTOGRAM_STEPS - 1));
}

static uint64_t last_value_of(unsigned int bucket)
{
	unsigned int shift;
	uint64_t step;

	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	shift = bucket / HISTOGRAM_STEPS - 1;
	step = HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS;
	return (step << shift) + ((1ULL << shift) - 1);
}

/* The smallest n with @value <= 2^n. */
static unsigned int power_of(uint64_t value)
{
	return value > 1 ? 64 - (unsigned int)__builtin_clzll(value - 1) : 0;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->buckets[bucket_of(value)]++;
	histogram->powers[power_of(value)]++;
	histogram->count++;
	if (value > histogram->max)
		histogram->max = value;
}

uint64_t histogram_percentile(const struct histogram *histogram, unsigned int percent)
{
	uint64_t wanted = histogram->count / 100 * percent +
			  (histogram->count % 100 * percent + 99) / 100;
	uint64_t seen = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS && wanted; i++) {
		seen += histogram->buckets[i];
		if (seen >= wanted) {
			uint64_t last = last_value_of(i);

			return last < histogram->max ? last : histogram->max;
		}
	}
	return 0;
}
