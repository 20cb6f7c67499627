/* SPDX-License-Identifier: GPL-2.0-only */
/* What most tests begin with: a region of NR missing pages with a guest view. */
#ifndef _MISSING_REGION_H
#define _MISSING_REGION_H

#include "umem_selftest.h"

#define NR 16

static int region_fd, pager_fd;
static char *guest;

static inline void setup_flags(uint32_t attach_flags)
{
	region_fd = region(NR * PAGE);
	pager_fd = pager_flags(region_fd, attach_flags);
	guest = map(region_fd, NR * PAGE);
	CHECK_EQ(mark_missing(pager_fd, 0, NR * PAGE), NR);
}

static inline void setup(void)
{
	setup_flags(0);
}

#endif /* _MISSING_REGION_H */
