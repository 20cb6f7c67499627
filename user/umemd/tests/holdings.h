/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UMEMD_TESTS_HOLDINGS_H
#define UMEMD_TESTS_HOLDINGS_H

#include <stdbool.h>
#include <stddef.h>

#define HOLDINGS_MAX	512

/**
 * struct holdings - what the kernel holds for whoever, and this process
 * @list: by name: of each slab cache its objects, page tables and shared memory in
 *	pages, tasks; descriptors and threads of this process, and references to the
 *	module, which are exact: nobody else has any
 * @nr: how many there are
 */
struct holdings {
	struct {
		char name[48];
		long count;
		bool exact;
	} list[HOLDINGS_MAX];
	size_t nr;
};

/**
 * holdings_take() - count; what is only cached is dropped before
 * @holdings: the result
 *
 * Return: 0, or -errno of what cannot be read.
 */
int holdings_take(struct holdings *holdings);

/**
 * holdings_grown() - compare
 * @before: as it was
 * @after: as it is
 * @slack: by how much what is not exact may have grown, and four times that what the
 *	kernel frees late
 * @tell: called for each that grew by more
 *
 * Return: how many did.
 */
unsigned int holdings_grown(const struct holdings *before, const struct holdings *after,
			    long slack, void (*tell)(const char *name, long before, long after));

#endif
