/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Log-linear histogram: each power of two is cut into HISTOGRAM_STEPS equal
 * buckets, so a value is known to 1 / HISTOGRAM_STEPS of itself. Beside it, and
 * exact, how many values fall between a power of two and the next.
 */
#ifndef UMEMD_HISTOGRAM_H
#define UMEMD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS	5
#define HISTOGRAM_STEPS		(1 << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS	((64 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)
#define HISTOGRAM_POWERS	65

/**
 * struct histogram - all zero is an empty one
 * @powers: the n-th counts the values up to 2^n that are more than 2^(n-1);
 *	the first those up to 1
 */
struct histogram {
	uint64_t count;
	uint64_t max;
	uint64_t powers[HISTOGRAM_POWERS];
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);

/**
 * histogram_percentile - the value that @percent of all values do not exceed
 * @percent: 1 to 100
 *
 * Return: the upper end of the bucket it is in, never more than the largest
 * value added; 0 when nothing was added.
 */
uint64_t histogram_percentile(const struct histogram *histogram, unsigned int percent);

#endif
