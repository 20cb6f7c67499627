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

/* The toucher waits for page n; give it the page and let it finish. */
static inline void serve(struct toucher *toucher, int n, int byte)
{
	expect_request(pager_fd, n * PAGE);
	expect_waiters(region_fd, 1);
	CHECK(!toucher->done, "it did not wait");
	CHECK_EQ(copy_byte(pager_fd, n * PAGE, byte), 1);
	finish(toucher);
}

#endif /* _MISSING_REGION_H */
